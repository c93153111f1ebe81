"""Numbers and lists as the sentences of answers write them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from pathlib import PurePath

from transferscope.tables import formats

ROUNDING = 1e-12
"""Shares below are 0 but for rounding, as the lower ends of intervals of rates."""


def percent(value: float) -> str:
    """`3.2 %`; below a tenth of a percent two significant digits, as `0.020 %`; exactly 0 as `0 %`."""
    if abs(value) < ROUNDING:
        return "0 %"
    if abs(value) < 0.001:
        return f"{100 * value:#.2g} %"
    return formats.percent(value)


def points(value: float) -> str:
    """`3.2 points`, with `-3.2 points` for a fall."""
    return f"{_hundredths(value)} points"


def at_most(value: float) -> str:
    """`at most 3.2 points`."""
    return f"at most {points(value)}"


def signed(value: float) -> str:
    """`+3.2`, in points."""
    return _hundredths(value, sign=True)


def _hundredths(value: float, *, sign: bool = False) -> str:
    """One decimal, or the first digit of a number that would be printed as 0.0, so that it shows its sign."""
    if ROUNDING < abs(value) < 0.0005:
        return f"{float(f'{100 * value:.0e}'):{'+' if sign else ''}}"
    return formats.points(value, sign=sign)


def tiny(value: float) -> str:
    """A relative error as `3e-07`."""
    return "0" if value == 0 else f"{value:.0e}"


def percent_range(low: float, high: float) -> str:
    """` (2.0 % to 5.1 %)`, empty where an end is not known."""
    return "" if math.isnan(low) or math.isnan(high) else f" ({percent(low)} to {percent(high)})"


def point_range(low: float, high: float, *, sign: bool = False) -> str:
    """` (-0.1 to 0.9)`, empty where an end is not known."""
    if math.isnan(low) or math.isnan(high):
        return ""
    return f" ({_hundredths(low, sign=sign)} to {_hundredths(high, sign=sign)})"


def listed(words: Sequence[str]) -> str:
    """`A, B and C`."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} and {words[-1]}"


def either(words: Sequence[str]) -> str:
    """`A, B or C`."""
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def count(number: int, word: str, plural: str = "") -> str:
    """`1 image`, `1,200 images`."""
    return f"{number:,} {word if number == 1 else plural or word + 's'}"


def about(number: float) -> str:
    """A number of images to two digits: `1,200`."""
    digits = max(0, math.floor(math.log10(max(number, 1))) - 1)
    return f"{math.ceil(number / 10**digits) * 10**digits:,}"


def more_images(number: float) -> str:
    """`about 1,200 test images`, `more test images` where their number is not known."""
    return f"about {about(number)} test images" if math.isfinite(number) else "more test images"


def sentence(parts: Iterable[str]) -> str:
    """Parts joined by semicolons, with a capital letter and a full stop."""
    text = "; ".join(part for part in parts if part)
    return f"{text[:1].upper()}{text[1:]}."


def network(architecture: str) -> str:
    """An architecture as it is printed, of a function in a file without the folder: `nets.py:resnet20`."""
    place, sign, function = architecture.rpartition(":")
    return f"{PurePath(place).name}{sign}{function}" if place.endswith(".py") else architecture
