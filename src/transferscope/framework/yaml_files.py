"""Mistakes in YAML files as one line with file and line, before anything else reads the file."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from transferscope.system.errors import UserError, one_line

MAX_VALUES = 200_000
"""Values in a file, each alias counted as often as it is used."""

MAX_BYTES = 10_000_000

MERGE = "tag:yaml.org,2002:merge"
NULL = "tag:yaml.org,2002:null"
BOOL = "tag:yaml.org,2002:bool"
INT = "tag:yaml.org,2002:int"
FLOAT = "tag:yaml.org,2002:float"


def read_mapping(path: str | Path) -> dict[Any, Any]:
    """The keys and values of a YAML file; an empty file has none.

    Raises UserError that names file and line: for a file that cannot be read or is not UTF-8, for text that is no YAML,
    a key that is there twice, several documents, a list or a single value in place of keys, unknown anchors and tags,
    aliases that expand to more than `MAX_VALUES` values, and numbers and keys that YAML 1.1 reads as something else
    (`number_fault`; `no` as a key).
    """
    path = Path(path)
    text = _decoded(path)
    try:
        root = yaml.compose(text, yaml.SafeLoader)
        if root is None or _is_null(root):
            return {}
        if not isinstance(root, MappingNode):
            kind = "a list" if isinstance(root, SequenceNode) else "a single value"
            raise _fault(path, root, f"the file holds {kind}: write `key: value` lines")
        _check(path, root, {}, set())
        content: Any = yaml.load(text, yaml.SafeLoader)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        raise UserError(f"{path}, line {line}: a character that YAML does not allow ({_character(error)})") from None
    except yaml.MarkedYAMLError as error:
        conflict = next((number for number, line in enumerate(text.splitlines(), 1) if line[:8] == "<<<<<<< "), None)
        if conflict is not None:
            raise UserError(
                f"{path}, line {conflict}: a conflict that git left; keep one of its two versions"
            ) from None
        raise UserError(f"{_place(path, error)}: {_problem(error)}") from None
    except RecursionError:
        raise UserError(f"{path}: values are nested too deeply") from None
    except UserError:
        raise
    except (ValueError, OverflowError) as error:  # a date or a number that does not exist
        raise UserError(f"{path}: {one_line(str(error))}; put text in quotation marks") from None
    return dict(content)


def _decoded(path: Path) -> str:
    try:
        if not path.is_file():
            raise UserError(f"{path}: {_not_a_file(path)}")
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path}: larger than {MAX_BYTES:,} bytes, too large for a file of parameters")
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or (len(content) > 1 and 0 in content[:2]):
        raise UserError(f"{path}, line 1: the file is UTF-16 or UTF-32; save it as UTF-8")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}, line {line}: the file is not UTF-8 (Latin-1?); save it as UTF-8") from None


def _not_a_file(path: Path) -> str:
    if path.is_dir():
        return "is a folder, where a file belongs"
    if path.is_symlink() and not path.exists():
        return f"is a link to {path.readlink()}, where no file is"
    return "is no file" if path.exists() else "the file does not exist"


def _check(path: Path, node: Node, sizes: dict[int, int], above: set[int]) -> int:
    """Number of values that `node` expands to; its keys are single values, each there once."""
    if id(node) in sizes:
        return sizes[id(node)]
    if id(node) in above:
        raise _fault(path, node, "an alias refers to what it stands in")
    above.add(id(node))
    size = 1
    if isinstance(node, MappingNode):
        size += _check_keys(path, node, sizes, above)
    elif isinstance(node, ScalarNode) and (fault := _scalar_fault(node)):
        raise _fault(path, node, fault)
    elif isinstance(node, SequenceNode):
        size += sum(_check(path, item, sizes, above) for item in node.value)
    above.remove(id(node))
    if size > MAX_VALUES:
        raise _fault(path, node, f"aliases expand to more than {MAX_VALUES:,} values")
    sizes[id(node)] = size
    return size


def _check_keys(path: Path, node: MappingNode, sizes: dict[int, int], above: set[int]) -> int:
    size, lines = 0, dict[tuple[str, str], int]()
    for key, value in node.value:
        if not isinstance(key, ScalarNode):
            raise _fault(path, key, "a list or mapping is no key; put braces of text in quotation marks")
        if key.tag == NULL:
            raise _fault(path, key, "a key is missing before the colon")
        if key.tag == BOOL:
            read = "true" if key.value.lower() in ("yes", "on", "true") else "false"
            raise _fault(path, key, f"YAML reads the key {key.value} as {read}: put it in quotation marks")
        if key.style is None and key.value.isdecimal() and _is_null(value) and not value.value:
            hint = "a number has a point before its decimals, not a comma, as in 0.05"
            raise _fault(path, key, f"{key.value} stands as a key without a value: {hint}")
        if fault := _scalar_fault(key):
            raise _fault(path, key, fault)
        name, line = (key.tag, key.value), key.start_mark.line + 1
        if name in lines and key.tag != MERGE:
            raise _fault(path, key, f"the key '{key.value}' is there twice, first in line {lines[name]}")
        lines[name] = line
        size += _check(path, value, sizes, above)
    return size


def number_fault(text: str) -> str | None:
    """Message for a plain number that YAML 1.1 reads as another: to the base of 8 (010), or of 60 (1:30)."""
    if re.fullmatch(r"[-+]?0[0-7_]*[0-7]", text):
        return f"YAML reads {text} to the base of 8: leave out the leading zero, or put text in quotation marks"
    if re.fullmatch(r"[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?", text):
        return f"YAML reads {text} to the base of 60: write a number without colons, or put text in quotation marks"
    return None


def check_numbers(params: str | Mapping[str, Any] | None) -> None:
    """Raise a UserError where a value of `--params`, as `key=010`, is a number that YAML 1.1 reads as another."""
    for value in re.split(r"[=,\[\]{}\s]+", params) if isinstance(params, str) else ():
        fault = number_fault(value)
        if fault is not None:
            raise UserError(fault)


def _scalar_fault(node: ScalarNode) -> str | None:
    return number_fault(node.value) if node.style is None and node.tag in (INT, FLOAT) else None


def _is_null(node: Node) -> bool:
    return isinstance(node, ScalarNode) and node.tag == NULL


def _fault(path: Path, node: Node, message: str) -> UserError:
    return UserError(one_line(f"{path}, line {node.start_mark.line + 1}: {message}"))


def _place(path: Path, error: yaml.MarkedYAMLError) -> str:
    mark = error.problem_mark or error.context_mark
    return str(path) if mark is None else f"{path}, line {mark.line + 1}, column {mark.column + 1}"


def _problem(error: yaml.MarkedYAMLError) -> str:
    """PyYAML's words, and what is behind the usual ones."""
    problem, context = error.problem or "", error.context or ""
    if "'\\t'" in problem:
        return "a tab; indent with spaces"
    if "while scanning a quoted scalar" in context:
        line = f" (it begins in line {error.context_mark.line + 1})" if error.context_mark else ""
        return f"a quotation mark is not closed{line}"
    if "but found another document" in problem:
        return "a second document begins; leave one `---` at most"
    if "could not determine a constructor" in problem:
        return f"unknown tag {problem.rpartition(' ')[2]}"
    return one_line(f"{problem} {context}")


def _character(error: yaml.reader.ReaderError) -> str:
    character = error.character
    return "NUL" if character in (0, "\0") else f"#x{character if isinstance(character, int) else ord(character):04x}"
