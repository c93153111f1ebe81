"""The CSV of CheXpert's layout, a row for each image with its path, its findings and other columns.

The root is the folder (or archive) that holds `CheXpert-v1.0-small` or `CheXpert-v1.0`, or that folder itself; the
paths in the CSV may begin with either name or leave it out. A root that holds nothing but one folder is passed through.
The CSV may be separated by commas, semicolons or tabs; blank lines and blank values behind the last column are ignored.
"""

from __future__ import annotations

import csv
import io
import re
from array import array
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from transferscope.images.example_columns import column_name
from transferscope.images.file_tree import FileTree, plain, unsafe_reason
from transferscope.images.source import printable_names, warn_once
from transferscope.system.errors import UserError

FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five findings, in the study's order (classes 1 to 5)."""

UNCERTAIN, BLANK = 2, 3
"""Codes of a finding that is mentioned as uncertain, and of one that is not mentioned."""

_ROOT_NAME = re.compile(r"^CheXpert-v1\.0(-small)?/")


@dataclass(frozen=True)
class Table:
    """The rows of the CSV that are read."""

    where: str
    """The file, for messages."""
    ids: list[str]
    """Paths as the CSV has them."""
    paths: list[str]
    """Files relative to the root, each in its one spelling."""
    codes: np.ndarray
    """int8 (n, 5): 0, 1, UNCERTAIN or BLANK."""
    lines: list[int]
    rows: np.ndarray
    columns: pd.DataFrame
    """All other columns of the CSV, under the names that `other_columns` gives them."""

    def line(self, example: int) -> str:
        """The place of a row in messages."""
        return f"{self.where}, line {self.lines[example]}"


def _find_csv(tree: FileTree) -> str:
    base = ""
    while True:
        for folder in ("", "CheXpert-v1.0-small/", "CheXpert-v1.0/"):
            if tree.is_file(f"{base}{folder}train.csv"):
                if base:
                    warn_once(f"{tree.where(base + folder)}: train.csv is taken from here")
                return f"{base}{folder}train.csv"
        folders = tree.entries(base.rstrip("/"))[0]
        if len(folders) != 1:
            where = tree.where("")
            raise UserError(f"{where}: no train.csv, neither there nor in CheXpert-v1.0-small/ or CheXpert-v1.0/")
        base += f"{folders[0]}/"


def read_table(tree: FileTree, views: str) -> Table:
    """Read the rows of `views`: all, frontal or lateral. Raises UserError that names file, line, column and remedy."""
    path = _find_csv(tree)
    where = tree.where(path)
    text = tree.read_text(path)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    try:
        header = _header(reader)
        columns = _columns(where, header, views)
        others = {name: _Texts(position) for name, position in other_columns(header).items()}
        ids, codes, lines, rows = _read_rows(where, reader, columns, views, list(others.values()))
    except csv.Error as error:
        raise UserError(f"{where}, line {reader.line_num}: not a CSV line ({error})") from error
    if not ids:
        kind = "" if views == "all" else f" with a {views} image"
        raise UserError(f"{where}: no row{kind}: it needs one for each image")
    folder = path[: -len("train.csv")]
    paths = [folder + inner for inner in _below(tree, folder, where, ids)]
    if len(set(paths)) < len(paths):
        raise _duplicate(where, ids, paths, lines)
    shown = list(printable_names(ids, where))
    texts = pd.DataFrame({name: values.categories() for name, values in others.items()}, index=range(len(ids)))
    return Table(where, shown, paths, np.array(codes, dtype=np.int8), lines, np.array(rows, dtype=np.int64), texts)


_TAIL = re.compile(r"(?:.*/)?(?=(?:train|valid|test)/patient)", re.DOTALL)
"""The start of a path of CheXpert's layout, up to its part."""


def _below(tree: FileTree, folder: str, where: str, ids: list[str]) -> list[str]:
    """Paths relative to the folder of the CSV; those of other machines, or below another name, from their part on."""
    paths = [_ROOT_NAME.sub("", plain(name.replace("\\", "/") if "/" not in name else name)) for name in ids]
    if not paths[0].startswith("/") and tree.is_file(folder + paths[0]):
        return paths
    tails = [_TAIL.sub("", path, count=1) for path in paths]
    if tails[0] == paths[0] or not tree.is_file(folder + tails[0]):
        return paths
    warn_once(f"{where}: paths are read from their part on, {ids[0]!r} as {tails[0]!r}")
    return tails


def _delimiter(text: str) -> str:
    """The character between the names of columns, as the first line has it."""
    header = next((line for line in text.splitlines() if line.strip()), "")
    return max(",;\t", key=header.count)


def _header(reader: Any) -> list[str]:
    """Names of the columns, in the first line that is not blank."""
    for row in reader:
        names = [name.strip() for name in row]
        if any(names):
            return names
    return []


def _columns(where: str, header: list[str], views: str) -> tuple[int, list[int], int, int]:
    """Positions of the path, of the findings and of the view, and the number of columns."""
    needed = ["Path", *FINDINGS, *([] if views == "all" else ["Frontal/Lateral"])]
    missing = [name for name in needed if name not in header]
    if missing:
        raise UserError(f"{where}: no column {', '.join(map(repr, missing))}: it needs {', '.join(needed)}")
    twice = next((name for name, count in Counter(filter(None, header)).items() if count > 1), None)
    if twice is not None:
        raise UserError(f"{where}: two columns are named {twice!r}: remove one of them")
    view = header.index("Frontal/Lateral") if views != "all" else -1
    while not header[-1]:  # behind a trailing comma
        header = header[:-1]
    return header.index("Path"), [header.index(finding) for finding in FINDINGS], view, len(header)


NAMES = {"Frontal/Lateral": "view", "AP/PA": "projection"}
"""Names of columns in the parameters; others are in lower case with underscores, e.g. sex, age, no_finding."""


class _Texts:
    """The values of a column, each text kept once."""

    def __init__(self, position: int) -> None:
        self.position = position
        self._known: dict[str, int] = {}
        self._codes = array("i")

    def add(self, row: list[str]) -> None:
        text = row[self.position].strip()
        self._codes.append(self._known.setdefault(text, len(self._known)))

    def categories(self) -> pd.Categorical:
        values = pd.Index(list(self._known), dtype=object)
        return pd.Categorical.from_codes(np.array(self._codes, dtype=np.int32), values).reorder_categories(
            sorted(values)
        )


def other_columns(header: Sequence[str]) -> dict[str, int]:
    """Positions of the columns besides the path and the findings, by name; of two with one name the first."""
    positions: dict[str, int] = {}
    for position, heading in enumerate(header):
        if heading and heading not in ("Path", *FINDINGS):
            positions.setdefault(NAMES.get(heading) or column_name(heading) or heading, position)
    return positions


def _read_rows(
    where: str, reader: Any, columns: tuple[int, list[int], int, int], views: str, others: Sequence[_Texts]
) -> tuple[list[str], list[list[int]], list[int], list[int]]:
    path_column, finding_columns, view_column, width = columns
    known_codes = {"": BLANK, "1.0": 1, "0.0": 0, "-1.0": UNCERTAIN}
    ids, codes, lines, rows = [], [], [], []
    position = -1
    for row in reader:
        path = row[path_column].strip() if len(row) > path_column else ""
        if not path and not "".join(row).strip():
            continue
        position += 1
        if len(row) != width and (len(row) < width or "".join(row[width:]).strip()):
            raise UserError(f"{where}, line {reader.line_num}: {len(row)} values where the header has {width}")
        if view_column >= 0 and _view(where, reader.line_num, row[view_column]) != views:
            continue
        texts = [row[column] for column in finding_columns]
        try:
            code = [known_codes[text] for text in texts]
        except KeyError:
            code = [_code(f"{where}, line {reader.line_num}", *pair) for pair in zip(FINDINGS, texts, strict=True)]
        _check_path(where, reader.line_num, path)
        ids.append(path)
        codes.append(code)
        lines.append(reader.line_num)
        rows.append(position)
        for other in others:
            other.add(row)
    return ids, codes, lines, rows


def _view(where: str, line: int, text: str) -> str:
    view = text.strip().lower()
    if view not in ("frontal", "lateral", ""):
        raise UserError(f"{where}, line {line}: Frontal/Lateral is {text!r}: it may be Frontal, Lateral or blank")
    return view


def _code(where: str, finding: str, text: str) -> int:
    text = text.strip()
    if not text:
        return BLANK
    try:
        return {1.0: 1, 0.0: 0, -1.0: UNCERTAIN}[float(text.replace(",", "."))]
    except (ValueError, KeyError):
        raise UserError(f"{where}: {finding} is {text!r}: it may be 1, 0, -1 or blank") from None


def _check_path(where: str, line: int, path: str) -> None:
    if not path:
        raise UserError(f"{where}, line {line}: Path is blank: every row needs the path of its image")
    reason = unsafe_reason(path) if _TAIL.match(path) is None else unsafe_reason(path.lstrip("/"))
    if reason:
        raise UserError(f"{where}, line {line}: {path!r} {reason}: refused")


def _duplicate(where: str, ids: list[str], paths: list[str], lines: list[int]) -> UserError:
    first: dict[str, int] = {}
    row = next(row for row, path in enumerate(paths) if first.setdefault(path, row) != row)
    earlier = lines[first[paths[row]]]
    return UserError(f"{where}, line {lines[row]}: {ids[row]!r} is already in line {earlier}: remove one of them")
