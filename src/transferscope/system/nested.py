"""Nested mappings, such as parameters, of which one is laid over another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def laid_over(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The values of `below` with those of `above` in their place, key by key; mappings in both are joined so, too."""
    joined = dict(below)
    for key, value in above.items():
        inside = below.get(key)
        joined[key] = laid_over(inside, value) if isinstance(inside, Mapping) and isinstance(value, Mapping) else value
    return joined
