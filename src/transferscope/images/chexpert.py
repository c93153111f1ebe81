"""Reading CheXpert's layout: a `train.csv` of findings beside the images.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from transferscope.experiment.options import Images
from transferscope.images.example_columns import column_name
from transferscope.images.files import FileTree, open_tree, plain, unsafe_reason
from transferscope.images.sampling import CHEXPERT_SEED, draw_by_example, draw_by_group, patient_of
from transferscope.images.source import (
    GENERATED_MARK,
    ExampleList,
    ImageFormat,
    ImageSource,
    printable_names,
    report_notes,
    warn_once,
)
from transferscope.system.errors import UserError

FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
"""The five findings, in the study's order (classes 1 to 5)."""

PAPER_SAMPLE = 50_000
"""Images of each part in the study."""

Policy = Literal["ones", "zeros", "ignore"]
"""The value of a label that is not known; ignored labels count neither in the loss nor in metrics."""
PAPER_UNCERTAIN: dict[str, Policy] = {
    "Cardiomegaly": "zeros",
    "Edema": "ones",
    "Consolidation": "zeros",
    "Atelectasis": "ones",
    "Pleural Effusion": "zeros",
}
"""Value of an uncertain mention (-1) in the authors' code."""

_VALUE_OF: dict[str, int] = {"ones": 1, "zeros": 0, "ignore": -1}
_UNCERTAIN, _BLANK = 2, 3
_ROOT_NAME = re.compile(r"^CheXpert-v1\.0(-small)?/")


class CheXpert(ImageFormat):
    """CheXpert, five findings of chest x-rays, or images with a CSV of the same columns."""

    multi_label: ClassVar[bool] = True
    by_patient: ClassVar[bool] = True

    num_train: Images | None = None
    num_test: Images | None = None
    """Sizes of the samples; None: 50,000 each."""
    num_validation: Images | None = None
    """Images beside these for choosing `best`; needs select_best_on: validation."""
    sampling: Literal["paper", "by_patient"] = "paper"
    """Images drawn one by one, as in the study, or whole patients, so that none is in two parts."""
    uncertain: Policy | dict[str, Policy] = Field(default_factory=dict)
    """The value of -1, for all findings or by finding; default: that of the authors' code."""
    blank: Policy | dict[str, Policy] = "zeros"
    """The value of a finding that is not mentioned."""
    views: Literal["all", "frontal", "lateral"] = "all"
    double_positives: tuple[str, ...] = ()
    """Findings whose positive train rows come twice; the authors' code: Cardiomegaly, Consolidation."""

    def read(self, root: Path, task: str) -> ImageSource:
        """`read_chexpert` with these options."""
        return read_chexpert(root, **{key: value for key, value in self.model_dump().items() if value is not None})

    def validation_fault(self, *, wanted: bool) -> str | None:
        """A validation part is drawn only for choosing `best`."""
        together = "validation and num_validation go together"
        return together if wanted != (self.num_validation is not None) else None

    def sample_sizes(self) -> tuple[int, int]:
        """Images drawn for train and test."""
        return self.num_train or PAPER_SAMPLE, self.num_test or PAPER_SAMPLE


def read_chexpert(
    root: str | Path,
    *,
    num_train: int = PAPER_SAMPLE,
    num_test: int = PAPER_SAMPLE,
    num_validation: int = 0,
    sampling: Literal["paper", "by_patient"] = "paper",
    uncertain: Mapping[str, Policy] | Policy | None = None,
    blank: Mapping[str, Policy] | Policy = "zeros",
    views: Literal["all", "frontal", "lateral"] = "all",
    double_positives: Sequence[str] = (),
    seed: int = CHEXPERT_SEED,
    name: str = "chexpert",
) -> ImageSource:
    """Read `train.csv` and draw train, test and, if asked for, validation from its rows.

    Args:
        root: Folder or archive.
        num_train, num_test, num_validation: Images in each part.
        sampling: "paper" permutes images, so that patients are in several parts; "by_patient" draws whole patients.
        uncertain: What -1 becomes, for all findings or by finding; None, and findings left out: the authors' choice.
        blank: What an unmentioned finding becomes; findings left out of a mapping become zeros.
        views: Which rows count, by the column Frontal/Lateral.
        double_positives: Findings whose positive train rows appear twice; the authors' code, not the paper, has
            ("Cardiomegaly", "Consolidation").
        seed: Of the permutation.

    Raises:
        UserError: Naming file, line, column and remedy.
    """
    policies = _policies("uncertain", uncertain, PAPER_UNCERTAIN), _policies("blank", blank, {})
    _check_choice("sampling", sampling, ("paper", "by_patient"))
    _check_choice("views", views, ("all", "frontal", "lateral"))
    _check_findings("double_positives", double_positives)
    tree = open_tree(root)
    report_notes(tree.notes)
    table = _read_table(tree, views)
    sizes = (num_train, num_test, num_validation)
    pieces = _draw(table, sizes, sampling, seed)
    labels = _apply_policies(table.codes, *policies)
    parts = [_example_list(tree, table, labels, piece) for piece in pieces]
    return ImageSource(
        name=name,
        root=tree.root,
        class_names=FINDINGS,
        multi_label=True,
        generated=tree.is_file(GENERATED_MARK),
        train=_double(parts[0], double_positives),
        test=parts[1],
        validation=parts[2] if num_validation else None,
        sampling=f"{sampling}: RandomState({seed}).permutation of {'images' if sampling == 'paper' else 'patients'}",
    )


@dataclass(frozen=True)
class _Table:
    where: str
    ids: list[str]
    """Paths as the CSV has them."""
    paths: list[str]
    """Files relative to the root, each in its one spelling."""
    codes: np.ndarray
    """int8 (n, 5): 0, 1, _UNCERTAIN or _BLANK."""
    lines: list[int]
    rows: np.ndarray
    columns: pd.DataFrame
    """All other columns of the CSV, under the names that `other_columns` gives them."""

    def line(self, example: int) -> str:
        return f"{self.where}, line {self.lines[example]}"


def _policies(key: str, given: Mapping[str, Policy] | Policy | None, default: Mapping[str, Policy]) -> list[int]:
    chosen: Mapping[str, str] = dict.fromkeys(FINDINGS, given) if isinstance(given, str) else dict(given or {})
    _check_findings(key, chosen)
    for finding, policy in chosen.items():
        if policy not in _VALUE_OF:
            raise UserError(f"{key} for {finding} is {policy!r}: it may be ones, zeros or ignore")
    return [_VALUE_OF[chosen.get(finding, default.get(finding, "zeros"))] for finding in FINDINGS]


def _check_findings(key: str, names: Sequence[str] | Mapping[str, str]) -> None:
    for finding in names:
        if finding not in FINDINGS:
            raise UserError(f"{key} names {finding!r}: the findings are {', '.join(FINDINGS)}")


def _check_choice(key: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UserError(f"{key} is {value!r}: it may be {', '.join(allowed)}")


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


def _read_table(tree: FileTree, views: str) -> _Table:
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
    return _Table(where, shown, paths, np.array(codes, dtype=np.int8), lines, np.array(rows, dtype=np.int64), texts)


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
    found: dict[str, int] = {}
    for position, heading in enumerate(header):
        if heading and heading not in ("Path", *FINDINGS):
            found.setdefault(NAMES.get(heading) or column_name(heading) or heading, position)
    return found


def _read_rows(
    where: str, reader: Any, columns: tuple[int, list[int], int, int], views: str, others: Sequence[_Texts]
) -> tuple[list[str], list[list[int]], list[int], list[int]]:
    path_column, finding_columns, view_column, width = columns
    known_codes = {"": _BLANK, "1.0": 1, "0.0": 0, "-1.0": _UNCERTAIN}
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
        return _BLANK
    try:
        return {1.0: 1, 0.0: 0, -1.0: _UNCERTAIN}[float(text.replace(",", "."))]
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


def _draw(table: _Table, sizes: tuple[int, int, int], sampling: str, seed: int) -> list[np.ndarray]:
    num_rows, total = len(table.ids), sum(sizes)
    if min(sizes) < 0 or min(sizes[:2]) < 1:
        raise UserError(f"num_train {sizes[0]}, num_test {sizes[1]}, num_validation {sizes[2]}: give positive numbers")
    if total > num_rows:
        raise _too_many(table, sizes, num_rows, "images")
    if sampling == "paper":
        return draw_by_example(num_rows, sizes, seed)
    pieces = draw_by_group(_patients(table), sizes, seed)
    if pieces is None:
        fitting = _largest_fit(table, sizes, seed)
        raise _too_many(table, sizes, fitting, "images in whole patients")
    return pieces


def _patients(table: _Table) -> np.ndarray:
    patients = [patient_of(path) for path in table.ids]
    if None in patients:
        example = patients.index(None)
        raise UserError(
            f"{table.line(example)}: no patient in {table.ids[example]!r}: sampling by_patient needs paths "
            f"such as train/patient00001/study1/view1_frontal.jpg"
        )
    return np.array(patients)


def _shrink(sizes: tuple[int, int, int], total: int) -> tuple[int, int, int]:
    """The same proportions with at most `total` in all."""
    train, test, validation = (size * total // sum(sizes) for size in sizes)
    return train, test, validation


def _largest_fit(table: _Table, sizes: tuple[int, int, int], seed: int) -> int:
    """About the largest total, in the same proportions, for which the patients suffice."""
    low, high = 0, len(table.ids)
    while high - low > 1:
        middle = (low + high) // 2
        fits = draw_by_group(_patients(table), _shrink(sizes, middle), seed) is not None
        low, high = (middle, high) if fits else (low, middle)
    return low


def _too_many(table: _Table, sizes: tuple[int, int, int], available: int, what: str) -> UserError:
    train, test, validation = _shrink(sizes, available)
    names = "num_train + num_test" + (" + num_validation" if sizes[2] else "")
    fitting = f"num_train={train}, num_test={test}" + (f", num_validation={validation}" if sizes[2] else "")
    advice = f"for example {fitting} would fit" if min(train, test) else "add images"
    return UserError(f"{table.where}: {available} {what}, but {names} = {sum(sizes)}: {advice}")


def _apply_policies(codes: np.ndarray, uncertain: list[int], blank: list[int]) -> np.ndarray:
    labels = np.where(codes == _UNCERTAIN, np.array(uncertain), codes)
    return np.where(codes == _BLANK, np.array(blank), labels).astype(np.int8)


def _example_list(tree: FileTree, table: _Table, labels: np.ndarray, chosen: np.ndarray) -> ExampleList:
    ids = tuple(table.ids[i] for i in chosen)
    paths = tuple(table.paths[i] for i in chosen)
    first, missing = tree.first_missing(paths)
    if missing:
        more = f" (and {missing - 1} more of the {len(paths)} files used)" if missing > 1 else ""
        raise UserError(
            f"{table.line(int(chosen[first]))}: {tree.where(paths[first])} {tree.no_file(paths[first])}{more}: "
            f"correct the CSV or add the file"
        )
    columns = table.columns.iloc[chosen].reset_index(drop=True)
    return ExampleList(paths=paths, labels=labels[chosen], example_ids=ids, rows=table.rows[chosen], columns=columns)


def _double(part: ExampleList, findings: Sequence[str]) -> ExampleList:
    """Each row that is positive for one of `findings` twice, the second time with "#2" after its id."""
    if not findings:
        return part
    columns = [FINDINGS.index(finding) for finding in findings]
    again = (part.labels[:, columns] == 1).any(axis=1)
    order = np.repeat(np.arange(len(part)), np.where(again, 2, 1))
    doubled = part.select(order)
    second = np.concatenate([[False], order[1:] == order[:-1]])
    ids = tuple(f"{name}#2" if twice else name for name, twice in zip(doubled.example_ids, second, strict=True))
    return replace(doubled, example_ids=ids)
