"""Messages for values that the options do not take, a line for each key."""

from __future__ import annotations

import itertools
import re
import reprlib
from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from transferscope.experiment import options as opt


def listed(names: Iterable[str]) -> str:
    """The names in alphabetical order, with commas between them."""
    return ", ".join(sorted(names)) or "none"


BRANCH = re.compile(r"(int|str|float|bool|constrained-\w+|.*[\[(].*)$")
"""Names that pydantic gives to the alternatives of a value, below its key."""


def explain(error: ValidationError, model: type[opt.Options], prefix: str = "") -> list[str]:
    """Every fault of a validation error as a line: the key, what is wrong, what is allowed."""
    by_key: dict[str, list[str]] = {}
    given: dict[str, str] = {}
    for fault in error.errors():
        key, message = _explained(fault, model, prefix)
        by_key.setdefault(key, []).append(message)
        given[key] = "" if isinstance(fault["input"], dict) else f" (got {reprlib.repr(fault['input'])})"
        if fault["type"] in ("extra_forbidden", "missing"):
            given[key] = ""
    return [f"{key}: {'; or: '.join(dict.fromkeys(messages))}{given[key]}" for key, messages in by_key.items()]


def _explained(fault: Any, model: type[opt.Options], prefix: str) -> tuple[str, str]:
    keys = [str(part) or "''" for part in itertools.takewhile(_is_key, fault["loc"])]
    if fault["type"] == "invalid_key":
        keys[-1] = str(fault["input"])
    key = ".".join([*([prefix] if prefix else []), *keys]) or "parameters"
    if fault["type"] == "extra_forbidden":
        allowed = _fields_at(model, fault["loc"][:-1])
        return key, f"unknown key; allowed: {listed(allowed)}"
    if fault["type"] == "missing":
        return key, "this key is missing"
    if fault["type"] == "string_pattern_mismatch":
        return key, "a name is lower-case letters, digits and single underscores, and begins with a letter"
    if fault["type"] == "invalid_key" or (fault["type"] == "string_type" and fault["loc"][-1] == "[key]"):
        return key, "a key is text: put it in quotation marks"
    if fault["type"] in SHAPES:
        return key, SHAPES[fault["type"]]
    return key, fault["msg"].removeprefix("Value error, ")


SHAPES = dict.fromkeys(("model_type", "dict_type", "model_attributes_type"), "needs `key: value` lines below it") | {
    "tuple_type": "needs a list, as [a, b]"
}
"""Messages in place of those that pydantic words in terms of Python."""


def _is_key(part: int | str) -> bool:
    return isinstance(part, int) or not BRANCH.match(part)


def _fields_at(model: Any, location: tuple[int | str, ...]) -> Iterable[str]:
    """Field names of the options that a location inside `model` leads to."""
    for part in location:
        annotation = model.model_fields[part].annotation if part in getattr(model, "model_fields", {}) else model
        model = _options_in(annotation) or model
    return model.keys() if isinstance(model, type) and issubclass(model, opt.Options) else model.model_fields


def _options_in(annotation: Any) -> type[opt.Options] | None:
    """The options class inside an annotation such as `dict[str, X]`, `X | None` or `tuple[X, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, opt.Options):
        return annotation
    inner = (_options_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((options for options in inner if options is not None), None)
