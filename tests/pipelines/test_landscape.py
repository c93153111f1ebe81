"""What landscape measures: through its own functions on the tiny study's images and models."""

from __future__ import annotations

import itertools
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.analysis.criticality import criticality
from transferscope.analysis.distance import l2_distance
from transferscope.analysis.evaluator import prepare
from transferscope.analysis.interpolation import interpolate
from transferscope.analysis.learning import loss_without_knowledge
from transferscope.analysis.module_criticality import module_criticality
from transferscope.datasets.measurements import MeasurementFolder
from transferscope.experiment.node_parameters import PairSpec
from transferscope.experiment.options import BasinOptions, CriticalityOptions, LandscapeOptions
from transferscope.experiment.run import RunSpec
from transferscope.experiment.seeds import derive_seed
from transferscope.measure.bench import Bench, batches, feed_of, stream
from transferscope.measure.criticalities import criticality as criticality_of
from transferscope.measure.criticalities import rewinding
from transferscope.measure.lines import line
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.models.modules import find_modules
from transferscope.models.series import CheckpointSeries
from transferscope.models.zoo import build_model
from transferscope.pipelines.landscape.nodes import interpolate_pair, measure_basin
from transferscope.system.errors import UserError
from transferscope.training.evaluation import evaluate

POINTS = ["split", "metric", "alpha"]


def splits_of(project: Any, task: str) -> dict[str, Any]:
    return {part: project.load(f"{task}.{part}_split") for part in ("train", "test")}


Ends = tuple[Checkpoint, Checkpoint]


def ends_of(
    project: Any, task: str = "clipart", runs: tuple[str, str] = ("pt_1", "rit_1"), epoch: Any = "final"
) -> Ends:
    a, b = (project.load(f"{task}.{run}.checkpoints").load(epoch) for run in runs)
    return a, b


def bench_of(project: Any, task: str = "clipart", store: Any = None, resamples: int = 20) -> Bench:
    return Bench(splits_of(project, task), {} if store is None else store, resamples=resamples)


class Counting(dict[str, Any]):
    """A store that counts what is put into it, and fails from one put on."""

    def __init__(self, fails_at: int = 10**9) -> None:
        self.puts, self.fails_at = 0, fails_at

    def __setitem__(self, key: str, value: Any) -> None:
        if self.puts == self.fails_at:
            raise KeyboardInterrupt
        self.puts += 1
        super().__setitem__(key, value)


@pytest.mark.parametrize("epoch", ["best", "final"])
@pytest.mark.parametrize(("task", "metrics"), [("clipart", ("accuracy", "loss")), ("chest", ("auc", "loss"))])
def test_ends_are_the_checkpoints_own_metrics(project, task: str, metrics: tuple[str, ...], epoch: str) -> None:
    """On train and test, at alpha 0 and 1, best and final: the history's row, scores exactly, losses but for rounding."""
    points, _ = line(bench_of(project, task), *ends_of(project, task, epoch=epoch), (0, 1))
    metrics_at = points.set_index(POINTS)["value"]
    for alpha, run in ((0.0, "pt_1"), (1.0, "rit_1")):
        history = project.load(f"{task}.{run}.history").set_index("epoch")
        row = history.loc[project.load(f"{task}.{run}.checkpoints").epoch(epoch)]
        for metric in metrics:
            assert metrics_at["test", metric, alpha] == pytest.approx(
                row[f"test_{metric}"], rel=1e-6 * (metric == "loss"), abs=0
            )
        name = "train_loss_eval" if "train_loss_eval" in row else "train_loss"
        assert metrics_at["train", "loss", alpha] == pytest.approx(row[name], rel=1e-6)


def test_barriers_have_intervals_over_examples(project) -> None:
    """Each curve has one row whose interval holds its barrier; without intervals it is the largest gap."""
    ends = ends_of(project, "chest")
    points, barriers = line(bench_of(project, "chest"), *ends, (0, 0.5, 1))
    assert len(barriers) == 6  # two parts, three metrics
    assert (barriers["barrier_low"] <= barriers["barrier"]).all()
    assert (barriers["barrier"] <= barriers["barrier_high"]).all()
    plain_points, plain = line(bench_of(project, "chest", resamples=0), *ends, (0, 0.5, 1))
    pd.testing.assert_frame_equal(points, plain_points)
    assert plain["barrier"].tolist() == plain["largest_gap"].tolist() == barriers["largest_gap"].tolist()
    assert plain["barrier_low"].isna().all()


def test_a_rerun_with_more_alphas_measures_only_the_new_ones(project) -> None:
    """Twice two parts at first, two more for the new point, and the table is that of one run over all."""
    ends, store = ends_of(project), Counting()
    line(bench_of(project, store=store), *ends, (0, 1))
    assert store.puts == 4
    points, barriers = line(bench_of(project, store=store), *ends, (0, 0.5, 1), outside=(-1,))
    assert store.puts == 7  # the middle on train and test, the point outside on test
    fresh = line(bench_of(project), *ends, (0, 0.5, 1), outside=(-1,))
    pd.testing.assert_frame_equal(points, fresh[0])
    pd.testing.assert_frame_equal(barriers, fresh[1])


def test_a_killed_walk_goes_on_where_it_was(project, tmp_path: Path) -> None:
    """What was measured before the kill lies on disk and is not measured again; the result is the same."""
    ends, killed = ends_of(project), Counting(fails_at=3)
    with pytest.raises(KeyboardInterrupt):
        line(bench_of(project, store=killed), *ends, (0, 0.5, 1))
    folder = MeasurementFolder(tmp_path)
    for key, value in killed.items():
        folder[key] = value
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    resumed, _ = line(bench_of(project, store=folder), *ends, (0, 0.5, 1))
    assert len(list(tmp_path.rglob("*.safetensors"))) == 6
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    pd.testing.assert_frame_equal(resumed, line(bench_of(project), *ends, (0, 0.5, 1)).points)


def test_other_examples_and_other_settings_are_measured_anew(project) -> None:
    """Memory is by content: another split, another number of resamples or another architecture finds nothing."""
    splits, store = splits_of(project, "clipart"), Counting()
    checkpoint = project.load("clipart.pt_1.checkpoints").load("final")
    model = prepare(checkpoint.build())
    other = Checkpoint(checkpoint.state_dict, CheckpointMetadata(architecture="another"))
    for made, part, resamples in (
        (checkpoint, "test", 0), (checkpoint, "train", 0), (checkpoint, "test", 5), (other, "test", 0), (checkpoint, "test", 0),
    ):  # fmt: skip
        Bench({"x": splits[part]}, store, resamples=resamples).metrics(made)(model)
    assert store.puts == 4


def test_a_last_image_goes_with_the_batch_before(project) -> None:
    """BatchNorm cannot take statistics of one."""
    sizes = [len(images) for images, _ in stream(feed_of(project.load("clipart.test_split")), size=13)]
    assert sizes == [13, 13, 14]


@pytest.fixture(scope="module")
def batchnorm_ends(project) -> Ends:
    """Two torchvision networks with BatchNorm layers, whose statistics are those of the training images."""
    ends = []
    train = project.load("clipart.train_split")
    for seed in (1, 2):
        model = build_model("shufflenet_v2_x0_5", train.num_classes, seed=seed)
        recompute_statistics(model, lambda: stream(feed_of(train)))
        metadata = CheckpointMetadata(architecture="shufflenet_v2_x0_5", num_classes=train.num_classes)
        ends.append(Checkpoint(model.state_dict(), metadata))
    return ends[0], ends[1]


def test_batchnorm_statistics_are_recomputed_at_every_point(project, batchnorm_ends: Ends) -> None:
    """The ends too; beside it stands what the checkpoint's own, or the interpolated, statistics give."""
    splits, bench = splits_of(project, "clipart"), bench_of(project, resamples=0)
    points, barriers = line(bench, *batchnorm_ends, (0, 0.5, 1))
    metrics_at = points.set_index(POINTS)["value"]
    states = [checkpoint.state_dict for checkpoint in batchnorm_ends]
    model = prepare(batchnorm_ends[0].build())

    def measured(state: dict[str, torch.Tensor], recompute: bool = False) -> Any:
        model.load_state_dict(state)
        if recompute:
            recompute_statistics(model, lambda: stream(feed_of(splits["train"])))
        return Bench(splits).metrics(batchnorm_ends[0])(model)

    for alpha, state in ((0.0, states[0]), (0.5, interpolate(*states, 0.5)), (1.0, states[1])):
        assert metrics_at["test", "naive_loss", alpha] == measured(state)["test/loss"]
        assert metrics_at["test", "loss", alpha] == measured(state, recompute=True)["test/loss"]
    assert metrics_at["test", "loss", 0.5] != metrics_at["test", "naive_loss", 0.5]
    assert set(barriers["metric"]) == {"accuracy", "loss", "naive_accuracy", "naive_loss"}


def test_a_batchnorm_network_against_itself_has_no_barrier(project, batchnorm_ends: Ends) -> None:
    """Neither with its own statistics nor with recomputed ones, though these two differ."""
    shifted = batchnorm_ends[0].build()
    shifted.state_dict()["conv1.1.running_mean"].add_(0.5)
    same = Checkpoint(shifted.state_dict(), batchnorm_ends[0].metadata)
    points, barriers = line(bench_of(project, resamples=0), same, same, (0, 0.3, 0.5, 1))
    assert (barriers["barrier"] == 0).all()
    assert (barriers["midpoint_gain"] == 0).all()
    metrics_at = points.set_index(POINTS)["value"]
    assert metrics_at["test", "loss", 0.0] != metrics_at["test", "naive_loss", 0.0]


def test_batchnorm_paths_are_remembered_too(project, batchnorm_ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second walk makes no pass at all, not even to recompute statistics."""
    bench = bench_of(project, store=Counting())
    first, _ = line(bench, *batchnorm_ends, (0, 0.5, 1))
    monkeypatch.setattr("transferscope.measure.bench.stream", lambda *_: pytest.fail("a pass was made"))
    again, _ = line(bench, *batchnorm_ends, (0, 0.5, 1))
    pd.testing.assert_frame_equal(first, again)


def test_batchnorm_paths_with_other_intervals_are_measured_anew(project, batchnorm_ends: Ends) -> None:
    """Values with 20 resamples do not fit those without."""
    store = Counting()
    line(bench_of(project, store=store), *batchnorm_ends, (0, 0.5, 1))
    points, _ = line(bench_of(project, store=store, resamples=0), *batchnorm_ends, (0, 0.5, 1))
    fresh, _ = line(bench_of(project, resamples=0), *batchnorm_ends, (0, 0.5, 1))
    pd.testing.assert_frame_equal(points, fresh)


def test_a_line_may_go_from_best_to_final(project) -> None:
    """The paper's Figures 14 and 15 have such pairs; each end has its own checkpoint's metrics."""
    given = {"ends": ["final", ["best", "final"]], "alphas": {"at": (0, 1)}, "resamples": 0, "extrapolation": None}
    chosen = LandscapeOptions.model_validate(given)
    assert chosen.end_points() == [("final", "final"), ("best", "final")]
    splits = splits_of(project, "clipart")
    first, second = (project.load(f"clipart.{run}.checkpoints") for run in ("pt_1", "rit_1"))
    spec = PairSpec(kind="x", run_a=first.name, run_b=second.name, label_a="a", label_b="b")
    points, barriers = interpolate_pair(
        spec, replace(first, best=1), second, splits["train"], splits["test"], chosen, "float32", False, {}
    )
    names = set(barriers["checkpoint_a"] + " " + barriers["checkpoint_b"])
    assert names == {"clipart.pt_1@final clipart.rit_1@final", "clipart.pt_1@best clipart.rit_1@final"}
    points = points[points["checkpoint_a"] == "clipart.pt_1@best"]
    accuracy = points[(points["metric"] == "accuracy") & (points["split"] == "test")].set_index("alpha")["value"]
    for alpha, run, epoch in ((0, "pt_1", 1), (1, "rit_1", 2)):
        model = project.load(f"clipart.{run}.checkpoints").load(epoch).build()
        assert accuracy[alpha] == evaluate(model, splits["test"])["accuracy"]


def test_ends_of_different_shape_are_refused_by_tensor(project) -> None:
    """A line from ten classes to five findings lists the tensors that differ."""
    first, _ = ends_of(project)
    with pytest.raises(UserError, match=r"fc.weight \(10, \d+\) in checkpoint a but \(5, \d+\) in checkpoint b"):
        line(bench_of(project), first, project.load("chest.pt_1.checkpoints").load("final"), (0, 1))


def crit(**changes: Any) -> CriticalityOptions:
    given = {"positions": {"points": 2}, "sigmas": (0.0, 0.1), "draws": 1, "max_examples": 16}
    return CriticalityOptions.model_validate(given | changes)


def modules(series: CheckpointSeries, splits: Any, chosen: CriticalityOptions, store: Any, **how: Any) -> Any:
    bench, parts = Bench(splits, store), find_modules(series.load("final").build(), **how)
    noise, mu = criticality_of(bench.limited(chosen.max_examples), series, parts, chosen)
    return noise, mu, rewinding(bench, series, parts, chosen.rewind_epochs)


def test_modules_of_ones_own(project) -> None:
    """Groups of tensors are moved and set back together; a group of the same name with other tensors is another."""
    splits, series = splits_of(project, "clipart"), project.load("clipart.pt_1.checkpoints")
    store, chosen = Counting(), crit(paths=("direct",))
    groups = {"body": ("conv1", "bias1", "layer*"), "head": ("bias2", "fc")}
    disturbed, mu, back = modules(series, splits, chosen, store, groups=groups)
    assert list(mu["module"]) == ["body", "head"]
    assert set(back["module"]) == {"none", "body", "head"}
    initial, final = (series.load(epoch).state_dict for epoch in (0, "final"))
    moved = [(final[key] - initial[key]).square().sum() for key in final if not key.startswith(("bias2", "fc"))]
    start = disturbed[(disturbed["module"] == "body") & (disturbed["position"] == 1)]["distance"]
    assert start.to_numpy() == pytest.approx(float(sum(moved)) ** 0.5, rel=1e-5)
    groups = {"body": ("conv1", "bias1", "layer*", "bias2"), "head": ("fc",)}
    before = store.puts
    modules(series, splits, chosen, store, groups=groups)
    assert store.puts > before


def test_criticality_is_remembered_case_by_case(project) -> None:
    """With another sigma only its cases are measured; all rows are those of `criticality` over all modules at once."""
    splits, series = splits_of(project, "clipart"), project.load("clipart.pt_1.checkpoints")
    store, grid = Counting(), {"paths": ("direct",), "max_examples": None}
    modules(series, splits, crit(**grid), store)
    first = store.puts
    table, *_ = modules(series, splits, crit(**grid, sigmas=(0.0, 0.1, 0.2)), store)
    model = prepare(series.load("final").build())
    parts = find_modules(model)
    assert store.puts - first == 2 * len(parts)
    whole = criticality(
        model, series.load(0).state_dict, series.load("final").state_dict, parts,
        {part: batches(split) for part, split in splits.items()},
        alphas=(0.0, 1.0), sigmas=(0.0, 0.1, 0.2), num_draws=1, seed=derive_seed(series.name, "criticality"),
    )  # fmt: skip
    keys = ["module", "split", "position", "sigma", "draw"]
    both = table.merge(whole, on=keys, suffixes=("", "_whole"))
    assert len(both) == len(table) == len(whole)
    for column in ("distance", "loss", "error"):
        np.testing.assert_allclose(both[column], both[f"{column}_whole"], rtol=1e-4, atol=1e-6)


def test_places_that_both_paths_pass_are_measured_once(project) -> None:
    """The paths share their ends: with the store of one, the other measures only what lies between, and says the same."""
    splits, series = splits_of(project, "clipart"), project.load("clipart.pt_1.checkpoints")
    both = crit(paths=("direct", "optimization"), max_examples=None)
    shared, direct, apart = Counting(), Counting(), Counting()
    table, mu, _ = modules(series, splits, both, shared)
    alone = [modules(series, splits, crit(paths=(path,), max_examples=None), store)
             for path, store in (("direct", direct), ("optimization", apart))]  # fmt: skip
    cases = {path: table[table["path"] == path].drop_duplicates(["module", "position", "sigma"]) for path in both.paths}
    at_ends = 2 * len(cases["direct"]["module"].unique()) * len(both.sigmas)
    assert len(cases["direct"]) == at_ends
    assert direct.puts + apart.puts - shared.puts >= at_ends
    for measured, index in ((table, 0), (mu, 1)):
        expected = pd.concat([tables[index] for tables in alone], ignore_index=True)
        pd.testing.assert_frame_equal(measured, expected)


def test_the_four_paths_are_chosen(project) -> None:
    """Paths times ends; each mu is held against the unperturbed loss of its own end and what that has learned."""
    splits, series = splits_of(project, "clipart"), project.load("clipart.rit_1.checkpoints")
    series = replace(series, best=1)
    chosen = crit(paths=("direct", "optimization"), ends=("best", "final"), max_examples=None)
    disturbed, mu, _ = modules(series, splits, chosen, {})
    paths = set(itertools.product(("direct", "optimization"), ("best", "final")))
    for table in (disturbed, mu):
        assert set(table[["path", "end"]].itertuples(index=False, name=None)) == paths
    for path, end in paths:
        measured = disturbed[(disturbed["path"] == path) & (disturbed["end"] == end)]
        own = evaluate(series.load(end).build(), splits["train"])["loss"]
        learned = loss_without_knowledge(np.asarray(splits["train"].labels)) - own
        expected = module_criticality(measured, [own + chosen.epsilon_share * learned]).set_index("module")["mu"]
        if learned <= 0:  # there is no rise that would be a share of what was learned
            expected = expected * np.nan
        measured_mu = mu[(mu["path"] == path) & (mu["end"] == end)].set_index("module")["mu"]
        np.testing.assert_array_equal(measured_mu, expected)


def test_modules_go_back_to_any_saved_epoch(project) -> None:
    """Rows for every epoch asked for; an epoch that was not saved is named with those that were."""
    splits, series = splits_of(project, "clipart"), project.load("clipart.pt_1.checkpoints")
    *_, back = modules(series, splits, crit(paths=("direct",), rewind_epochs=(0, 1)), {})
    assert set(back["epoch"]) == {-1, 0, 1}
    with pytest.raises(UserError, match="no checkpoint of epoch 9: there are 0, 1, 2"):
        modules(series, splits, crit(paths=("direct",), rewind_epochs=(9,)), {})


def test_the_models_of_a_plane_have_their_own_metrics(project) -> None:
    """P (epoch 0 of a P-T) at the origin, the second on the x axis at its distance, each with its history's metrics."""
    table = project.load("clipart.planes.table")
    assert len(table[table["checkpoint"].isna()]) == 2 * 9
    marked = table[table["checkpoint"].notna()].pivot(index="checkpoint", columns="metric", values=["x", "y", "value"])
    series = project.load("clipart.pt_1.checkpoints")
    assert tuple(marked.loc["clipart.pt_1@0", [("x", "loss"), ("y", "loss")]]) == (0, 0)
    distance = l2_distance(series.load(0).state_dict, series.load("final").state_dict)
    assert marked.loc["clipart.pt_1@final", ("x", "loss")] == pytest.approx(distance)
    history = project.load("clipart.pt_1.history").set_index("epoch")
    for name, epoch in (("clipart.pt_1@0", 0), ("clipart.pt_1@final", 2)):
        assert marked.loc[name, ("value", "accuracy")] == history.loc[epoch, "test_accuracy"]
        assert marked.loc[name, ("value", "loss")] == pytest.approx(history.loc[epoch, "test_loss"], rel=1e-6)


def test_the_basin_says_what_it_sampled(project) -> None:
    """A hull for P-T and one for RI-T, with sizes, distance, and a length tried that is a fraction of it."""
    table = project.load("clipart.basin.table").set_index(["hull", "quantity"])
    assert set(table.index.get_level_values("hull")) == {"P-T", "RI-T"}
    states = [project.load(f"clipart.rit_{number}.checkpoints").load("final").state_dict for number in (1, 2)]
    assert table.loc[("RI-T", "distance"), "value"] == pytest.approx(l2_distance(*states))
    noise, rays = (table.loc[("RI-T", name)].reset_index() for name in ("noise", "ray"))
    assert noise["length"].iloc[0] == 0  # the rim itself
    assert (noise["length"] - l2_distance(*states) / 2).abs().min() < 1e-6
    assert noise["length"].tolist() == rays["length"].tolist()
    assert (table.loc[("RI-T", "mu"), "num_samples"], set(rays["num_samples"])) == (3, {2})
    assert rays["threshold"].to_numpy() == pytest.approx(2 * table.loc[("RI-T", "epsilon"), "value"])
    assert table.loc[("RI-T", "epsilon"), "low"] < table.loc[("RI-T", "epsilon"), "high"]


def test_no_label_moves_the_points_of_a_hull(project) -> None:
    """The hull of a study with another label is the stored one but for its name."""
    run = RunSpec.model_validate(project.load("params:plan.runs.clipart.rit_1"))
    options = BasinOptions.model_validate(project.load("params:plan.basin"))
    series = [project.load(f"clipart.rit_{number}.checkpoints") for number in (1, 2)]
    splits = splits_of(project, "clipart")
    renamed = run.model_copy(update={"label": "RI"})
    table = measure_basin(renamed, splits["train"], splits["test"], options, "float32", False, {}, *series)
    pd.testing.assert_frame_equal(
        table.drop(columns="hull"), project.load("clipart.rit.basin").drop(columns="hull"), check_dtype=False
    )


def test_all_modules_are_pages_of_one_file(project) -> None:
    """The PDF has a page for every module of the run, where pages are asked for."""
    with project.session(params={"analyses": {"landscape": {"criticality": {"pages": True}}}}) as session:
        session.run(node_names=["clipart.landscape.draw_criticality_pages_pt_1"])
    path = project.load("clipart.criticality_pt_1.pages")
    pages = re.findall(rb"/Type /Page\b", path.read_bytes())
    assert len(pages) == project.load("clipart.criticality.table")["module"].nunique()


def test_every_scenario_is_in_the_summary(project) -> None:
    """Within each task and across domains; means are those of the tables of pairs."""
    summary = project.load("cross_domain.barrier_summary.table")
    assert {"within", "figure_19"} <= set(summary["scenario"])
    assert {"clipart", "real", "quickdraw", "chest"} <= set(summary["task"])
    keys = {"split": "test", "pair_kind": "P-T & RI-T", "metric": "accuracy"}
    barriers = project.load("clipart.barriers.table")
    own = barriers[(barriers[list(keys)] == pd.Series(keys)).all(axis=1)]
    keys |= {"scenario": "within", "task": "clipart"}
    row = summary[(summary[list(keys)] == pd.Series(keys)).all(axis=1)].iloc[0]
    assert (row["pairs"], row["mean"]) == (len(own), pytest.approx(own["barrier"].mean()))


def test_the_report_shows_what_goes_beyond_the_paper(project) -> None:
    """Sections, figures and tables of all barriers, the basin and the plane."""
    page = (project.folder / "data/08_reporting/report.html").read_text()
    for section in ("all_barriers", "basin", "planes"):
        assert f'<h3 id="{section}">' in page
    assert "Ours: every scenario, test" in page
    assert "P-T of real, clipart and quickdraw" in page
    assert "best of the grid" in page
