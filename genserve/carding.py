"""`genserve card`: a version's model card as files. Changes nothing in the repository."""

import argparse
from pathlib import Path

from genserve.context import readable_repository
from models.card import Picture, build_card
from models.card_text import to_html, to_markdown
from models.errors import GenserveError
from models.files import replace_file
from models.generator import Generator
from models.judge import closest_picture, open_reference
from models.repository import Repository, Version


def card(args: argparse.Namespace) -> int:
    """Write card.html, card.md and its pictures into a folder; prints where."""
    repository = readable_repository()
    version = repository.resolve(args.version)
    folder = args.output or Path(f"{version.name}-{version.number}-card")
    closest = None if args.quick else _closest(repository, version)
    made = build_card(repository, version, public=args.public, closest=closest)
    folder.mkdir(parents=True, exist_ok=True)

    def place(picture: Picture) -> str:
        replace_file(folder / picture.name, picture.png)
        return picture.name

    replace_file(folder / "card.md", to_markdown(made, place).encode())
    replace_file(folder / "card.html", to_html(made).encode())
    print(folder / "card.html")
    return 0


def _closest(repository: Repository, version: Version) -> bytes | None:
    """The samples nearest to training images, where the data that the version is judged against is at hand."""
    reference, manifest = repository.reference(version.name), version.manifest()
    if reference is None or manifest.kind != "image":
        return None
    try:
        reals = open_reference(reference, repository=repository.root)
    except GenserveError:
        return None
    return closest_picture(Generator.open(version.model_path), reals)
