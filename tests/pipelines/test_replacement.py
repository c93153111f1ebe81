"""Whether one model can replace another, through Kedro: tables, figures and report of the tiny study; faults first."""

from __future__ import annotations

import pandas as pd
import pytest

from transferscope.experiment.node_parameters import Pairs, PairSpec, Runs
from transferscope.experiment.options import LookOptions, MistakesOptions, ReplaceOptions
from transferscope.experiment.plan import make_plan
from transferscope.measure import replacement
from transferscope.pipelines.mistakes import nodes
from transferscope.pipelines.mistakes.pipeline import create_pipeline


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


def test_tables_of_runs_that_stopped_early_are_those_of_the_images_that_they_saw(project) -> None:
    """One node predicts all runs of a task; a pair is compared on what both have seen, a run alone on all it has seen."""
    with project.session() as session:
        parameters = session.load_context().params
    study = make_plan(parameters["plan"]["study"]).study
    whole_pipeline = create_pipeline(make_plan(study))
    stopping = study.model_dump(mode="json", by_alias=True, exclude_unset=True)
    stopping["analyses"]["mistakes"]["until_decided"] = {"first": 16}
    pipeline = create_pipeline(make_plan(stopping))
    of_task = {node.namespace for node in whole_pipeline.nodes if node.short_name.startswith("predict_")}
    predicting = [node.name for node in pipeline.nodes if "predict" in node.name]
    assert sorted(predicting) == sorted(f"{namespace}.predict_until_decided" for namespace in of_task)
    assert pipeline.all_outputs() == whole_pipeline.all_outputs()

    runs = {name: project.load(f"clipart.{name}.checkpoints") for name in ("pt_1", "pt_2", "rit_1")}
    split = project.load("clipart.test_split")
    options = MistakesOptions(until_decided=LookOptions(first=16), replace=ReplaceOptions(margin=0.9))
    pairs = [PairSpec.model_validate(one) for name, one in parameters["plan"]["pairs"]["clipart"].items()
             if name in ("pt_1__pt_2", "pt_1__rit_1")]  # fmt: skip
    assert len(pairs) == 2
    series = {f"clipart.{name}": one for name, one in runs.items()}
    predictions = dict(
        zip(runs, nodes.predict_until_decided(Pairs(tuple(pairs)), split, options, **series), strict=True)
    )
    assert {len(one["rows"]) for one in predictions.values()} == {16}  # with such a margin all may replace all
    predictions["rit_1"] = {name: values[:12] for name, values in predictions["rit_1"].items()}
    whole, flips = nodes.replace_pair(pairs[-1], predictions["pt_1"], predictions["rit_1"], split, options)
    rows = predictions["rit_1"]["rows"].numpy()
    alone, own = replacement(
        split.subset(rows), predictions["pt_1"]["test"][:12], predictions["rit_1"]["test"], options.replace
    )
    assert flips.loc[0, "num_examples"] == 12
    assert flips["negative_flips"].tolist() == own["negative_flips"].tolist()
    assert whole["changed"].tolist() == alone["changed"].tolist()
    mistakes = nodes.compare_pair(pairs[-1], predictions["pt_1"], predictions["rit_1"], split, options)
    assert mistakes["num_examples"].tolist() == [12]
    every = Runs.model_validate(parameters["plan"]["runs_of"]["clipart"])
    calibration, _ = nodes.calibrate_runs(every, split, options, **predictions)
    assert calibration.set_index("run")["num_examples"].to_dict() == {"pt_1": 16, "pt_2": 16, "rit_1": 12}


def test_figures_of_a_series_get_the_names_of_its_files() -> None:
    """Bars of mistakes and panels of flips tell the files of one label apart by the ends of their paths."""
    files = {"label": "m", "tasks": ["images"], "initialisation": "checkpoint", "checkpoints": ["e/1.pth", "e/2.pth"]}
    analyses = dict.fromkeys(("similarity", "landscape", "spectrum")) | {"mistakes": {"pairs": [["m", "m"]]}}
    tasks = {"images": {"format": "image_folder", "root": "images"}}
    pipeline = create_pipeline(make_plan({"tasks": tasks, "runs": {"m": files}, "analyses": analyses}))
    drawing = {node.short_name: node.func for node in pipeline.nodes}
    for name in ("draw_mistakes", "draw_flips"):
        assert drawing[name].options["names"] == {"images.m_1": "1", "images.m_2": "2"}
