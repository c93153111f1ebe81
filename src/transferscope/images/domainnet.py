"""Reading one domain in DomainNet's layout.

`<domain>/<class>/<file>`, with `<domain>_train.txt` and `<domain>_test.txt` beside the domain or in `txt/`; each line
of a list is `clipart/aircraft_carrier/clipart_001.jpg 0`. The root is a folder or an archive; a folder may hold the
domain as `<domain>.zip` or `<domain>.tar`, as it is distributed. A root that holds nothing but one folder is passed
through.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from transferscope.experiment.options import Images
from transferscope.images.file_tree import FileTree, plain, printable, unsafe_reason
from transferscope.images.files import open_tree
from transferscope.images.sampling import DOMAINNET_SEED, draw_subset
from transferscope.images.source import (
    GENERATED_MARK,
    ExampleList,
    ImageFormat,
    ImageSource,
    check_classes,
    printable_names,
    report_notes,
    warn_once,
)
from transferscope.system.errors import UserError

PAPER_LIMIT = 50_000
"""Images of a part in the study."""


class DomainNet(ImageFormat):
    """A domain of DomainNet: class folders, and the lists `<domain>_train.txt` and `<domain>_test.txt`."""

    domain: str | None = None
    """Default: the task's name."""
    limit: Images | None = None
    """Largest number of images of a part, drawn as the study drew them; None: 50,000."""
    untrained_classes: Literal["refuse", "keep"] = "refuse"
    """Classes that the test list has and the train list lacks."""

    def read(self, root: Path, task: str) -> ImageSource:
        """`read_domainnet` with these options."""
        limit, domain = self.limit or PAPER_LIMIT, self.domain or task
        return read_domainnet(root, domain, limit=limit, untrained_classes=self.untrained_classes)

    def validation_fault(self, *, wanted: bool) -> str | None:
        """DomainNet has train and test alone."""
        return "this layout has no validation part" if wanted else None

    def sample_sizes(self) -> tuple[int, int]:
        """The limit of a part, twice."""
        return self.limit or PAPER_LIMIT, self.limit or PAPER_LIMIT


def read_domainnet(
    root: str | Path,
    domain: str,
    *,
    limit: int | None = PAPER_LIMIT,
    seed: int = DOMAINNET_SEED,
    untrained_classes: Literal["refuse", "keep"] = "refuse",
) -> ImageSource:
    """Read the lists of one domain and draw the study's subset of each part.

    Args:
        root: Folder or archive that holds the domain and its lists.
        domain: For example "clipart".
        limit: A part with more examples is reduced to this many by `RandomState(seed).choice`; None: take all.
        untrained_classes: Treatment of a class that the test list has and the train list lacks.

    Raises:
        UserError: Naming list, line and remedy, for anything that cannot be used.
    """
    if untrained_classes not in ("refuse", "keep"):
        raise UserError(f"untrained_classes is {untrained_classes!r}: it may be 'refuse' or 'keep'")
    tree = open_tree(root)
    report_notes(tree.notes)
    base = _find_base(tree, domain)
    lists = {part: _read_list(tree, _find_list(tree, base, domain, part)) for part in ("train", "test")}
    class_names = _class_names(tree, base, domain, lists)
    if untrained_classes == "refuse":
        _check_untrained(lists["train"], lists["test"], class_names)
    images = _image_tree(tree, base, domain)
    start = base if images is tree else ""
    train, test = (_draw(images, start, lists[part], limit, seed) for part in ("train", "test"))
    check_classes(class_names, lists["train"].where)
    _report_shared(lists, train, test)
    drawn = any(len(lists[part].paths) > len(used) for part, used in (("train", train), ("test", test)))
    return ImageSource(
        name=domain,
        root=images.root,
        class_names=class_names,
        multi_label=False,
        generated=tree.is_file(GENERATED_MARK),
        train=train,
        test=test,
        sampling=f"paper: RandomState({seed}).choice of {limit} where there are more" if drawn else "all",
    )


@dataclass(frozen=True)
class _List:
    """A list as it was read, in its own order."""

    where: str
    paths: list[str]
    labels: list[int]
    line_numbers: list[int]

    def line(self, example: int) -> str:
        return f"{self.where}, line {self.line_numbers[example]}"


def _find_base(tree: FileTree, domain: str) -> str:
    """The folder of the lists, "" or with a slash at its end; a folder that is alone in the root is passed."""
    base = ""
    while not any(tree.is_file(f"{base}{folder}{domain}_train.txt") for folder in ("", "txt/")):
        folders = tree.entries(base.rstrip("/"))[0]
        if len(folders) != 1 or folders[0] == domain:
            return ""
        base += f"{folders[0]}/"
    if base:
        warn_once(f"{tree.where(base.rstrip('/'))}: the lists are taken from here, for above there is no other folder")
    return base


def _find_list(tree: FileTree, base: str, domain: str, part: str) -> str:
    name = f"{domain}_{part}.txt"
    for path in (base + name, f"{base}txt/{name}"):
        if tree.is_file(path):
            return path
    raise UserError(
        f"{tree.where(base.rstrip('/'))}: no list {printable(name)}, neither there nor in txt/: check the domain's "
        f"name and that the lists were downloaded"
    )


def _read_list(tree: FileTree, path: str) -> _List:
    where = tree.where(path)
    lines = re.split("\r\n|\n|\r", tree.read_text(path))
    paths: list[str] = []
    labels: list[int] = []
    numbers: list[int] = []
    known_labels: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        line = line.rstrip(" \t")
        if not line:
            continue
        file, text = _split(line)
        label = known_labels.get(text)
        if label is None:
            label = known_labels[text] = _parse_label(f"{where}, line {number}", file, text)
        _check_path(f"{where}, line {number}", file)
        paths.append(plain(file))
        labels.append(label)
        numbers.append(number)
    if not paths:
        raise UserError(f"{where}: the list is empty: it needs a line 'path label' for each image")
    listed = _List(where, paths, labels, numbers)
    _check_duplicates(listed)
    return listed


_SEPARATED = re.compile(r"(?P<file>.*?)[ \t]*[ \t,;][ \t]*(?P<label>[^ \t,;]*)")
"""A path, which may hold any of these, and a label after a space, tab, comma or semicolon."""


def _split(line: str) -> tuple[str, str]:
    """The path and the label of a line; a path may be in quotation marks and have the separators of Windows."""
    match = _SEPARATED.fullmatch(line)
    if match is None:
        return "", line
    file, label = match["file"], match["label"]
    if len(file) > 1 and file[0] == file[-1] == '"':
        file = file[1:-1]
    return (file if "/" in file else file.replace("\\", "/")), label


def _parse_label(where: str, file: str, text: str) -> int:
    if not file.strip():
        raise UserError(f"{where}: {text!r} has no label: write 'path label'")
    if not text.isascii() or not text.isdigit():
        raise UserError(f"{where}: label {text!r} is not a whole number from 0: write 'path label'")
    if len(text) > 6:
        raise UserError(f"{where}: label {text[:20]} is too large: labels are class indices from 0")
    return int(text)


def _check_path(where: str, file: str) -> None:
    reason = unsafe_reason(file)
    if reason:
        raise UserError(f"{where}: {file!r} {reason}: refused")
    if "/" not in plain(file):
        raise UserError(f"{where}: {file!r} names no class: expected <domain>/<class>/<file>")


def _check_duplicates(listed: _List) -> None:
    if len(set(listed.paths)) == len(listed.paths):
        return
    first: dict[str, int] = {}
    for i, path in enumerate(listed.paths):
        if path in first:
            earlier = listed.line(first[path]).rpartition(", ")[2]
            raise UserError(f"{listed.line(i)}: {path!r} is already in {earlier}: remove one of them")
        first[path] = i


def _class_of(path: str) -> str:
    return path.rsplit("/", 2)[-2]


def _class_names(tree: FileTree, base: str, domain: str, lists: dict[str, _List]) -> tuple[str, ...]:
    """Names by label, from the paths; a label that this domain does not use takes its name from another domain."""
    names = _names_by_label(list(lists.values()))
    num_classes = max(names) + 1
    gaps = [label for label in range(num_classes) if label not in names]
    if gaps:
        others = _names_of_other_domains(tree, base, domain)
        unknown = [label for label in gaps if label not in others]
        if unknown:
            raise UserError(
                f"{lists['train'].where}: labels go up to {num_classes - 1}, but no line has label {unknown[0]}: "
                f"labels must be 0, 1, 2, ... without gaps"
            )
        names.update({label: others[label] for label in gaps})
    if len(set(names.values())) < num_classes:
        twice = next(name for name in names.values() if list(names.values()).count(name) > 1)
        raise UserError(f"{lists['train'].where}: two labels belong to the class {twice!r}")
    return printable_names([names[label] for label in range(num_classes)], lists["train"].where)


def _names_by_label(lists: Sequence[_List]) -> dict[int, str]:
    """Names by label; `UserError` where a label has two names or a name two labels."""
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for listed in lists:
        for name, label in set(zip(map(_class_of, listed.paths), listed.labels, strict=True)):
            if names.setdefault(label, name) != name or labels.setdefault(name, label) != label:
                raise _disagreement(lists)
    return names


def _disagreement(lists: Sequence[_List]) -> UserError:
    """The first line, in reading order, that contradicts an earlier one."""
    names: dict[int, tuple[str, str]] = {}
    labels: dict[str, tuple[int, str]] = {}
    for listed in lists:
        for i, (path, label) in enumerate(zip(listed.paths, listed.labels, strict=True)):
            name, line = _class_of(path), listed.line(i)
            other_name, name_line = names.setdefault(label, (name, line))
            other_label, label_line = labels.setdefault(name, (label, line))
            if other_name != name:
                return UserError(f"{line}: label {label} with class {name!r}, but {other_name!r} in {name_line}")
            if other_label != label:
                return UserError(f"{line}: class {name!r} with label {label}, but {other_label} in {label_line}")
    raise AssertionError("no disagreement")


def _names_of_other_domains(tree: FileTree, base: str, domain: str) -> dict[int, str]:
    """Names by label from the train lists of the other domains beside this one; the label space is shared."""
    names: dict[int, str] = {}
    for folder in (base, f"{base}txt/"):
        if folder != base and "txt" not in tree.entries(base.rstrip("/"))[0]:
            continue
        for name in tree.entries(folder.rstrip("/"))[1]:
            if name.endswith("_train.txt") and name != f"{domain}_train.txt":
                names = _names_by_label([_read_list(tree, folder + name)]) | names
    return names


def _check_untrained(train: _List, test: _List, class_names: tuple[str, ...]) -> None:
    untrained = set(test.labels) - set(train.labels)
    if untrained:
        label = min(untrained)
        raise UserError(
            f"{test.line(test.labels.index(label))}: class {class_names[label]!r} (label {label}) is not in the train "
            f"list: remove it from the test list, or keep it with untrained_classes='keep'"
        )


def _image_tree(tree: FileTree, base: str, domain: str) -> FileTree:
    """The place of the images: beside the lists, or in an archive of the domain."""
    if domain not in tree.entries(base.rstrip("/"))[0]:
        for suffix in (".zip", ".tar"):
            if tree.is_file(f"{base}{domain}{suffix}") and tree.root.is_dir():
                images = open_tree(tree.root / f"{base}{domain}{suffix}")
                report_notes(images.notes)
                return images
    return tree


def _draw(images: FileTree, start: str, listed: _List, limit: int | None, seed: int) -> ExampleList:
    indices = draw_subset(len(listed.paths), limit, seed)
    ids = printable_names([listed.paths[i] for i in indices], listed.where)
    paths = tuple(start + listed.paths[i] for i in indices)
    first, missing = images.first_missing(paths)
    if missing:
        raise UserError(
            f"{listed.line(int(indices[first]))}: {images.where(paths[first])} {images.no_file(paths[first])}"
            + (f" (and {missing - 1} more of the {len(paths)} files used)" if missing > 1 else "")
            + ": correct the list or add the file"
        )
    labels = np.array([listed.labels[i] for i in indices], dtype=np.int64)
    return ExampleList(paths=paths, labels=labels, example_ids=ids, rows=indices)


def _report_shared(lists: dict[str, _List], train: ExampleList, test: ExampleList) -> None:
    """Warn of files that are in both lists."""
    trained = set(train.paths)
    shared = [path for path in test.paths if path in trained]
    if shared:
        warn_once(
            f"{lists['test'].where}: {len(shared)} of {len(test)} images are in the train list, too, as "
            f"{printable(shared[0])!r}: metrics on them say nothing about new images"
        )
