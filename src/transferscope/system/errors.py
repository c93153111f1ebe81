"""The one error that means: the user can fix this."""

from __future__ import annotations

from collections.abc import Iterable


class UserError(ValueError):
    """A mistake in the user's files, configuration or call; one line that says what, where and what to do."""


def one_line(text: str) -> str:
    """`text` with white space folded, and characters that a terminal would obey, such as escapes, written out."""
    folded = " ".join(text.split())
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in folded)


def one_message(faults: Iterable[str], above: str = "") -> str:
    """One fault as one line; several below a line that counts them, a line each."""
    lines = list(dict.fromkeys(map(one_line, faults)))
    if len(lines) == 1:
        return f"{above}{lines[0]}"
    return "\n".join([f"{above}{len(lines)} faults", *(f"  - {line}" for line in lines)])
