"""The README keeps up with the tree and the settings."""

import re
from pathlib import Path

from serving.settings import NAMES

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
ROOMS = ("models", "trainer", "serving", "genserve", "bench")


def test_every_module_has_its_line() -> None:
    """In the tree, under its room, and nothing is listed that is not there."""
    listed: dict[str, set[str]] = {room: set() for room in ROOMS}
    room = ""
    for line in README.partition("## The tree")[2].partition("## More")[0].splitlines():
        if heading := re.match(r" {4}(\w+)/ ", line):
            room = heading[1]
        elif (entry := re.match(r" {8}(\w+\.py) +\S", line)) and room in listed:
            listed[room].add(entry[1])
    there = {room: {path.name for path in (ROOT / room).glob("*.py")} - {"__init__.py"} for room in ROOMS}
    assert listed == there


def test_every_setting_is_listed() -> None:
    """By the name of its environment variable."""
    assert re.findall(r"^\| GENSERVE_(\w+) \|", README, re.MULTILINE) == [name.upper() for name in NAMES]


def test_every_link_leads_somewhere() -> None:
    """Files that the README and docs/ link to are there."""
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
