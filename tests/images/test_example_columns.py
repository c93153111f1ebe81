"""Columns of example lists: from the CSV to the packed split, its subsets and unions, and faults by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from transferscope.experiment.options import PictureOptions
from transferscope.generated.draw import generate_chest, generate_domains
from transferscope.images.chexpert import read_chexpert
from transferscope.images.domainnet import read_domainnet
from transferscope.images.example_columns import column_name, columns_digest, grouping_column
from transferscope.images.pack import digest_of_source, is_packed_from, pack_split
from transferscope.images.source_digest import PACKING_VERSION
from transferscope.images.split import PackedSplit
from transferscope.images.union import union_split
from transferscope.system.errors import UserError

PICTURES = PictureOptions(store_size=16, style="chest", mean=(0.5,), std=(0.25,))


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("chest")
    generate_chest(folder, num_images=40, seed=0, size=24)
    return folder


@pytest.fixture(scope="module")
def split(root: Path) -> PackedSplit:
    source = read_chexpert(root, num_train=20, num_test=15, name="chest")
    return pack_split(source, "test", PICTURES, root.parent / "packed")


def rows_of(root: Path) -> dict[str, dict[str, str]]:
    with next(root.rglob("train.csv")).open(newline="") as file:
        return {row["Path"]: row for row in csv.DictReader(file)}


def test_every_example_has_the_texts_of_its_row(root: Path, split: PackedSplit) -> None:
    """Sex, age, view and projection as in the CSV, in the order of the split; paths and findings are no columns."""
    rows = rows_of(root)
    for heading, name in (("Sex", "sex"), ("Age", "age"), ("Frontal/Lateral", "view"), ("AP/PA", "projection")):
        assert split.columns[name].tolist() == [rows[example][heading] for example in split.example_ids]
    assert set(split.columns["support_devices"]) <= {"", "1.0"}
    assert not {"path", "edema", "Edema"} & set(split.columns)


def test_subsets_and_copies_in_other_processes_keep_their_rows(split: PackedSplit) -> None:
    """Rows by index, in the order asked for; opened anew the table is equal."""
    chosen = split.subset([7, 2])
    assert chosen.columns["age"].tolist() == [split.columns["age"][7], split.columns["age"][2]]
    assert split.folder is not None
    pd.testing.assert_frame_equal(PackedSplit.open(split.folder).columns, split.columns)


def test_images_and_labels_do_not_depend_on_columns(root: Path, split: PackedSplit) -> None:
    """The digest of the split is that of the same list without columns; the digest of what it is from is not."""
    source = read_chexpert(root, num_train=20, num_test=15, name="chest")
    bare = type(source.test)(source.test.paths, source.test.labels, source.test.example_ids)
    other = type(source)(**{**vars(source), "test": bare})
    assert split.folder is not None
    packed = pack_split(other, "test", PICTURES, split.folder.parent / "bare")
    assert packed.digest == split.digest
    assert packed.columns.shape == (15, 0)
    assert not (packed.folder / "columns.parquet").exists()  # type: ignore[operator]
    assert digest_of_source(other, "test", PICTURES) != digest_of_source(source, "test", PICTURES)
    assert PACKING_VERSION == 2


def test_a_corrected_column_packs_the_split_again(root: Path, split: PackedSplit, tmp_path: Path) -> None:
    """A split is not what packing files of another sex column would give, although its images are."""
    source = read_chexpert(root, num_train=20, num_test=15, name="chest")
    assert is_packed_from(split, source, "test", PICTURES)
    table = next(root.rglob("train.csv"))
    before = table.read_text()
    try:
        table.write_text(before.replace(",Male,", ",Unknown,"))
        assert not is_packed_from(split, read_chexpert(root, num_train=20, num_test=15, name="chest"), "test", PICTURES)
    finally:
        table.write_text(before)


def test_a_union_says_which_part_an_example_is_from(tmp_path: Path) -> None:
    """Its column domain, the parts one after the other; parts without columns have no other."""
    generate_domains(tmp_path / "domains", domains=("real", "clipart"), num_train=12, num_test=11, seed=0, size=24)
    pictures = PictureOptions(store_size=16)
    parts = [
        pack_split(read_domainnet(tmp_path / "domains", name), "test", pictures, tmp_path / name)
        for name in ("real", "clipart")
    ]
    union = union_split(parts, "both", tmp_path / "both")
    assert union.columns["domain"].tolist() == ["real"] * len(parts[0]) + ["clipart"] * len(parts[1])
    assert list(union.columns) == ["domain"]


def test_groups_are_numbered_in_alphabetical_order() -> None:
    """Blank cells are a group of their own."""
    table = pd.DataFrame({"sex": pd.Categorical(["Male", "", "Female", "Male"])})
    values, codes = grouping_column(table, "sex", "chest")
    assert values == ["(blank)", "Female", "Male"]
    assert codes.tolist() == [2, 0, 1, 2]


def test_a_column_that_does_not_group_is_named(split: PackedSplit) -> None:
    """One that is not there, with those that are; one with more values than a figure shows."""
    with pytest.raises(UserError, match=r"chest: its example list has no column 'hospital'; .*: sex, age, view"):
        grouping_column(split.columns, "hospital", "chest")
    many = pd.DataFrame({"age": np.arange(60).astype(str)})
    with pytest.raises(UserError, match="chest: column 'age' has 60 values: give one of at most 50"):
        grouping_column(many, "age", "chest")


def test_names_are_lower_case_and_digests_follow_values() -> None:
    """As they are written in parameters; a column's digest does not depend on how its values are coded."""
    assert column_name(" Support Devices ") == "support_devices"
    one = pd.DataFrame({"sex": pd.Categorical(["a", "b"], categories=["a", "b"])})
    assert columns_digest(one) == columns_digest(one.astype(str))
    assert columns_digest(one) != columns_digest(one.iloc[::-1])
    assert columns_digest(pd.DataFrame(index=range(2))) == ""
