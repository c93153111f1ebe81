"""Schemas of tables: what is as described passes unchanged, what is not is refused by file, row, column and value."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pandera.pandas as pa
import pytest
from kedro.framework.project import pipelines
from kedro.io import CatalogConfigResolver, DataCatalog, DatasetError
from pandera.errors import SchemaErrors

from tiny_project import ROOT
from transferscope.datasets.schemas import TableError, TableValidator
from transferscope.datasets.schemas.all_tables import SCHEMAS, file_of, named_schemas, schema_of
from transferscope.datasets.table import TableDataset, read_table, write_table
from transferscope.framework.config import PlanConfigLoader
from transferscope.framework.kedro_private import add_validators, validators_of
from transferscope.framework.runners.failures import users_mistake
from transferscope.settings import CONFIG_LOADER_ARGS
from transferscope.system.stored import DamagedError, stored_file

SHIFT = pd.DataFrame(
    {
        "task": "clipart",
        "class_name": ["apple", "car", "cup"],
        "train_fraction": [0.5, 0.25, 0.25],
        "test_fraction": [0.5, 0.5, 0.0],
        "difference": [0.0, 0.25, -0.25],
    }
)
SIZES = pd.DataFrame(
    {
        "task": "clipart",
        "part": ["train", "test"],
        "class_name": ["apple", "apple"],
        "count": [3, 2],
        "negatives": [7, 0],
        "ignored": 0,
        "fraction": [0.3, 1.0],
    }
)
RANGED = pd.DataFrame(
    {
        "task": "clipart",
        "label_a": "RI-T",
        "label_b": "P-T",
        "threshold": [0.1, 1.0],
        "fraction_a": 0.5,
        "fraction_b": 0.25,
        "difference": 0.25,
        "low": 0.125,
        "high": 0.5,
        "layers_more_in_a": 3,
        "num_layers": 4,
        "probability_smaller": 0.6,
    }
)


def refusal(name: str, table: pd.DataFrame) -> str:
    """The line by which a table is refused."""
    with pytest.raises(TableError) as caught:
        TableValidator(name, "data/x.csv").validate(table)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def sample(schema: pa.DataFrameSchema) -> pd.DataFrame:
    """A table of one row that fits a schema, made from its words alone."""
    row: dict[str, Any] = {}
    for name, column in schema.columns.items():
        kind, values = column.metadata["kind"], column.metadata["range"]
        if not column.regex:
            texts = values.split(", ") if values else [f"a {name}"]
            row[name] = {"flag": True, "number": 1.0, "whole number": 1}.get(kind, texts[0])
    return pd.DataFrame([row])


NONSENSE = {"text": 7, "flag": "perhaps", "number": "abc", "whole number": 0.5}
"""A value of each kind of column that is none."""


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_value_of_another_kind_is_refused_in_every_column(name: str) -> None:
    """The table itself passes and is the same object; nonsense in any column, or a column less, is refused."""
    schema = SCHEMAS[name]
    table = sample(schema)
    assert TableValidator(name, "data/x.csv").validate(table) is table
    kinds = {column: schema.columns[column].metadata["kind"] for column in table}
    checked = [column for column in table if kinds[column] in NONSENSE]
    edited = table.assign(**{column: pd.Series([NONSENSE[kinds[column]]], dtype=object) for column in checked})
    with pytest.raises(SchemaErrors) as caught:
        schema.validate(edited, lazy=True)
    assert set(checked) <= set(caught.value.failure_cases["column"])
    assert "row 1 (line 2), column '" in refusal(name, edited)
    assert f"column '{checked[0]}' is missing" in refusal(name, table.drop(columns=checked[0]))


@pytest.mark.parametrize(
    ("name", "table", "row", "column", "value", "message"),
    [
        ("label_shift", SHIFT, 1, "test_fraction", "half", "row 2 (line 3), column 'test_fraction': must be a number from 0 to 1 (got 'half')"),
        ("label_shift", SHIFT, 1, "test_fraction", 1.5, "column 'test_fraction': must be a number from 0 to 1 (got 1.5)"),
        ("label_shift", SHIFT, 2, "class_name", None, "row 3 (line 4), column 'class_name': must not be empty"),
        ("label_shift", SHIFT, 2, "class_name", "apple", "row 3 (line 4) repeats row 1 (line 2): class_name must name one row"),
        ("class_sizes.table", SIZES, 1, "count", -2, "column 'count': must be a whole number of at least 0 (got -2)"),
        ("class_sizes.table", SIZES, 1, "count", 2.5, "column 'count': must be a whole number of at least 0 (got 2.5)"),
        ("class_sizes.table", SIZES, 0, "part", "tarin", "column 'part': must be one of: train, test, validation (got 'tarin')"),
        ("small_values", RANGED, 1, "low", 0.75, "row 2 (line 3), column 'low': must not lie above high, 0.5 (got 0.75)"),
    ],
)  # fmt: skip
def test_a_table_edited_to_nonsense_is_one_line(
    name: str, table: pd.DataFrame, row: int, column: str, value: Any, message: str
) -> None:
    """It names the file, the row and its line, the column, the value and what was expected."""
    edited = table.astype({column: object})
    edited.loc[row, column] = value
    line = refusal(name, edited)
    assert line.startswith("data/x.csv: row ")
    assert line.endswith(message)


def test_a_new_column_and_a_new_table_say_where_to_describe_them() -> None:
    """The hint is the file of the schema and the page; a misspelt column is named with the one that is missing."""
    place = "describe a new column in src/transferscope/datasets/schemas/data_prep.py (docs/extending.md, A table)"
    assert refusal("label_shift", SHIFT.assign(spread=1.0)) == f"data/x.csv: unknown column 'spread': {place}"
    renamed = SHIFT.rename(columns={"difference": "diference"})
    assert "unknown column 'diference': rename it to 'difference', or describe" in refusal("label_shift", renamed)
    assert "no schema of a table 'label_shft': did you mean label_shift?" in refusal("label_shft.table", SHIFT)
    assert "no schema of a table 'zzz': describe it in src/transferscope/datasets/schemas" in refusal("zzz", SHIFT)


def test_numbers_that_a_run_may_not_have_may_be_missing_and_infinite() -> None:
    """Metrics of a diverged run are NaN and its loss infinite; an empty table and one without columns pass."""
    history = pd.DataFrame(
        {"task": "clipart", "run": "rit_1", "epoch": [0, 1], "lr": [np.nan, 0.1], "train_loss": [np.nan, np.inf],
         "test_accuracy": [0.5, np.nan], "test_auc/no/finding": [0.5, np.nan]}
    )  # fmt: skip
    for table in (history, history.iloc[:0], history.iloc[:0, :2], pd.DataFrame()):
        assert TableValidator("history", "x").validate(table) is table


def test_rounding_is_no_fault() -> None:
    """A share of 1 + 1e-12, and a lower end above the upper one by as much, are results of arithmetic."""
    table = RANGED.assign(fraction_a=1 + 1e-12, low=0.5 + 1e-12)
    TableValidator("small_values", "x").validate(table)


def test_tables_of_ones_own_are_free_but_for_their_names() -> None:
    """Any column passes; the task must be there."""
    own = pd.DataFrame({"task": "clipart", "run": "clipart.pt_1", "epoch": 3, "my measure": ["x"]})
    TableValidator("own_signs.table", "x").validate(own)
    assert "column 'task' is missing" in refusal("own_signs.table", own.drop(columns="task"))


@pytest.mark.usefixtures("base_again")
@pytest.mark.parametrize(
    "env", sorted(path.name for path in (ROOT / "conf").iterdir() if (path / "globals.yml").exists())
)
def test_every_table_of_the_catalog_has_a_schema(env: str) -> None:
    """Each pattern of tables has the validator, and each table that a node makes a schema of its own name."""
    loader = PlanConfigLoader(str(ROOT / "conf"), env=env, **CONFIG_LOADER_ARGS)
    entries = loader["catalog"]
    tables = {
        name: entry for name, entry in entries.items() if entry["type"] == "transferscope.datasets.table.TableDataset"
    }
    assert len(tables) > 20
    assert [name for name, entry in tables.items() if "validator" not in entry] == []
    resolver = CatalogConfigResolver(entries)
    made = [name for name in pipelines["__default__"].all_outputs() if "." in name or name.startswith("claim")]
    resolved = {name: resolver.resolve_pattern(name) for name in made}
    named = {entry["table"] for entry in resolved.values() if entry["type"].endswith("TableDataset")}
    assert len(named) > 5
    assert {name for name in named if schema_of(name) is None} == set()
    of_pairs = {
        entry["validator"]["options"]["file"] for entry in resolved.values() if entry.get("table") == "distances"
    }
    assert all(file.endswith(".csv") and "{" not in file for file in of_pairs)


def test_a_schema_stands_in_the_file_of_its_pipeline() -> None:
    """The file that a hint names holds the table."""
    for _, name, schema in named_schemas():
        if not name.startswith("own_"):
            assert f'"{name}"' in (ROOT / file_of(name)).read_text() or schema is SCHEMAS["plane"]


@pytest.fixture
def catalog(tmp_path: Path) -> DataCatalog:
    """A catalog of one table, as `conf/base/catalog.yml` has it."""
    file = str(tmp_path / "label_shift.csv")
    checks = {"class": "transferscope.datasets.schemas.TableValidator", "skip_load_after_save": True}
    options = {"table": "label_shift.table", "file": "data/label_shift.csv"}
    entry = {"type": "transferscope.datasets.table.TableDataset", "filepath": file, "table": "label_shift.table"}
    return DataCatalog.from_config({"clipart.label_shift.table": entry | {"validator": checks | {"options": options}}})


def test_a_catalog_refuses_to_save_nonsense_and_writes_the_same_bytes(catalog: DataCatalog, tmp_path: Path) -> None:
    """No file is written for a table that does not fit; one that fits has the bytes that it has without checks."""
    with pytest.raises(TableError, match="column 'difference': must be a number from -1 to 1") as caught:
        catalog.save("clipart.label_shift.table", SHIFT.assign(difference=2.0))
    assert users_mistake(caught.value) is caught.value
    assert not (tmp_path / "label_shift.csv").exists()
    catalog.save("clipart.label_shift.table", SHIFT)
    write_table(SHIFT, tmp_path / "plain.csv")
    assert (tmp_path / "label_shift.csv").read_bytes() == (tmp_path / "plain.csv").read_bytes()
    pd.testing.assert_frame_equal(catalog.load("clipart.label_shift.table"), read_table(tmp_path / "plain.csv"))


def test_a_catalog_refuses_to_load_nonsense(catalog: DataCatalog, tmp_path: Path) -> None:
    """With a digest of its own it is refused by the schema, with the old one as damaged, with the same words."""
    file = tmp_path / "label_shift.csv"
    write_table(SHIFT, file)
    text = file.read_text().replace("cup,0.25,0.0,-0.25", "cup,0.25,none,-0.25")
    file.write_text(text)
    words = r"row 3 \(line 4\), column 'test_fraction': must be a number from 0 to 1 \(got 'none'\)"
    with pytest.raises(DatasetError, match=f"its content is not what was written: {words}"):
        catalog.load("clipart.label_shift.table")
    with stored_file(file) as written:
        written.write_text(text)
    with pytest.raises(TableError, match=f"^data/label_shift.csv: {words}$"):
        catalog.load("clipart.label_shift.table")


def test_a_damaged_file_that_is_no_table_stays_damaged(catalog: DataCatalog, tmp_path: Path) -> None:
    """Bytes that no reader takes for a table are refused by name alone."""
    write_table(SHIFT, tmp_path / "label_shift.csv")
    (tmp_path / "label_shift.csv").write_bytes(b"\xff\xfe\0\0")
    with pytest.raises(DatasetError, match="its content is not what was written\\)") as caught:
        catalog.load("clipart.label_shift.table")
    assert isinstance(users_mistake(caught.value), DamagedError)


def test_checks_go_with_datasets_to_another_machine(catalog: DataCatalog, tmp_path: Path) -> None:
    """A worker of Ray makes its catalog of datasets; with the checks handed on it refuses the same."""
    names = list(catalog)
    there = DataCatalog({name: catalog[name] for name in names})
    assert isinstance(there["clipart.label_shift.table"], TableDataset)
    add_validators(there, validators_of(catalog, names))
    with pytest.raises(TableError, match="column 'difference'"):
        there.save("clipart.label_shift.table", SHIFT.assign(difference=2.0))


def test_commands_that_load_no_table_do_not_import_pandera() -> None:
    """It takes half a second: neither the command line nor the pipelines nor the catalog's configuration need it."""
    script = (
        "import sys\n"
        "import transferscope.cli, transferscope.settings, transferscope.datasets.table\n"
        "from transferscope.framework.config import load_plan\n"
        "load_plan('base')\n"
        "import transferscope.pipeline_registry as registry\n"
        "registry.register_pipelines()\n"
        "assert 'pandera' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)
