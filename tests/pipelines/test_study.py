"""The whole study on a tiny plan: every pipeline, through Kedro, from drawing to report."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from transferscope.analysis.distance import l2_distance
from transferscope.framework.runners import GpuRunner
from transferscope.images.seen_images import EvaluationTransform
from transferscope.system.errors import UserError
from transferscope.training.evaluation import predict


def table(project, name: str) -> pd.DataFrame:
    return project.load(f"{name}.table")


def test_the_report_is_one_file_that_says_generated(project) -> None:
    """The report exists, loads nothing from the network, and says that the images are generated."""
    page = (project.folder / "data/08_reporting/report.html").read_text()
    assert "generated" in page.lower()
    assert 'src="http' not in page
    assert 'href="http' not in page.replace("https://doi.org", "").replace("https://arxiv.org", "")


def test_the_claims_have_their_columns_and_verdicts(project) -> None:
    """At least twelve claims, each with one of the three verdicts, and the comparisons behind each."""
    claims, effects = project.load("claims"), project.load("claim_effects")
    assert list(claims.columns[:8]) == ["id", "claim", "source", "paper", "verdict", "effect", "low", "high"]
    assert len(claims) >= 12
    assert set(claims["verdict"]) <= {"holds", "does not hold", "cannot tell"}
    counted = effects[effects["counted"]].groupby("id").size().reindex(claims["id"], fill_value=0)
    assert list(counted) == list(claims["num_comparisons"])
    # Runs of two epochs have not learned, so no claim counts them, and each says which were left out.
    assert not counted.any()
    assert "clipart.pt_1 (not learned)" in claims.set_index("id").loc["final_score", "reason"]


def test_every_run_of_the_plan_left_checkpoints_and_a_history(project) -> None:
    """Epoch 0, the kept epoch and the final one; a history row per epoch."""
    series = project.load("clipart.pt_1.checkpoints")
    assert series.epochs == (0, 1, 2)
    assert series.status == "finished"
    history = project.load("clipart.pt_1.history")
    assert list(history["epoch"]) == [0, 1, 2]


def test_best_is_chosen_on_the_validation_part(project) -> None:
    """Where a task has a validation part, `best` is the epoch of the best value on it, and the runs table says so."""
    history, series = project.load("chest.rit_1.history"), project.load("chest.rit_1.checkpoints")
    trained = history[history["epoch"] > 0]
    assert series.epoch("best") == trained.loc[trained["validation_auc"].idxmax(), "epoch"]
    runs = table(project, "chest.runs").set_index("run")
    assert runs.loc["rit_1", ["best_epoch", "chosen_on"]].tolist() == [series.epoch("best"), "validation"]


def test_what_was_drawn_is_listed(project) -> None:
    """Every example used with its row in the CSV; whole patients, so none is in two parts."""
    drawn = project.load("chest.drawn_examples")
    assert drawn["part"].value_counts().to_dict() == {"train": 30, "test": 36, "validation": 8}
    assert drawn["row"].is_unique
    assert (table(project, "chest.shared_patients")["shared_patients"] == 0).all()
    splits = table(project, "chest.splits")
    assert splits["num_examples"].tolist() == [30, 36, 8]
    assert splits["sampling"].str.startswith("by_patient").all()
    assert all(project.load(f"chest.{name}contact_sheet.figure").png.is_file() for name in ("", "test_", "validation_"))


def test_a_view_shows_another_tasks_images(project) -> None:
    """A shuffled task holds no image of its own."""
    view = project.load("clipart_shuffled.train_split")
    assert view.pictures.shuffle.block_size == 4
    assert not list((project.folder / "data/05_model_input/clipart_shuffled").rglob("*.npy"))


def test_fine_tuning_starts_from_the_pretrained_weights(project) -> None:
    """Epoch 0 of a P-T is P but for the classifier; that of an RI-T is not."""
    source = project.load("shapes.p_1.checkpoints").load("final").state_dict
    start = project.load("clipart.pt_1.checkpoints").load(0).state_dict
    body = [key for key in source if not key.startswith("fc.")]
    assert all(torch.equal(source[key], start[key]) for key in body)
    assert not torch.equal(
        source["conv1.weight"], project.load("clipart.rit_1.checkpoints").load(0).state_dict["conv1.weight"]
    )


def test_a_shared_initialisation_is_shared_and_another_is_not(project) -> None:
    """rit_same_init_1 starts where rit_1 starts, rit_2 elsewhere; all end apart."""
    states = {
        (run, epoch): project.load(f"clipart.{run}.checkpoints").load(epoch).state_dict
        for run in ("rit_1", "rit_2", "rit_same_init_1")
        for epoch in (0, "final")
    }
    assert l2_distance(states["rit_1", 0], states["rit_same_init_1", 0]) == 0
    assert l2_distance(states["rit_1", 0], states["rit_2", 0]) > 0
    assert l2_distance(states["rit_1", "final"], states["rit_same_init_1", "final"]) > 0
    distances = table(project, "clipart.distances").query("module == 'all'").set_index(["checkpoint_a", "checkpoint_b"])
    before = {key: row["l2_before"] for key, row in distances.iterrows()}
    assert before["clipart.rit_1@final", "clipart.rit_same_init_1@final"] == 0
    apart = l2_distance(states["rit_1", 0], states["rit_2", 0])
    assert before["clipart.rit_1@final", "clipart.rit_2@final"] == pytest.approx(float(apart))


def test_copies_leave_their_parent_at_the_split(project) -> None:
    """A copy has its parent's weights up to the split alone; its barriers are those of the table of all ways."""
    parent = project.load("quickdraw.rit_1.checkpoints")
    for split in (0, 1):
        copy = project.load(f"quickdraw.rit_split_e{split}_1.checkpoints")
        for epoch in (0, 1, 2):
            own, other = copy.load(epoch).state_dict, parent.load(epoch).state_dict
            assert all(torch.equal(own[key], other[key]) for key in other) == (epoch <= split)
    copies = table(project, "quickdraw.split_runs")
    ways = table(project, "quickdraw.connection")
    assert set(copies["split_epoch"]) == {0, 1}
    for row in copies.to_dict("records"):
        same = (ways["checkpoint_a"] == row["run"]) & (ways["checkpoint_b"] == row["copy"])
        same &= (ways["way"] == row["way"]) & (ways["split"] == row["split"]) & (ways["metric"] == row["metric"])
        assert ways[same]["barrier"].item() == pytest.approx(row["barrier"], nan_ok=True)
    assert (project.folder / "data/08_reporting/quickdraw/split_runs.png").is_file()
    assert "When is the basin chosen?" in project.load("report")


def test_the_ends_of_every_line_are_the_checkpoints_own_metrics(project) -> None:
    """At alpha 0 and 1 the interpolation gives exactly the final test metrics of the history."""
    lines = table(project, "clipart.interpolation")
    history = table(project, "clipart.history").set_index(["run", "epoch"])
    lines = lines[(lines["split"] == "test") & lines["alpha"].isin([0, 1])]
    assert len(lines) > 0
    for _, row in lines.iterrows():
        run = (row["checkpoint_a"] if row["alpha"] == 0 else row["checkpoint_b"]).split("@")[0].split(".")[1]
        assert row["value"] == pytest.approx(history.loc[(run, 2), f"test_{row['metric']}"], rel=1e-6)


def test_multi_label_tasks_are_judged_by_auc(project) -> None:
    """The chest task has AUC in its history and its lines, and a row of mistakes per finding."""
    assert "test_auc" in project.load("chest.pt_1.history")
    assert "auc" in set(table(project, "chest.interpolation")["metric"])
    assert set(table(project, "chest.mistakes")["class_name"]) >= {"Cardiomegaly", "Edema"}


def test_mistakes_follow_from_the_predictions(project) -> None:
    """The counts of the table are those of the stored logits."""
    split = project.load("clipart.test_split")
    rows = table(project, "clipart.mistakes").set_index(["checkpoint_a", "checkpoint_b"])
    row = rows.loc[("clipart.pt_1@final", "clipart.rit_1@final")]
    labels = torch.from_numpy(split.labels)
    a, b = (project.load(f"clipart.{run}.predictions")["test"].argmax(1) == labels for run in ("pt_1", "rit_1"))
    assert row["only_a_correct"] == int((a & ~b).sum())
    assert row["common_mistakes"] == int((~a & ~b).sum())


def test_cka_has_its_controls(project) -> None:
    """A model is like itself, and the table says how alike untrained models and permuted examples are."""
    cka = table(project, "clipart.cka")
    same = cka[(cka["pair_kind"] == "same model") & (cka["features"] == "pooled")]
    assert same["cka"].to_numpy() == pytest.approx(1)
    assert "two untrained" in set(cka["pair_kind"])
    assert cka["permuted"].notna().all()


def test_spectra_go_along_training(project) -> None:
    """Norms and ranks at every saved epoch, singular values at epoch 0 and the last; bound factors from the norms."""
    summary = table(project, "clipart.spectrum")
    values = project.load("clipart.pt_1.singular_values")
    assert set(summary[summary["run"] == "pt_1"]["epoch"]) == {0, 1, 2}
    assert set(values["epoch"]) == {0, 2}
    assert set(summary["stride"]) == {"honoured"}
    sums = summary[summary["module"] == "sum"].set_index(["run", "epoch"])["ratio"]
    factors = table(project, "clipart.bound_factors").set_index(["run", "epoch"])["sum_of_ratios"]
    pd.testing.assert_series_equal(factors.sort_index(), sums.sort_index(), check_names=False)


@pytest.mark.parametrize("task", ["clipart", "chest"])
def test_margins_are_those_of_the_training_examples(project, task: str) -> None:
    """Example by example from the logits, and the norm of the images as the network sees them."""
    split, series = project.load(f"{task}.train_split"), project.load(f"{task}.pt_1.checkpoints")
    logits = predict(series.load("final").build(), split).double().numpy()
    expected = []
    for row, label in zip(logits, np.asarray(split.labels), strict=True):
        if split.multi_label:
            expected += [value if known else -value for value, known in zip(row, label, strict=True) if known >= 0]
        else:
            expected.append(row[label] - max(np.delete(row, label)))
    factors = table(project, f"{task}.bound_factors").set_index(["run", "epoch"])
    last = series.epoch("final")
    assert factors.at[("pt_1", last), "margin"] == pytest.approx(np.percentile(expected, 5), rel=1e-4)
    assert factors.at[("pt_1", last), "margin_median"] == pytest.approx(np.median(expected), rel=1e-4)
    images = EvaluationTransform(split.pictures)(split.gather(range(len(split)))).flatten(1)
    assert factors.at[("pt_1", last), "input_norm"] == pytest.approx(float(images.norm(dim=1).max()))
    assert factors.at[("pt_1", last), "input_dimension"] == images.shape[1]
    assert np.isnan(factors.at[("pt_1", 0), "margin"])


def test_small_singular_values_are_compared_and_every_layer_has_its_panels(project) -> None:
    """The difference is that of the shares in the tables of the runs; the PDF has a page for four layers."""
    whole = table(project, "clipart.spectrum").query("module == 'all' and epoch == 2").set_index("run")
    share = whole["count_below_0.1"] / whole["num_values"]
    expected = share[["rit_1", "rit_2"]].mean() - share[["pt_1", "pt_2"]].mean()
    rows = table(project, "clipart.small_values").set_index("threshold")
    assert rows.at[0.1, "difference"] == pytest.approx(expected)
    varying = rows.dropna(subset=["low"])
    assert len(varying)
    assert varying["difference"].between(varying["low"], varying["high"]).all()
    layers = project.load("clipart.pt_1.singular_values")["module"].nunique()
    pages = project.load("clipart.layer_spectra.pages").read_bytes()
    assert pages.startswith(b"%PDF")
    assert pages.count(b"/Type /Page ") == -(-layers // 4)


def test_all_estimators_are_stated_with_their_floor(project) -> None:
    """Pooled features by three estimators, flattened ones by the one whose memory they allow."""
    cka = table(project, "clipart.cka")
    estimators = cka.groupby("features")["estimator"].unique().map(set).to_dict()
    assert estimators == {"pooled": {"biased", "debiased", "minibatch"}, "flattened": {"minibatch"}}
    opinion = table(project, "clipart.second_opinion")
    assert set(opinion["measure"]) == {"SVCCA", "Procrustes"}
    assert set(opinion["pair_kind"]) == set(cka["pair_kind"])


def test_every_block_is_compared_with_every_block(project) -> None:
    """One pair of each kind and of each control, a row for each pair of blocks; a model is at 1 on its diagonal."""
    layers = table(project, "clipart.cka_layers")
    assert set(layers["pair_kind"]) == set(table(project, "clipart.cka")["pair_kind"])
    assert (layers.groupby("pair_kind").size() == 7 * 7).all()
    same = layers[layers["pair_kind"] == "same model"]
    assert same[same["layer"] == same["layer_b"]]["cka"].to_numpy() == pytest.approx(1)


def test_layers_are_chosen_by_their_path(project) -> None:
    """A layer that does not exist is named with those that do, before any image is read."""
    options = {"analyses": {"similarity": {"layers": ["conv1", "layer9"]}}}
    with (
        project.session(params=options) as session,
        pytest.raises(
            UserError, match=r"similarity\.layers: fixup_resnet_small has no layer 'layer9': near matches are layer3"
        ),
    ):
        session.run(node_names=["clipart.similarity.measure_cka"])


def test_the_way_ends_at_the_distance_to_the_initial_weights(project) -> None:
    """0 at epoch 0, every saved epoch between, and at the end the number of Table 8."""
    way = table(project, "clipart.distance_travelled")
    way = way[(way["run"] == "clipart.pt_1") & (way["module"] == "all")].set_index("epoch")["l2"]
    ends = table(project, "clipart.distances")
    ends = ends[(ends["pair_kind"] == "P-T to init") & (ends["module"] == "all")].set_index("checkpoint_a")["l2"]
    assert list(way.index) == [0, 1, 2]
    assert way[0] == 0
    assert way[2] == ends["clipart.pt_1@final"]


def test_mistakes_are_spread_over_the_pairs_of_a_kind(project) -> None:
    """Mean and range of four P-T & RI-T pairs are those of the table of pairs."""
    pairs, spread = table(project, "clipart.mistakes"), table(project, "clipart.mistakes_spread")
    ratios = pairs[pairs["pair_kind"] == "P-T & RI-T"]["uncommon_ratio_b"]
    row = spread[(spread["pair_kind"] == "P-T & RI-T") & (spread["statistic"] == "uncommon_ratio_b")].iloc[0]
    assert row["num_pairs"] == len(ratios) == 4
    assert [row["mean"], row["min"], row["max"]] == pytest.approx([ratios.mean(), ratios.min(), ratios.max()])


def test_the_report_shows_the_new_tables(project) -> None:
    """Heat map, floor, second opinion and spread stand in the report."""
    page = (project.folder / "data/08_reporting/report.html").read_text()
    for text in ("cka heat map, clipart", "permuted examples (floor)", "SVCCA similarity", "spread over the pairs"):
        assert text in page


def test_cross_domain_lines_are_measured_on_the_task_they_name(project) -> None:
    """Figure 19 walks from a clipart to a real model and is measured on clipart."""
    lines = table(project, "cross_domain.interpolation")
    figure = lines[lines["scenario"] == "figure_19"]
    assert set(figure["task"]) == {"clipart"}
    assert set(figure["checkpoint_b"]) == {"real.pt_1@final", "real.rit_1@final"}


def test_results_refer_to_figures_that_exist(project) -> None:
    """Every figure of every task is there as PNG and PDF."""
    for task in ("clipart", "chest", "cross_domain"):
        figures = project.load(f"{task}.results").figures
        assert figures
        assert all(figure.png.is_file() and figure.pdf.is_file() for figure in figures.values())


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.suffix in {".csv", ".parquet", ".safetensors"} and path.name != "timings.csv"
    }


def test_the_same_plan_gives_the_same_bytes(project) -> None:
    """Training one run and its analysis again, from nothing, gives identical files."""
    models = project.folder / "data/06_models/clipart/rit_1"
    outputs = project.folder / "data/07_model_output/clipart"
    before = digest(models), digest(outputs)
    for path in models.iterdir():
        path.unlink()
    project.run(node_names=["clipart.training.rit_1", "clipart.mistakes.predict_rit_1"])
    project.run(pipeline_names=["mistakes"], namespaces=["clipart.mistakes"])
    assert (digest(models), digest(outputs)) == before


def test_steps_side_by_side_give_the_same_bytes(project) -> None:
    """The default runner, several steps at once, leaves what one after the other left: weights, histories, tables."""
    models, outputs = project.folder / "data/06_models/quickdraw", project.folder / "data/07_model_output/quickdraw"
    before = digest(models), digest(outputs)
    shutil.rmtree(models)
    shutil.rmtree(outputs)
    project.run(
        runner=GpuRunner(max_workers=4),
        pipeline_names=["data_prep", "training", "mistakes", "landscape"],
        namespaces=["quickdraw.data_prep", "quickdraw.training", "quickdraw.mistakes", "quickdraw.landscape"],
    )
    again = digest(models), digest(outputs)
    assert again[0] == before[0]
    assert set(again[1]) > {"mistakes.csv", "interpolation.csv", "history/pt_1.csv"}
    assert again[1].items() <= before[1].items()
    project.run(pipeline_names=["similarity", "spectrum"], namespaces=["quickdraw.similarity", "quickdraw.spectrum"])
    assert digest(outputs) == before[1]


def test_a_second_run_finds_nothing_missing(project, caplog: pytest.LogCaptureFixture) -> None:
    """`--only-missing-outputs` after a complete run starts no training and no measurement."""
    history = project.folder / "data/06_models/clipart/rit_1/series.json"
    interpolation = project.folder / "data/07_model_output/clipart/interpolation.csv"
    before = history.stat().st_mtime_ns, interpolation.stat().st_mtime_ns
    project.run(only_missing_outputs=True)
    assert (history.stat().st_mtime_ns, interpolation.stat().st_mtime_ns) == before


def test_an_analysis_refuses_checkpoints_of_another_plan(project) -> None:
    """With another number of epochs the trained runs are stale: the first is named, with what to do."""
    with (
        project.session(params={"training": {"epochs": 3}}) as session,
        pytest.raises(UserError, match=r"chest.pt_1.checkpoints: made by another plan .* train again with `kedro run"),
    ):
        session.run(pipeline_names=["mistakes"])


def test_results_of_another_plan_are_not_taken_for_what_is_there(project) -> None:
    """More epochs, only what is missing: refused before anything runs, since every checkpoint is of another plan."""
    with (
        project.session(params={"training": {"epochs": 3}}) as session,
        pytest.raises(UserError, match=r"^chest\.pt_1\.checkpoints, .* and --only-missing-outputs would keep them"),
    ):
        session.run(only_missing_outputs=True)


def test_the_times_of_all_trainings_are_in_the_report(project) -> None:
    """A row per run with its seconds; their sum stands among the provenance."""
    timings = table(project, "clipart.timings")
    assert set(timings["run"]) == set(table(project, "clipart.runs")["run"])
    assert (timings["seconds"] > 0).all()
    assert f" for {len(timings)} runs" in (project.folder / "data/08_reporting/report.html").read_text()


def test_the_tables_name_no_machine(project) -> None:
    """No result depends on where it was computed: no path of this project's folder in any table."""
    for path in (project.folder / "data/08_reporting").rglob("results/*"):
        assert str(project.folder) not in path.read_text(), path.name
    index = json.loads((project.folder / "data/08_reporting/clipart/results/results.json").read_text())
    assert index["facts"]["generated"] is True
