"""Whether one model can replace another, through Kedro: tables, figures and report of the tiny study; faults first."""

from __future__ import annotations

import pandas as pd
import pytest

from transferscope.experiment.options import ReplaceOptions
from transferscope.measure import replacement


def test_the_tables_are_those_of_the_stored_predictions(project) -> None:
    """A row per pair; the numbers of `replacement` on what `predictions` holds."""
    table = project.load("clipart.replacement.table")
    assert len(table) == len(project.load("clipart.mistakes.table"))
    row = table.set_index(["checkpoint_a", "checkpoint_b"]).loc[("clipart.pt_1@final", "clipart.rit_2@final")]
    logits = [project.load(f"clipart.{run}.predictions")["test"] for run in ("pt_1", "rit_2")]
    whole, _ = replacement(project.load("clipart.test_split"), *logits, ReplaceOptions())
    for name in ("negative_flips", "accuracy_gain_low", "kappa_p", "changed"):
        assert row[name] == pytest.approx(whole[name][0], nan_ok=True)


def test_flips_are_counted_by_the_columns_of_the_list(project) -> None:
    """Chest by sex, finding by finding; the groups add up to all images."""
    flips = project.load("chest.flips.table")
    assert set(flips["group"]) == {"all", "sex"}
    assert set(flips.loc[flips["group"] == "sex", "value"]) == {"Female", "Male"}
    keys = ["checkpoint_a", "checkpoint_b", "class_name"]
    sums = flips.groupby([*keys, "group"])["negative_flips"].sum().unstack()
    assert (sums["sex"] == sums["all"]).all()


def test_every_run_is_calibrated(project) -> None:
    """A row per run and finding, and bins that hold all its images."""
    calibration, bins = (project.load(f"chest.{name}.table") for name in ("calibration", "reliability"))
    keys = ["run", "class_name"]
    assert not calibration.duplicated(keys).any()
    held = bins.groupby(keys)["num_examples"].sum()
    pd.testing.assert_series_equal(held.sort_index(), calibration.set_index(keys)["num_examples"].sort_index())


def test_the_report_answers(project) -> None:
    """The section with its figures stands on the page."""
    page = (project.folder / "data/08_reporting/report.html").read_text()
    assert "Can the second model replace the first?" in page
    for figure in ("flips", "flip_gallery", "reliability"):
        assert (project.folder / f"data/08_reporting/clipart/{figure}.png").exists()
