"""Numbers as people read them. Tables hold fractions; percent appears here only."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

Format = Callable[[Any], str]
"""The format of a column's values."""

MISSING = "\u2013"
"""Stands for a value that is not there."""


def percent(value: float) -> str:
    """A fraction as `92.1 %`."""
    return f"{100 * value:.1f} %" if math.isfinite(value) else MISSING


def points(value: float, *, sign: bool = False) -> str:
    """A difference of accuracies or AUCs in hundredths, without its unit: `-3.1`."""
    text = f"{100 * value:{'+' if sign else ''}.1f}"
    return (text if float(text) else text.lstrip("+-")) if math.isfinite(value) else MISSING


def decimals(value: float, digits: int = 3) -> str:
    """A fixed number of decimals; powers of ten where a value does not fit them."""
    if not math.isfinite(value):
        return MISSING if math.isnan(value) else "∞" if value > 0 else "-∞"
    return f"{value:.{digits}f}" if abs(value) < 1e6 else f"{value:.2e}"


def significant(value: float, digits: int = 4, *, sign: bool = False) -> str:
    """So many significant digits, without an exponent where that is readable."""
    if not math.isfinite(value):
        return decimals(value)
    plus = "+" if sign else ""
    if value == 0 or 1e-3 <= abs(value) < 10**digits:
        return f"{value:{plus}.{digits}g}"
    return f"{value:{plus},.0f}" if 1 <= abs(value) < 1e7 else f"{value:{plus}.{digits - 1}e}"


def rough(value: float) -> str:
    """Two significant digits."""
    return significant(value, 2)


def plain(value: float) -> str:
    """A whole number with separators, another one with four significant digits."""
    number = float(value)
    return f"{number:,.0f}" if number.is_integer() and abs(number) < 1e12 else significant(number)


def score(metric: str) -> Format:
    """The format of a test metric: accuracy in percent, AUC with three decimals."""
    return percent if metric == "accuracy" else decimals


def duration(seconds: float) -> str:
    """`1 h 2 min 3 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    parts = [f"{value} {unit}" for value, unit in ((hours, "h"), (minutes, "min"), (rest, "s")) if value]
    return " ".join(parts) or "0 s"


def metric_name(metric: str) -> str:
    """A metric as it is written in text."""
    if metric.startswith("naive_"):
        return f"{metric_name(metric.removeprefix('naive_'))} with statistics as stored"
    return metric.upper() if metric == "auc" else metric


def cell(value: Any, show: Format = plain) -> str:
    """A value of a table: text as it is, yes or no, a dash where it is missing, and numbers as `show` writes them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool) or type(value).__name__ == "bool_":
        return "yes" if value else "no"
    if isinstance(value, str):
        return metric_name(value) if show is metric_name else value
    return show(float(value))
