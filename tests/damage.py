"""Damage to files, as a bad disk or a careless hand does it."""

from __future__ import annotations

from pathlib import Path


def flip(path: Path, position: int, bit: int = 0) -> None:
    """Flip one bit of the byte at `position`, counted from the end where it is negative."""
    content = bytearray(path.read_bytes())
    content[position] ^= 1 << bit
    path.write_bytes(content)
