"""Mistakes in YAML files: one line with file and line, at once."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from transferscope.cli import compare, cost, run
from transferscope.framework.yaml_files import MAX_BYTES, check_numbers, read_mapping
from transferscope.system.errors import UserError

EXPLODING = "a: &a [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n" + "".join(
    f"{below}: &{below} [{', '.join([f'*{above}'] * 10)}]\n"
    for above, below in zip("abcdefgh", "bcdefghi", strict=True)
)
BAD = {
    "duplicate key": (b"a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: the key 'c' is there twice, first in line 3"),
    "duplicate in braces": (b"a: {x: 1, x: 2}\n", "line 1: the key 'x' is there twice"),
    "Latin-1": ("a: 1\nb: Größe\n".encode("latin-1"), "line 2: the file is not UTF-8"),
    "UTF-16": ("a: 1\n".encode("utf-16"), "line 1: the file is UTF-16"),
    "UTF-16 without mark": ("a: 1\n".encode("utf-16-le"), "line 1: the file is UTF-16"),
    "NUL": (b"a: 1\nb: x\0y\n", "line 2: a character that YAML does not allow (NUL)"),
    "escape": (b"a: \x1b[31m\n", "line 1: a character that YAML does not allow (#x001b)"),
    "anchor": (b"a: 1\nb: *none\n", "line 2, column 4: found undefined alias 'none'"),
    "tag": (b"a: !thing 1\n", "line 1, column 4: unknown tag '!thing'"),
    "object": (b"a: !!python/object/apply:os.system [ls]\n", "line 1, column 4: unknown tag"),
    "two documents": (b"a: 1\n---\nb: 2\n", "line 2, column 1: a second document begins"),
    "list": (b"# x\n- a\n- b\n", "line 2: the file holds a list"),
    "text": (b"hello\n", "line 1: the file holds a single value"),
    "aliases": (EXPLODING.encode(), "aliases expand to more than 200,000 values"),
    "alias to itself": (b"a: &x {b: *x}\n", "line 1: an alias refers to what it stands in"),
    "tab": (b"a:\n\tb: 1\n", "line 2, column 1: a tab; indent with spaces"),
    "quotation mark": (b"a: 'x\nb: 2\n", "a quotation mark is not closed (it begins in line 1)"),
    "bracket": (b"a: [1, 2\nb: 3\n", "line 2, column 2: expected ',' or ']'"),
    "indentation": (b"a: 1\n  b: 2\n", "line 2, column 4: mapping values are not allowed here"),
    "date": (b"a: 2026-13-45\n", "month must be in 1..12"),
    "digits": (b"a: " + b"9" * 5000, "Exceeds the limit"),
    "deep": (b"a: " + b"[" * 20000, "nested too deeply"),
    "base of 8": (b"a:\n  epochs: 010\n", "line 2: YAML reads 010 to the base of 8: leave out the leading zero"),
    "negative base of 8": (b"a: [1, -007]\n", "line 1: YAML reads -007 to the base of 8"),
    "base of 60": (b"seed: 1:30\n", "line 1: YAML reads 1:30 to the base of 60: write a number without colons"),
    "decimals to base of 60": (b"a: 1:30.5\n", "line 1: YAML reads 1:30.5 to the base of 60"),
    "decimal comma": (
        b"a:\n  training: {lr: 0,05}\n",
        "line 2: 05 stands as a key without a value: a number has a point before its decimals, not a comma",
    ),
    "key that is read as false": (
        b"a: 1\nno: 2\n",
        "line 2: YAML reads the key no as false: put it in quotation marks",
    ),
    "no key": (b"a:\n  ? \n  : 1\n", "line 2: a key is missing before the colon"),
    "list as key": (b"? [a]\n: 1\n", "line 1: a list or mapping is no key"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_mistake_is_one_line_with_its_place(tmp_path: Path, name: str) -> None:
    """The message names the file, where it is known the line, and takes no time."""
    content, message = BAD[name]
    path = tmp_path / "parameters.yml"
    path.write_bytes(content)
    started = time.perf_counter()
    with pytest.raises(UserError) as caught:
        read_mapping(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert str(caught.value).isprintable()
    assert time.perf_counter() - started < 5


def test_files_that_are_none(tmp_path: Path) -> None:
    """Folders, what is not there, and files that nobody wrote by hand."""
    with pytest.raises(UserError, match="is a folder, where a file belongs"):
        read_mapping(tmp_path)
    with pytest.raises(UserError, match="does not exist"):
        read_mapping(tmp_path / "none.yml")
    large = tmp_path / "large.yml"
    with large.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    with pytest.raises(UserError, match="too large"):
        read_mapping(large)


@pytest.mark.parametrize("content", [b"", b"# nothing\n", b"---\n", b"null\n"])
def test_an_empty_file_has_no_keys(tmp_path: Path, content: bytes) -> None:
    """Nor has one of comments."""
    path = tmp_path / "parameters.yml"
    path.write_bytes(content)
    assert read_mapping(path) == {}


def test_ordinary_files_are_read(tmp_path: Path) -> None:
    """A byte order mark, merged and aliased mappings, and text of any script."""
    path = tmp_path / "parameters.yml"
    path.write_text("\ufeffa: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a\nd: Größe 模型 🦙\n", encoding="utf-8")
    assert read_mapping(path) == {"a": {"x": 1}, "b": {"x": 1, "y": 2}, "c": {"x": 1}, "d": "Größe 模型 🦙"}


TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), min_size=1, max_size=12)
"""Without line breaks, of which PyYAML writes some as others."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@settings(deadline=None)
@given(st.dictionaries(TEXT, VALUES, max_size=4))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]) -> None:
    """Any mapping that PyYAML writes comes back."""
    path = tmp_path_factory.mktemp("yaml") / "x.yml"
    path.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    assert read_mapping(path) == values


@settings(deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """No other error comes out, whatever a file holds."""
    path = tmp_path_factory.mktemp("yaml") / "x.yml"
    path.write_bytes(content)
    try:
        outcome: object = read_mapping(path)
    except UserError as error:
        outcome = str(error)
    assert isinstance(outcome, dict) or (isinstance(outcome, str) and "\n" not in outcome)


def test_numbers_that_mean_what_they_show_are_read(tmp_path: Path) -> None:
    """Zero, decimals, other bases that show it, and text in quotation marks or with further signs."""
    path = tmp_path / "parameters.yml"
    path.write_text('{a: 0, b: 0.05, c: 0x1F, d: "010", e: "1:30", f: 127.0.0.1:80, g: 1_000, 7: x, "no": 1, h: 1:x}')
    assert read_mapping(path) == {
        "a": 0, "b": 0.05, "c": 31, "d": "010", "e": "1:30", "f": "127.0.0.1:80", "g": 1000, 7: "x", "no": 1, "h": "1:x",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["training.epochs=010", "a=x,seed=1:30", "a=[1,007]"])
def test_numbers_of_the_command_line_are_read_as_those_of_files(text: str) -> None:
    """The same numbers are refused; what only looks alike is not."""
    with pytest.raises(UserError, match="YAML reads"):
        check_numbers(text)
    check_numbers("a=10,b=0.05,root=data/010,c=first:29500,d='010',e=10e-3")


@pytest.mark.parametrize("command", [run, cost, compare], ids=["run", "cost", "compare"])
def test_every_command_with_params_refuses_them(command: click.Command) -> None:
    """One line, which says how the number is read."""
    option = next(option for option in command.params if option.name == "params")
    assert option.callback is not None
    with pytest.raises(click.ClickException, match="YAML reads 010 to the base of 8"):
        option.callback(click.Context(command), option, "training.epochs=010")
