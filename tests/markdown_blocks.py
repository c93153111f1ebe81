"""The fenced blocks of the README and of docs/, and the commands in them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from tiny_project import ROOT

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")))

FENCE = re.compile(r"^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    """The code of all blocks of a language on a page."""
    return [fence["code"] for fence in FENCE.finditer(page.read_text()) if fence["language"] == language]


def commands() -> dict[str, str]:
    """Every command of every bash block, and the first page that has it."""
    places: dict[str, str] = {}
    for page in PAGES:
        for block in blocks(page, "bash"):
            for command in _commands(block):
                places.setdefault(command, page.name)
    return places


def _commands(block: str) -> Iterator[str]:
    for line in block.replace("\\\n", " ").splitlines():
        without_comment = re.sub(r"(^|\s)#.*", "", line)
        yield from (" ".join(part.split()) for part in without_comment.split("&&") if part.strip())
