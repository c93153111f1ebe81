"""The 'did you mean' part of an error."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def near_matches(word: str, known: Iterable[str], limit: int = 5) -> str:
    """`: near matches are a, b`, the known words most like `word`; `: known are ...` if there are few; else empty."""
    words = [known_word for known_word in known if known_word]
    lowered = {known_word.lower(): known_word for known_word in words}
    near = difflib.get_close_matches(word.lower(), lowered, n=limit, cutoff=0.6)
    if near:
        return ": near matches are " + ", ".join(lowered[match] for match in near)
    if words and len(words) <= 12:
        return ": known are " + ", ".join(words)
    return ""
