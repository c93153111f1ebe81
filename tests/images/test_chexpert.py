from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from transferscope.images.chexpert import read_chexpert
from transferscope.images.chexpert_table import FINDINGS
from transferscope.images.summary import patient_overlap
from transferscope.system.errors import UserError

ALL_UNCERTAIN = dict.fromkeys(FINDINGS, "-1.0")


def rows(count: int, per_patient: int = 2) -> list[tuple[int, int, dict[str, str]]]:
    return [(i // per_patient, i % per_patient, {"Edema": f"{i % 2}.0"}) for i in range(count)]


def labels_of(root: Path, **options: object) -> list[int]:
    """Labels of the row of the first patient, wherever it was drawn to."""
    source = read_chexpert(root, num_train=1, num_test=1, **options)
    examples = source.train if "patient00000" in source.train.paths[0] else source.test
    return examples.labels[0].tolist()


def test_authors_policy_is_the_default(make_chexpert: Callable[..., Path]) -> None:
    """Uncertain: 1 for Edema and Atelectasis, 0 for the others; unmentioned: 0."""
    root = make_chexpert([(0, 1, ALL_UNCERTAIN), (1, 1, {})])
    assert labels_of(root) == [0, 1, 0, 1, 0]
    other = read_chexpert(root, num_train=1, num_test=1)
    assert sorted(other.train.labels.sum(axis=1).tolist() + other.test.labels.sum(axis=1).tolist()) == [0, 2]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("ignore", [-1, -1, -1, -1, -1]),
        ("ones", [1, 1, 1, 1, 1]),
        ({"Edema": "zeros", "Cardiomegaly": "ignore"}, [-1, 0, 0, 1, 0]),
    ],
)
def test_policies(make_chexpert: Callable[..., Path], policy: object, expected: list[int]) -> None:
    """A policy holds for all findings, or for those named while the rest keep the authors'."""
    assert labels_of(make_chexpert([(0, 1, ALL_UNCERTAIN), (1, 1, {})]), uncertain=policy) == expected


def test_blank_policy(make_chexpert: Callable[..., Path]) -> None:
    """Unmentioned findings may be ignored, mentioned ones are not touched by that."""
    root = make_chexpert([(0, 1, {"Edema": "1.0", "Consolidation": "0.0"}), (1, 1, {})])
    assert labels_of(root, blank="ignore") == [-1, 1, 0, -1, -1]


def test_paper_sampling_is_one_permutation(make_chexpert: Callable[..., Path]) -> None:
    """Train and test are consecutive pieces of RandomState(1234).permutation over the CSV's rows."""
    source = read_chexpert(make_chexpert(rows(10)), num_train=4, num_test=3)
    order = np.random.RandomState(1234).permutation(10)
    assert source.train.rows is not None
    assert source.train.rows.tolist() == order[:4].tolist()
    assert source.test.rows is not None
    assert source.test.rows.tolist() == order[4:7].tolist()
    assert source.train.labels[:, 1].tolist() == [i % 2 for i in order[:4]]
    assert source.validation is None


def test_patients_leak_by_image_and_not_by_patient(make_chexpert: Callable[..., Path]) -> None:
    """Paper sampling puts patients into both parts; sampling by patient does not, validation included."""
    root = make_chexpert(rows(40, per_patient=4))
    assert patient_overlap(read_chexpert(root, num_train=20, num_test=20))["shared_patients"].sum() > 0
    clean = read_chexpert(root, num_train=16, num_test=12, num_validation=4, sampling="by_patient")
    assert [len(clean.part(part)) for part in clean.parts] == [16, 12, 4]
    assert patient_overlap(clean)["shared_patients"].sum() == 0


@pytest.mark.parametrize("prefix", ["CheXpert-v1.0-small/", "CheXpert-v1.0/", ""])
@pytest.mark.parametrize("folder", ["CheXpert-v1.0-small", "CheXpert-v1.0", ""])
def test_root_names(make_chexpert: Callable[..., Path], prefix: str, folder: str) -> None:
    """The root may have either name or none, in the CSV and on disk alike."""
    root = make_chexpert(rows(2), prefix=prefix, folder=folder)
    source = read_chexpert(root, num_train=1, num_test=1)
    assert (root / source.train.paths[0]).is_file()
    assert source.train.example_ids[0].startswith(prefix)


def test_views(make_chexpert: Callable[..., Path]) -> None:
    """Rows of other views are left out before anything is drawn."""
    root = make_chexpert(rows(4), view="lateral")
    assert len(read_chexpert(root, num_train=2, num_test=2, views="lateral").train) == 2
    with pytest.raises(UserError, match=r"no row with a frontal image"):
        read_chexpert(root, num_train=2, num_test=2, views="frontal")


def test_doubled_rows(make_chexpert: Callable[..., Path]) -> None:
    """Positive train rows appear twice under ids of their own; test rows do not."""
    root = make_chexpert([(i, 1, {"Consolidation": "1.0"}) for i in range(4)])
    source = read_chexpert(root, num_train=2, num_test=2, double_positives=("Cardiomegaly", "Consolidation"))
    assert (len(source.train), len(source.test)) == (4, 2)
    assert source.train.paths[0] == source.train.paths[1]
    assert source.train.example_ids[1] == source.train.example_ids[0] + "#2"


def test_too_few_rows_says_what_fits(make_chexpert: Callable[..., Path]) -> None:
    """The message gives numbers in the asked proportion, and they do fit."""
    root = make_chexpert(rows(10))
    with pytest.raises(UserError, match=r"10 images, but num_train \+ num_test = 20: .* num_train=7, num_test=2 would"):
        read_chexpert(root, num_train=15, num_test=5)
    read_chexpert(root, num_train=7, num_test=2)


def test_too_few_patients_says_what_fits(make_chexpert: Callable[..., Path]) -> None:
    """By patient, too, the suggested numbers fit."""
    root = make_chexpert(rows(12, per_patient=4))
    with pytest.raises(UserError, match=r"in whole patients") as caught:
        read_chexpert(root, num_train=6, num_test=6, sampling="by_patient")
    numbers = re.search(r"num_train=(\d+), num_test=(\d+) would fit", str(caught.value))
    assert numbers
    read_chexpert(root, num_train=int(numbers[1]), num_test=int(numbers[2]), sampling="by_patient")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uncertain": {"Fracture": "ones"}}, "uncertain names 'Fracture': the findings are Cardiomegaly, "),
        ({"uncertain": {"Edema": "one"}}, "uncertain for Edema is 'one': it may be ones, zeros or ignore"),
        ({"blank": "skip"}, "blank for Cardiomegaly is 'skip'"),
        ({"sampling": "random"}, "sampling is 'random': it may be paper, by_patient"),
        ({"views": "side"}, "views is 'side': it may be all, frontal, lateral"),
        ({"num_test": 0}, "num_train 1, num_test 0, num_validation 0: give positive numbers"),
        ({"double_positives": ["Oedema"]}, "double_positives names 'Oedema'"),
    ],
)
def test_bad_options(make_chexpert: Callable[..., Path], options: dict[str, object], message: str) -> None:
    """A wrong option is named with what it may be."""
    with pytest.raises(UserError, match=message):
        read_chexpert(make_chexpert(rows(2)), **{"num_train": 1, "num_test": 1, **options})


def content_of(root: Path) -> tuple[tuple[str, ...], list[list[int]]]:
    source = read_chexpert(root, num_train=3, num_test=1)
    return source.train.paths, source.train.labels.tolist()


TEXTS = {
    "a blank last line": lambda text: text + "\n",
    "blank lines and blank values": lambda text: text.replace("\n", "\n\n") + "," * 18 + "\n , ,\n",
    "a byte order mark": lambda text: "\ufeff" + text,
    "Windows line ends": lambda text: text.replace("\n", "\r\n"),
    "line ends of old Macs": lambda text: text.replace("\n", "\r"),
    "semicolons": lambda text: text.replace(",", ";"),
    "semicolons and decimal commas": lambda text: text.replace(",", ";").replace("1.0;", "1,0;"),
    "tabs": lambda text: text.replace(",", "\t"),
    "trailing commas": lambda text: text.replace("\n", ",\n"),
    "trailing commas in rows alone": lambda text: text.replace("\n", ",,\n").replace(",,\n", "\n", 1),
    "spaces around values": lambda text: text.replace(",", " , "),
    "a blank first line": lambda text: "\n" + text,
    "everything in quotes": lambda text: "\n".join(
        ",".join(f'"{value}"' for value in line.split(",")) for line in text.splitlines()
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_odd_but_valid_tables(case: str, make_chexpert: Callable[..., Path]) -> None:
    """Whatever a spreadsheet makes of the CSV is read as before: the same files and labels."""
    root = make_chexpert([(number, 0, {"Edema": f"{number % 2}.0"}) for number in range(4)])
    expected = content_of(root)
    path = root / "CheXpert-v1.0-small/train.csv"
    path.write_bytes(TEXTS[case](path.read_text()).replace("v1.0,0", "v1.0.0").encode())
    assert content_of(root) == expected


@pytest.mark.parametrize("archive", [False, True], ids=["folder", "zip"])
def test_one_folder_too_many(make_chexpert: Callable[..., Path], tmp_path: Path, archive: bool) -> None:
    """A folder that is alone in the root is passed through."""
    root = make_chexpert(rows(4))
    root.rename(tmp_path / "data")
    root.mkdir()
    (tmp_path / "data").rename(root / "data")
    if archive:
        root = Path(shutil.make_archive(str(root), "zip", root))
    assert content_of(root)[0][0].startswith("data/CheXpert-v1.0-small/train/patient")


@pytest.mark.parametrize(
    "prefix", ["/data/CheXpert-v1.0-small/", "D:\\chest\\", "my_copy/", "/", "../chest/x/", "a/train/"]
)
def test_paths_of_other_machines(
    make_chexpert: Callable[..., Path], prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Absolute paths, another folder's name and Windows' separators are read from the part on, with a warning."""
    root = make_chexpert(rows(4), prefix=prefix)
    csv_file = root / "CheXpert-v1.0-small" / "train.csv"
    if "\\" in prefix:
        csv_file.write_text(
            csv_file.read_text().replace("/study", "\\study").replace("/view", "\\view").replace("n/p", "n\\p")
        )
    if ".." in prefix:
        with pytest.raises(UserError, match="points outside the root"):
            read_chexpert(root, num_train=2, num_test=2)
        return
    source = read_chexpert(root, num_train=2, num_test=2)
    assert all(path.startswith("CheXpert-v1.0-small/train/patient0000") for path in source.train.paths)
    assert any("paths are read from their part on" in message for message in caplog.messages)
