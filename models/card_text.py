"""Writes a model card as Markdown, or as one HTML file that needs no other. Knows nothing of what it says."""

import base64
import hashlib
from collections.abc import Callable
from html import escape

from models.card import Block, Card, Code, Paragraph, Picture, Table

STYLE = """
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
body { max-width: 60rem; margin: 2rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid #8886; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; }
.wide { overflow-wrap: normal; }
th, td { padding: .25rem .75rem .25rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid #8883; }
td:not(:first-child) { font-variant-numeric: tabular-nums; }
img { image-rendering: pixelated; width: min(100%, 40rem); background: #000; border-radius: 4px; }
pre { overflow-x: auto; padding: .75rem; background: #8881; border-radius: 4px; font-size: .8125rem; }
"""
STYLE_HASH = f"sha256-{base64.b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}"  # for a page's policy


def to_markdown(card: Card, place: Callable[[Picture], str]) -> str:
    """The card as Markdown.

    Args:
        card: what to write.
        place: where a picture will lie, as a link says it.
    """
    parts = [f"# {card.title}", card.summary]
    for section in card.sections:
        parts += [f"## {section.title}", *(_markdown(block, place) for block in section.blocks)]
    return "\n\n".join(parts) + "\n"


def to_html(card: Card) -> str:
    """The card as a page for light and dark screens, its pictures within."""
    title, body = escape(card.title), [f"<h1>{escape(card.title)}</h1>", f"<p>{escape(card.summary)}</p>"]
    for section in card.sections:
        body += [f"<h2>{escape(section.title)}</h2>", *map(_html, section.blocks)]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    begin = f'<!doctype html>\n<html lang="en"><head>{head}<title>{title}</title><style>{STYLE}</style></head>\n<body>'
    return "\n".join([begin, *body, "</body></html>\n"])


def _markdown(block: Block, place: Callable[[Picture], str]) -> str:
    match block:
        case Paragraph(text):
            return _plain(text)
        case Code(text):
            return f"```\n{text}\n```"
        case Picture(_, alt, _):
            return f"![{_plain(alt)}]({place(block)})"
        case Table(head, rows):
            lines = [head, tuple("---" for _ in head), *rows]
            return "\n".join("| " + " | ".join(_plain(cell) for cell in line) + " |" for line in lines)


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is: what people and files wrote is not mark-up."""
    for sign in "\\`*_[]<>|#":
        text = text.replace(sign, f"\\{sign}")
    return " ".join(text.split())


def _html(block: Block) -> str:
    match block:
        case Paragraph(text):
            return f"<p>{escape(text)}</p>"
        case Code(text):
            return f"<pre>{escape(text)}</pre>"
        case Picture(_, alt, png):
            return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        case Table(head, rows):
            top = "".join(f"<th>{escape(cell)}</th>" for cell in head)
            body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
            return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>'
