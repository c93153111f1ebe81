"""Docstrings as they are written here: plain text with code in backticks, not reStructuredText.

Signs that mean something in reStructuredText (`|x|`, `a*b`, `x_`) are escaped outside of backticks. Options have no
signature, which would be as long as a page: each key says its default instead.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from pydantic import BaseModel

BEFORE_NAPOLEON = 400

CODE = re.compile(r"(``.+?``|`[^`]+`)", re.DOTALL)
SPECIAL = re.compile(r"[\\*|]|_(?!\w)")


def escape(text: str) -> str:
    """The text with what is special outside of backticks escaped."""
    parts = CODE.split(text)
    parts[::2] = [SPECIAL.sub(r"\\\g<0>", part) for part in parts[::2]]
    return "".join(parts)


def _escape_docstring(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = escape("\n".join(lines)).split("\n")
    if what in ("attribute", "data", "property"):
        # An escaped line break shows nothing; without it Napoleon takes what stands before a colon for a type.
        lines.insert(0, "\\")
        lines += _default(name)


def _default(name: str) -> list[str]:
    """What is said of the default of a key, if `module.Class.key` is a key of options."""
    owner, _, key = name.rpartition(".")
    module, _, class_name = owner.rpartition(".")
    options = getattr(sys.modules.get(module), class_name, None)
    if not isinstance(options, type) or not issubclass(options, BaseModel) or key not in options.model_fields:
        return []
    field = options.model_fields[key]
    if field.is_required():
        return ["", "Required."]
    default = field.get_default(call_default_factory=True)
    shown = f"{type(default).__name__}()" if isinstance(default, BaseModel) else repr(default)
    return ["", f"Default: ``{shown}``."]


def _drop_signature_of_options(
    app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str, None] | None:
    return ("", None) if isinstance(obj, type) and issubclass(obj, BaseModel) else None


def setup(app: Any) -> dict[str, bool]:
    """Listen to autodoc."""
    app.connect("autodoc-process-docstring", _escape_docstring, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-signature", _drop_signature_of_options)
    return {"parallel_read_safe": True}
