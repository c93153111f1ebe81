"""Reading CheXpert's layout: parts drawn from the rows of its CSV, and labels by policy where a finding is unknown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from transferscope.experiment.options import Images
from transferscope.images.chexpert_table import BLANK, FINDINGS, UNCERTAIN, Table, read_table
from transferscope.images.file_tree import FileTree
from transferscope.images.files import open_tree
from transferscope.images.sampling import CHEXPERT_SEED, draw_by_example, draw_by_group, patient_of
from transferscope.images.source import GENERATED_MARK, ExampleList, ImageFormat, ImageSource, report_notes
from transferscope.system.errors import UserError

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
        uncertain: Value for -1, for all findings or by finding; None, and findings left out: the authors' choice.
        blank: Value for an unmentioned finding; findings left out of a mapping become zeros.
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
    table = read_table(tree, views)
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


def _draw(table: Table, sizes: tuple[int, int, int], sampling: str, seed: int) -> list[np.ndarray]:
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


def _patients(table: Table) -> np.ndarray:
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


def _largest_fit(table: Table, sizes: tuple[int, int, int], seed: int) -> int:
    """About the largest total, in the same proportions, for which the patients suffice."""
    low, high = 0, len(table.ids)
    while high - low > 1:
        middle = (low + high) // 2
        fits = draw_by_group(_patients(table), _shrink(sizes, middle), seed) is not None
        low, high = (middle, high) if fits else (low, middle)
    return low


def _too_many(table: Table, sizes: tuple[int, int, int], available: int, what: str) -> UserError:
    train, test, validation = _shrink(sizes, available)
    names = "num_train + num_test" + (" + num_validation" if sizes[2] else "")
    fitting = f"num_train={train}, num_test={test}" + (f", num_validation={validation}" if sizes[2] else "")
    advice = f"for example {fitting} would fit" if min(train, test) else "add images"
    return UserError(f"{table.where}: {available} {what}, but {names} = {sum(sizes)}: {advice}")


def _apply_policies(codes: np.ndarray, uncertain: list[int], blank: list[int]) -> np.ndarray:
    labels = np.where(codes == UNCERTAIN, np.array(uncertain), codes)
    return np.where(codes == BLANK, np.array(blank), labels).astype(np.int8)


def _example_list(tree: FileTree, table: Table, labels: np.ndarray, chosen: np.ndarray) -> ExampleList:
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
