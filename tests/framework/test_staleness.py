"""Results of another plan are named before anything runs, and those of the present one are not."""

from __future__ import annotations

import logging
import os
import zlib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from kedro.framework.hooks.manager import _create_hook_manager
from kedro.io import DataCatalog, DatasetError, MemoryDataset
from kedro.pipeline import Node, Pipeline
from kedro.runner import SequentialRunner

from transferscope.datasets.text import TextDataset
from transferscope.framework import staleness as made_by
from transferscope.framework.config import CommandLineError

TRAIN = Node(lambda run: str(run["epochs"]), "params:run", "t.pt.checkpoints", name="train")
TABLE = Node(lambda weights, options: weights * 2, ["t.pt.checkpoints", "params:options"], "t.table", name="tabulate")
FIGURE = Node(lambda table: table, "t.table", "t.figure", name="draw")
STEPS = {"training": Pipeline([TRAIN]), "landscape": Pipeline([TABLE, FIGURE])}


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Any:
    """`study(steps, epochs, points, ...)` runs some steps of a study of three and gives what was said before."""
    monkeypatch.setattr(made_by, "pipelines", STEPS | {"__default__": Pipeline([*STEPS.values()])})
    caplog.set_level(logging.INFO, "transferscope")

    def run(
        nodes: list[Node],
        *,
        epochs: int,
        points: int = 5,
        workers: int = 1,
        only_missing: bool = False,
        elsewhere: bool = False,
    ) -> str:
        caplog.clear()
        names = ("t.pt.checkpoints", "t.table", "t.figure")
        catalog = DataCatalog({name: TextDataset(filepath=str(tmp_path / f"{name}.txt")) for name in names})
        run = {"epochs": epochs, "fingerprint": f"f{epochs}", "num_processes": workers}
        catalog["params:run"] = MemoryDataset(run)
        catalog["params:options"] = MemoryDataset({"points": points, "num_workers": workers})
        hooks, manager = made_by.MadeBy(), _create_hook_manager()
        manager.register(hooks)
        loader = {"globals": {"data": "results"}}
        hooks.after_context_created(SimpleNamespace(project_path=tmp_path, config_loader=loader))  # type: ignore[arg-type]
        hooks.before_pipeline_run({"only_missing_outputs": only_missing}, Pipeline(nodes), catalog)
        SequentialRunner().run(Pipeline(nodes), catalog, None if elsewhere else manager)
        hooks.after_pipeline_run({"only_missing_outputs": only_missing}, Pipeline(nodes))
        return caplog.text

    return run


def test_nothing_is_said_of_results_of_the_present_plan(study: Any) -> None:
    """Nor of those that do not exist, nor where what has changed changes no result."""
    assert "another plan" not in study([TRAIN, TABLE, FIGURE], epochs=1)
    assert "another plan" not in study([FIGURE], epochs=1)
    assert "another plan" not in study([TRAIN, TABLE, FIGURE], epochs=1, workers=4)


def test_what_is_made_anew_is_named(study: Any) -> None:
    """Another number of points: table and figure, not the weights."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    assert "made by another plan, and now made anew: t.figure, t.table\n" in study([TABLE, FIGURE], epochs=1, points=7)
    assert "another plan" not in study([TABLE, FIGURE], epochs=1, points=7)


def test_what_is_read_as_it_is_is_named_with_what_makes_it(study: Any) -> None:
    """The figure alone, from a table of other options; what comes of it is not taken for the present plan's."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    printed = study([FIGURE], epochs=1, points=7)
    assert (
        "made by another plan, and used as it is: t.table; `kedro run --pipelines landscape` makes them anew" in printed
    )
    assert "now made anew: t.figure, t.table" in study([TABLE, FIGURE], epochs=1, points=7)


def test_steps_that_ran_elsewhere_are_of_the_plan_of_their_run(study: Any) -> None:
    """No hook is called for them, and the run has succeeded."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    assert "now made anew" in study([TRAIN, TABLE, FIGURE], epochs=2, elsewhere=True)
    assert "another plan" not in study([TRAIN, TABLE, FIGURE], epochs=2)


def test_weights_of_another_plan_are_not_kept_for_missing_outputs(study: Any) -> None:
    """`--only-missing-outputs` is refused where weights are stale, and names other results that it keeps."""
    study([TRAIN, TABLE], epochs=1)
    with pytest.raises(
        CommandLineError, match=r"^t\.pt\.checkpoints: made by another plan, and --only-missing-outputs"
    ):
        study([TRAIN, TABLE, FIGURE], epochs=2, only_missing=True)
    printed = study([TRAIN, TABLE], epochs=1, points=9, only_missing=True)
    assert "made by another plan, and kept: t.table; `kedro run --pipelines landscape` makes them anew" in printed


def killed(study: Any, tmp_path: Path, nodes: list[Node], **options: Any) -> Path:
    """A run of some steps that is killed before it ends; the journal that it leaves."""
    folder = tmp_path / "results"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_by.MadeBy, "after_pipeline_run", lambda *_: None)
        study(nodes, **options)
    return folder / ".made_by.journal"


def test_a_run_that_was_killed_has_noted_what_it_made(study: Any, tmp_path: Path) -> None:
    """Its table of the old plan is named after a change, though the run never came to its end."""
    journal = killed(study, tmp_path, [TRAIN, TABLE, FIGURE], epochs=1)
    assert journal.is_file()
    assert "now made anew: t.figure, t.table\n" in study([TABLE, FIGURE], epochs=1, points=7)
    assert not journal.exists()


def test_a_result_that_was_saved_and_not_noted_is_not_trusted(study: Any, tmp_path: Path) -> None:
    """A kill between the two: it counts as made by another plan."""
    study([TRAIN], epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_by.MadeBy, "after_dataset_saved", lambda *_: None)
        killed(study, tmp_path, [TABLE], epochs=1)
    assert "made by another plan, and used as it is: t.table" in study([FIGURE], epochs=1)


def test_kills_leave_the_same_list(study: Any, tmp_path: Path) -> None:
    """After a killed run and one that ends, the file holds what an undisturbed run writes, to the byte."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    path = tmp_path / "results" / ".made_by.json"
    undisturbed = path.read_bytes()
    path.unlink()
    killed(study, tmp_path, [TABLE], epochs=1)
    study([TRAIN, TABLE, FIGURE], epochs=1)
    assert path.read_bytes() == undisturbed


@pytest.mark.parametrize("name", [".made_by.json", ".made_by.journal"])
def test_a_folder_in_place_of_the_notes_is_one_line(study: Any, tmp_path: Path, name: str) -> None:
    """It is the user's to remove, and nothing has run."""
    (tmp_path / "results" / name).mkdir(parents=True)
    with pytest.raises(CommandLineError, match=rf"{name} is a folder, where a file says .*: remove it"):
        study([TRAIN], epochs=1)
    assert not (tmp_path / "t.pt.checkpoints.txt").exists()


def test_a_last_line_that_is_cut_off_is_left_out(study: Any, tmp_path: Path) -> None:
    """A kill in the middle of a line; a damaged line before it is reported, and all results count as unknown."""
    journal = killed(study, tmp_path, [TRAIN, TABLE], epochs=1)
    whole = journal.read_bytes()
    journal.write_bytes(whole[:-5])
    assert "is damaged" not in study([FIGURE], epochs=1)
    journal.write_bytes(whole.replace(b"t.table", b"t.tabla"))
    printed = study([FIGURE], epochs=1)
    assert (
        printed.count(".made_by.journal is damaged (a line is not what was written): which plan made the results") == 1
    )
    assert "made by another plan, and used as it is: t.table" in printed


def test_other_images_make_results_stale() -> None:
    """The keys of what is made from a split follow from its content, that of the split itself does not."""
    nodes = [
        Node(lambda options: options, "params:part", "t.train_split", name="pack"),
        Node(lambda split: split, "t.train_split", "t.table", name="tabulate"),
    ]
    first, second = (made_by.present_keys(nodes, lambda _: "", lambda _, d=digest: d) for digest in ("a", "b"))
    assert first["t.train_split"] == second["t.train_split"]
    assert first["t.table"] != second["t.table"]


def test_a_union_of_splits_that_are_packed_in_the_same_run_is_of_its_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A split that is made of others is noted with their content, whether hooks see it saved or another process has."""
    caplog.set_level(logging.INFO, "transferscope")
    nodes = [
        Node(lambda options: "images", "params:part", "t.train_split", name="pack"),
        Node(lambda split: split, "t.train_split", "union.train_split", name="unite"),
        Node(lambda split: split, "union.train_split", "union.table", name="tabulate"),
    ]
    monkeypatch.setattr(made_by, "pipelines", {"data_prep": Pipeline(nodes), "__default__": Pipeline(nodes)})
    monkeypatch.setattr(
        made_by, "_content_digest", lambda catalog, name: catalog.load(name) if catalog[name].exists() else ""
    )
    recorded = []
    for elsewhere in (False, True):
        folder = tmp_path / str(elsewhere)
        catalog = DataCatalog(
            {name: TextDataset(filepath=str(folder / name)) for node in nodes for name in node.outputs}
        )
        catalog["params:part"] = MemoryDataset({})
        for _ in range(2):
            caplog.clear()
            hooks, manager = made_by.MadeBy(), _create_hook_manager()
            manager.register(hooks)
            hooks.after_context_created(SimpleNamespace(project_path=folder, config_loader={"globals": {}}))  # type: ignore[arg-type]
            hooks.before_pipeline_run({}, Pipeline(nodes), catalog)
            assert "another plan" not in caplog.text
            SequentialRunner().run(Pipeline(nodes), catalog, None if elsewhere else manager)
            hooks.after_pipeline_run({}, Pipeline(nodes))
            recorded.append((folder / "data" / ".made_by.json").read_bytes())
    assert recorded == [recorded[0]] * 4


def older_copy(tmp_path: Path, name: str) -> Callable[[], None]:
    """A function that puts the entry, with its digest, back as it is now."""
    files = {path: path.read_bytes() for path in (tmp_path / f"{name}.txt", tmp_path / f".{name}.txt.sha256")}

    def put_back() -> None:
        for path, content in files.items():
            path.write_bytes(content)

    return put_back


@pytest.mark.parametrize("end", ["undisturbed", "killed", "elsewhere"])
def test_an_older_version_in_its_own_place_is_refused(study: Any, tmp_path: Path, end: str) -> None:
    """Whole by its own digest, and of the present plan before and after; made anew, all is as it was."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    put_back = older_copy(tmp_path, "t.table")
    if end == "killed":
        killed(study, tmp_path, [TRAIN, TABLE, FIGURE], epochs=2)
    else:
        study([TRAIN, TABLE, FIGURE], epochs=2, elsewhere=end == "elsewhere")
    newer = older_copy(tmp_path, "t.table")
    put_back()
    with pytest.raises(CommandLineError, match=r"^t\.table: another version than was written last, .*`kedro run --p"):
        study([FIGURE], epochs=2)
    with pytest.raises(CommandLineError, match=r"^t\.table: another version"):
        study([TABLE, FIGURE], epochs=2, only_missing=True)
    newer()
    assert "another" not in study([FIGURE], epochs=2)
    put_back()
    study([TABLE], epochs=2)
    assert "another" not in study([FIGURE], epochs=2)


def test_a_damaged_result_is_no_other_version(study: Any, tmp_path: Path) -> None:
    """One without its digest is named as damaged by its reader, with the reason."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    (tmp_path / ".t.table.txt.sha256").unlink()
    os.utime(tmp_path / "t.table.txt", (0, 0))
    with pytest.raises(DatasetError, match=r"its digest .* is missing"):
        study([FIGURE], epochs=1)


@pytest.mark.parametrize("content", [b"", b"0" * 64 + b"  t.table.txt\n"])
def test_a_digest_that_a_power_cut_or_a_bit_took_is_damage(study: Any, tmp_path: Path, content: bytes) -> None:
    """No other version: `--only-missing-outputs` makes the result again, and a reader names it."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    (tmp_path / ".t.table.txt.sha256").write_bytes(content)
    os.utime(tmp_path / "t.table.txt", (0, 0))
    with pytest.raises(DatasetError, match="its content is not what was written"):
        study([FIGURE], epochs=1)
    study([TABLE, FIGURE], epochs=1, only_missing=True)
    assert "another" not in study([FIGURE], epochs=1)


def test_a_failed_run_in_other_processes_leaves_no_last_version(study: Any) -> None:
    """They saved without a note here, so that what they saved is no older copy afterwards."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(made_by.MadeBy, "after_pipeline_run", lambda hooks, *_: hooks.on_pipeline_error())
        study([TRAIN, TABLE, FIGURE], epochs=2, elsewhere=True)
    assert "another version" not in study([FIGURE], epochs=2)


def test_missing_results_that_other_processes_make_are_no_older_ones(study: Any, tmp_path: Path) -> None:
    """Nothing is noted of them, and nothing is refused later."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    (tmp_path / "t.table.txt").unlink()
    study([TABLE, FIGURE], epochs=1, points=9, only_missing=True, elsewhere=True)
    assert "another version" not in study([FIGURE], epochs=1, points=9)


def test_the_journal_of_a_version_without_digests_is_read(study: Any, tmp_path: Path) -> None:
    """Of a run that was killed before."""
    study([TRAIN, TABLE, FIGURE], epochs=1)
    line = b"t.table unknown"
    (tmp_path / "results" / ".made_by.journal").write_bytes(line + f" {zlib.crc32(line):08x}\n".encode())
    assert "used as it is: t.table" in study([FIGURE], epochs=1)
