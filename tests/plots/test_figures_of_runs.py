"""What single figures show, by hand."""

from __future__ import annotations

from itertools import combinations, pairwise

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import QuadMesh
from matplotlib.patches import Rectangle

from transferscope.experiment.pairs import pair_kind, start_kind
from transferscope.plots import (
    barriers,
    cka,
    criticality,
    curves,
    distances,
    images,
    labels,
    mistakes,
    planes,
    replacement,
    spectrum,
    speed,
)
from transferscope.plots.marks import cell_edges
from transferscope.plots.roles import labelled
from transferscope.plots.style import LOOKS, looks_for
from transferscope.system.errors import UserError


def legend_texts(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def long_lines(ax, colour=None):
    return [line for line in ax.lines if len(line.get_xdata()) > 2 and colour in (None, line.get_color())]


def test_learning_curves_have_a_line_for_each_kind_and_rate(drawn):
    """Two replicas are one line; both learning rates of a kind share its colour and differ in their dash."""
    slow = drawn.history(runs=("rit_small_lr_1",)).assign(lr=0.01)
    figure = curves.learning_curves(pd.concat([drawn.history(), slow]))
    assert legend_texts(figure) == ["P-T, lr 0.01", "RI-T, lr 0.01", "RI-T, lr 0.05", "best epoch (test)"]
    for ax in figure.axes:
        assert len(long_lines(ax)) == 3
        dashes = {line.get_linestyle() for line in long_lines(ax, LOOKS["from_scratch",].colour)}
        assert dashes == {"-", "--"}


def test_the_star_is_the_best_epoch_of_a_replica(drawn):
    """On the test panel: one star a replica, at its largest test metric (smallest loss)."""
    history = drawn.history(runs=("pt_1",))
    best = history.loc[history["test_accuracy"].idxmax()]
    stars = [line for line in curves.learning_curves(history).axes[0].lines if line.get_marker() == "*"]
    assert [(*star.get_xdata(), *star.get_ydata()) for star in stars] == [(best["epoch"], best["test_accuracy"])]
    loss = curves.learning_curves(history, metric="loss").axes[0]
    assert [line.get_xdata()[0] for line in loss.lines if line.get_marker() == "*"] == [15]


def test_a_run_without_a_validation_metric_has_no_star(drawn):
    """A checkpoint file beside runs whose best epoch was chosen there, or an AUC of one value only."""
    figure = curves.learning_curves(drawn.history().assign(validation_accuracy=np.nan))
    assert not [line for ax in figure.axes for line in ax.lines if line.get_marker() == "*"]


def test_a_diverged_run_ends_in_a_cross(drawn):
    """At its last finite value; epochs that were not evaluated are no divergence."""
    history = drawn.history(runs=("rit_1",))
    history.loc[history["epoch"] % 2 == 1, ["test_accuracy", "train_accuracy"]] = np.nan
    assert not [line for line in curves.learning_curves(history).axes[0].lines if line.get_marker() == "X"]
    history.loc[history["epoch"] > 8, ["train_loss", "test_accuracy", "train_accuracy"]] = np.nan
    crosses = [line for line in curves.learning_curves(history).axes[0].lines if line.get_marker() == "X"]
    assert [cross.get_xdata()[0] for cross in crosses] == [8]


def test_a_checkpoint_file_is_drawn_though_it_has_no_learning_rate(drawn):
    """Its one epoch is a point, and its kind alone is its name."""
    figure = curves.learning_curves(drawn.history(runs=("pt_1",), epochs=0).assign(lr=np.nan))
    assert legend_texts(figure)[0] == "P-T"
    assert len(figure.axes[1].lines[0].get_xdata()) == 1


def test_optimization_speed_has_a_row_for_each_kind_and_rate(drawn):
    """A point a replica in its kind's colour, a tick at their mean; a diverged one is a cross that counts in no mean."""
    runs = drawn.runs()
    runs.loc[runs["run"] == "rit_2", "status"] = "diverged"
    ax = speed.optimization_speed(runs).axes[0]
    names = [text.get_text() for text in ax.get_yticklabels()]
    assert names == ["P-T, lr 0.01", "P-T, lr 0.05", "RI-T, lr 0.01", "RI-T, lr 0.05"]
    marks = {(names[round(y)], line.get_marker()): line.get_xdata() for line in ax.lines for y in line.get_ydata()[:1]}
    value = runs.set_index("run")["optimization_speed"]
    assert list(marks["P-T, lr 0.01", LOOKS["fine_tuned",].marker]) == [value["pt_1"], value["pt_2"]]
    assert list(marks["P-T, lr 0.01", "|"]) == pytest.approx([(value["pt_1"] + value["pt_2"]) / 2])
    assert list(marks["RI-T, lr 0.05", "X"]) == [value["rit_2"]]
    assert list(marks["RI-T, lr 0.05", "|"]) == [value["rit_1"]]
    points = [line for line in ax.lines if line.get_marker() == LOOKS["from_scratch",].marker]
    assert {line.get_color() for line in points} == {LOOKS["from_scratch",].colour}


def test_a_run_that_diverged_at_once_keeps_its_row(drawn):
    """It has no speed: a word stands in the place of its point."""
    runs = drawn.runs()
    lost = runs["run"] == "rit_small_lr_1"
    runs = runs.assign(status=np.where(lost, "diverged", "finished")).assign(
        optimization_speed=runs["optimization_speed"].mask(lost)
    )
    ax = speed.optimization_speed(runs).axes[0]
    assert [text.get_text() for text in ax.get_yticklabels()][2] == "RI-T, lr 0.01"
    assert [(text.get_text(), text.get_position()[1]) for text in ax.texts] == [("diverged in the first epoch", 2)]


def test_barriers_draw_train_dashed_and_test_solid(drawn):
    """Three kinds of pair on two splits are six curves, in the colours of the kinds."""
    figure = barriers.barrier_panels(drawn.interpolation())
    for kind in drawn.kinds:
        assert {line.get_linestyle() for line in long_lines(figure.axes[0], looks_for([kind])[kind].colour)} == {
            "-",
            "--",
        }
    assert legend_texts(figure) == [*drawn.kinds, "test", "train"]


def test_the_line_is_the_mean_over_pairs_and_the_band_their_range(drawn):
    """Two pairs with values v and v + 0.2."""
    table = drawn.interpolation(kinds=("P-T & P-T",), splits=("test",), metrics=("accuracy",))
    second = table["checkpoint_b"].str.contains("_2")
    table["value"] = np.where(second, 0.7, 0.5)
    ax = barriers.barrier_panels(table).axes[0]
    assert long_lines(ax)[0].get_ydata() == pytest.approx(0.6)
    heights = ax.collections[0].get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == pytest.approx((0.5, 0.7))


@pytest.mark.parametrize(("alphas", "shaded"), [(np.linspace(0, 1, 5), 0), (np.linspace(-1, 2, 7), 1)])
def test_only_extrapolation_is_shaded(alphas, shaded, drawn):
    """The shade covers [0, 1]."""
    ax = barriers.barrier_panels(drawn.interpolation(alphas=alphas)).axes[0]
    spans = [patch for patch in ax.patches if isinstance(patch, Rectangle)]
    assert [(span.get_x(), span.get_width()) for span in spans] == [(0, 1)] * shaded


def test_best_and_final_have_panels_of_their_own(drawn):
    """Two combinations of epochs, two titles, one legend."""
    table = drawn.interpolation(ends=(("final", "final"), ("best", "best")))
    figure = barriers.barrier_panels(table)
    assert [ax.get_title() for ax in figure.axes] == ["clipart, final & final", "clipart, best & best"]


def test_cross_domain_shows_accuracy_left_and_loss_right(drawn):
    """The title says what the models were trained on and what they are measured on."""
    figure = barriers.cross_domain_panels(drawn.interpolation(trained_on=("quickdraw", "real")))
    assert [ax.get_ylabel() for ax in figure.axes] == ["accuracy", "loss (nats/example)"]
    assert figure.get_suptitle() == "quickdraw → real, on clipart"
    assert "0: trained on quickdraw, 1: on real" in figure.axes[0].get_xlabel()


def test_barrier_heights_has_a_dot_for_every_pair():
    """Two scenarios of two pairs, one colour a kind."""
    rows = [
        {
            "scenario": scenario,
            "task": "real",
            "split": "test",
            "pair_kind": kind,
            "metric": "accuracy",
            "barrier": height,
        }
        for scenario in ("within", "figure_19")
        for kind, height in (("P-T & P-T", -0.01), ("RI-T & RI-T", 0.6))
    ]
    figure = barriers.barrier_heights(pd.DataFrame(rows), note="generated images")
    figure.draw_without_rendering()
    dots = [line for line in figure.axes[0].lines if line.get_linestyle() == "None"]
    assert [sorted(line.get_xdata()) for line in dots] == [[-0.01, -0.01], [0.6, 0.6]]
    assert [tick.get_text() for tick in figure.axes[0].get_yticklabels()] == ["real", "figure 19, real"]


@pytest.mark.parametrize(
    ("metrics", "shown"),
    [({"real": "accuracy"}, "accuracy"), ({"chest": "auc"}, "AUC"), ({"real": "accuracy", "chest": "auc"}, "accuracy or AUC")],
)  # fmt: skip
def test_barrier_heights_names_the_metric_that_tasks_are_judged_by(metrics: dict[str, str], shown: str) -> None:
    """AUC of the tasks that have it, which have an accuracy beside it; nothing is named that is not drawn."""
    line = {"scenario": "within", "split": "test", "pair_kind": "P-T & P-T", "barrier": 0.1}
    rows = [line | {"task": task, "metric": one} for task, metric in metrics.items() for one in {metric, "accuracy"}]
    figure = barriers.barrier_heights(pd.DataFrame(rows), metric=None)
    assert figure.axes[0].get_xlabel() == f"barrier in test {shown}"


def test_a_model_with_itself_alone_makes_no_bars_of_cka(drawn):
    """Two networks without a layer of one name leave the control, which says nothing: words in place of bars."""
    table = drawn.cka().assign(checkpoint_a="a", checkpoint_b="b")
    assert cka.cka_bars(table).axes[0].patches
    figure = cka.cka_bars(table.assign(checkpoint_b="a"))
    assert not figure.axes[0].patches
    assert "heat map" in figure.axes[0].texts[0].get_text()


def test_a_plane_marks_its_models_and_keeps_its_scale(drawn):
    """Three marks a panel at the models' places, a name each, equal scales; a steep loss has a log scale."""
    figure = planes.plane_contours(drawn.plane())
    names = ["pre-trained, with the new classifier of P-T 1", "P-T 1", "P-T 2"]
    assert legend_texts(figure) == names
    for ax in figure.axes[:2]:
        assert [(line.get_xdata()[0], line.get_ydata()[0]) for line in ax.lines] == [(0, 0), (3, 0), (1, 2)]
        assert ax.get_aspect() == 1
    scales = [type(ax.collections[0].norm).__name__ for ax in figure.axes[:2]]
    assert scales == ["Normalize", "LogNorm"]


def test_the_walls_of_a_basin_say_epsilon_and_delta(drawn):
    """A panel a hull, the dashed line at the threshold; a delta that was not found is said in words."""
    figure = planes.basin_walls(drawn.basin(delta=np.inf))
    assert [ax.get_title() for ax in figure.axes] == [
        f"hull of {kind}: ε = 0.01, δ beyond what was tried" for kind in ("P-T", "RI-T")
    ]
    assert all(0.02 in [line.get_ydata()[0] for line in ax.lines] for ax in figure.axes)


def test_two_hulls_of_one_label_have_a_panel_each(drawn):
    """Kinds that start from two replicas of P have one label; the models tell their hulls apart."""
    basin = drawn.basin().assign(hull="P-T")
    assert [ax.get_title().split(":")[0] for ax in planes.basin_walls(basin).axes] == ["hull of P-T"] * 2


def test_walls_over_ten_decades_with_both_signs_can_be_read(drawn):
    """Below values near -1 lie no empty decades, the highest mark is whole, and labels of the axis do not overlap."""
    basin = drawn.basin()
    ray = basin.index[basin["quantity"] == "ray"]
    basin.loc[ray, "value"] = np.where(basin.loc[ray, "length"] == basin.loc[ray, "length"].min(), -0.8, 3e10)
    basin.loc[ray, ["low", "high"]] = basin.loc[ray, ["value", "value"]].to_numpy()
    figure = planes.basin_walls(basin)
    figure.draw_without_rendering()
    for ax in figure.axes:
        low, high = ax.get_ylim()
        assert -100 < low < -0.8
        assert high > 1e11
        boxes = [text.get_window_extent() for text in ax.get_yticklabels() if text.get_text()]
        shown = sorted(
            (box for box in boxes if ax.bbox.y0 <= (box.y0 + box.y1) / 2 <= ax.bbox.y1), key=lambda box: box.y0
        )
        assert len(shown) >= 3
        assert all(below.y1 <= above.y0 for below, above in pairwise(shown))


def test_distances_to_what_a_model_started_from_are_told_apart():
    """P or an epoch 0 on either side; a pair of two trained models is none."""
    rows = [
        ("P-T & P", "a.pt_1@final", "s.p_1@final", True),
        ("P-T & P-T", "a.pt_1@final", "a.pt_2@final", False),
        ("RI-T to init", "a.rit_1@final", "a.rit_1@0", True),
        ("RI-T & RI-T", "a.rit_1@final", "a.rit_1@0", True),
        ("P-T & RI-T", "a.pt_1@best", "a.rit_10@best", False),
    ]
    table = pd.DataFrame(rows, columns=["pair_kind", "checkpoint_a", "checkpoint_b", "expected"])
    assert distances.to_initialisation(table).tolist() == table["expected"].tolist()


def test_whole_network_distances_are_in_the_legend_not_on_the_axis(drawn):
    """The rows "all" and "sum" are no modules."""
    table = drawn.distances(kinds=("P-T & P-T",))
    table.loc[table["module"] == "all", "l2"] = 2.0
    figure = distances.distance_per_module(table)
    assert legend_texts(figure) == ["P-T & P-T  (overall 2)"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == drawn.modules


def test_the_sum_of_norm_ratios_is_in_the_legend_not_on_the_axis(drawn):
    """The row "sum" is what appendix C compares; "all" is another number."""
    table = drawn.spectrum(runs=("pt_1",))
    table.loc[table["module"] == "all", "ratio"] = 7.0
    table.loc[table["module"] == "sum", "ratio"] = 42.0
    figure = spectrum.norm_ratios(table)
    assert legend_texts(figure) == ["P-T  (Σ = 42)"]
    assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == drawn.modules


def test_heat_maps_average_draws_and_the_gap_is_test_minus_train(drawn):
    """Cells of the direct path against a pivot of the table."""
    table = drawn.criticality(paths=("direct",))
    figure = criticality.criticality_heat_map(table, "stem", run="clipart.rit_1")
    train, test, gap = (np.asarray(mesh.get_array()) for ax in figure.axes[:3] for mesh in ax.collections)
    rows = table[(table["run"] == "clipart.rit_1") & (table["module"] == "stem")]
    expected = rows[rows["split"] == "test"].pivot_table(index="sigma", columns="position", values="error").to_numpy()
    assert test == pytest.approx(expected)
    assert gap == pytest.approx(test - train)


def test_heat_maps_of_two_runs_share_their_colours(drawn):
    """The limits of P-T's map and RI-T's map are those of all rows of the module."""
    table = drawn.criticality()
    limits = set()
    for run in ("clipart.pt_1", "clipart.rit_1"):
        figure = criticality.criticality_heat_map(table, "stem", run=run)
        limits.add(figure.axes[0].collections[0].get_clim())
    stem = table[table["module"] == "stem"]["error"]
    assert limits == {(stem.min(), stem.max())}


def test_positions_are_drawn_at_their_distance(drawn):
    """Cells of the optimisation path are as wide as the distances say, and sorted where the path turns back."""
    table = drawn.criticality(paths=("optimization",), positions=(0.0, 0.5, 1.0))
    table["distance"] = table["position"].map({0.0: 0.0, 0.5: 4.0, 1.0: 1.0})
    mesh = criticality.criticality_heat_map(table, "stem").axes[0].collections[0]
    assert isinstance(mesh, QuadMesh)
    assert np.asarray(mesh.get_coordinates())[0, :, 0].tolist() == pytest.approx([-0.5, 0.5, 2.5, 5.5])


def test_cell_edges_lie_between_centres():
    """By hand; a single cell is one wide."""
    assert cell_edges(np.array([0.0, 1.0, 3.0])).tolist() == [-0.5, 0.5, 2.0, 4.0]
    assert cell_edges(np.array([2.0])).tolist() == [1.5, 2.5]


def test_infinite_and_zero_criticality_are_shown_as_such(drawn):
    """A module whose mu has no number keeps a mark, and the legend explains it."""
    table = drawn.module_criticality(runs=("pt_1",))
    table.loc[table["module"] == "fc", "mu"] = np.inf
    table.loc[table["module"] == "stem", "mu"] = 0.0
    assert legend_texts(criticality.module_criticality_bars(table)) == ["P-T", "μ = 0", "μ = ∞"]


def test_rewinding_shows_the_whole_model_as_a_line(drawn):
    """Module "none" is no bar; the earliest epoch is the default."""
    figure = criticality.rewinding_bars(drawn.rewinding())
    ax = figure.axes[0]
    assert [text.get_text() for text in ax.get_xticklabels()] == drawn.modules
    assert ax.get_xlabel() == "module set back to epoch 0"
    assert sorted(line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--") == pytest.approx(
        [0.55, 0.9]
    )


def test_histograms_count_every_value_with_its_multiplicity(drawn):
    """The heights of a kind sum to all its singular values."""
    table = drawn.singular_values(runs=("pt_1",))
    total = table[table["epoch"] == "final"]["multiplicity"].sum()
    heights = spectrum.spectrum_histogram(table).axes[0].lines[0].get_ydata()[:-1]
    assert heights.sum() == total


def test_counts_below_a_threshold_by_hand():
    """Values 1, 2, 2, 5 below 1 (none: strictly below), 2, 3 and 10."""
    values, times = np.array([5.0, 2.0, 1.0]), np.array([1.0, 2.0, 1.0])
    assert spectrum._count_below(values, times, np.array([1.0, 2.0, 3.0, 10.0])).tolist() == [0, 1, 3, 4]


def test_the_lower_part_ends_at_the_quantile():
    """Of 1, 2, 3, 4 with multiplicity 1, 1, 1, 97, a quarter lies below 4."""
    rows = pd.DataFrame({"value": [1.0, 2.0, 3.0, 4.0], "multiplicity": [1, 1, 1, 97]})
    assert spectrum._quantile(rows, 0.25) == 4.0
    assert spectrum._quantile(rows, 0.02) == 2.0


def test_pages_hold_four_layers_each_with_both_panels(drawn):
    """In the order of the forward pass; what is left of the last page is empty."""
    pages = list(spectrum.layer_spectra(drawn.singular_values(modules=[f"layer{i}" for i in range(5)])))
    assert [len(page.axes) for page in pages] == [8, 8]
    titles = [[ax.get_title() for ax in page.axes if ax.get_visible() and ax.get_title()] for page in pages]
    assert titles == [["layer0", "layer1", "layer2", "layer3"], ["layer4"]]


def test_untrained_networks_are_drawn_beside_the_trained(drawn):
    """RI-T at epoch 0, not P-T; an epoch that is asked for is drawn alone."""
    table = drawn.singular_values(runs=("pt_1", "rit_1"))
    assert legend_texts(spectrum.spectrum_histogram(table)) == ["P-T", "RI-T", "RI-T, untrained"]
    assert legend_texts(spectrum.spectrum_histogram(table, epoch=0)) == ["P-T", "RI-T"]


def test_a_variant_and_an_untrained_network_have_dashes_of_their_own(drawn):
    """In both figures a variant has its kind's colour, so the dash tells them apart."""
    table = drawn.singular_values(runs=("rit_1", "rit_small_lr_1"))
    for figure in (spectrum.spectrum_histogram(table), spectrum.count_below_threshold(table)):
        lines = {
            text: line.get_linestyle() for text, line in zip(legend_texts(figure), figure.axes[0].lines, strict=True)
        }
        assert lines == {"RI-T": "-", "RI-T small lr": "--", "RI-T, untrained": ":"}


@pytest.mark.parametrize("label", ["RI", "untrained", "RI-T, untrained"])
def test_no_label_makes_a_trained_network_an_untrained_one(drawn, label):
    """A source of any label is in the quantile of the lower part, and has the look of its role."""
    table = drawn.singular_values(runs=("p_1", "rit_1"))
    usual, other = (_axes_and_lines(table, name) for name in ("P", label))
    assert usual == other


def _axes_and_lines(table, label):
    """End of the lower part; colour and heights of each line of the histogram."""
    with labelled({label: "source", "RI-T": "from_scratch"}, {"clipart.p_1": label, "clipart.rit_1": "RI-T"}):
        lower = spectrum.spectrum_histogram(table).axes[1]
    return lower.get_xlim(), [(line.get_color(), line.get_ydata().tolist()) for line in lower.lines]


def test_a_run_beside_its_start_has_its_own_look_whatever_the_label_of_another(drawn):
    """A source labelled "init" makes pairs of another kind than the run with its own start."""
    ends = [(pair_kind("P-T", "init"), "shapes.p_1@final"), (start_kind("P-T"), "clipart.pt_1@0")]
    rows = [
        {"task": "clipart", "pair_kind": kind, "checkpoint_a": "clipart.pt_1@final", "checkpoint_b": other,
         "module": module, "l2": 1.0 + place, "relative": 1.0}
        for place, (kind, other) in enumerate(ends) for module in ("stem", "all")
    ]  # fmt: skip
    with labelled({"P-T": "fine_tuned", "init": "source"}, {"clipart.pt_1": "P-T", "shapes.p_1": "init"}):
        figure = distances.distance_to_initialisation(pd.DataFrame(rows))
        colours = [LOOKS[roles].colour for roles in (("fine_tuned",), ("fine_tuned", "source"))]
    assert legend_texts(figure) == ["P-T to init  (overall 2)", "P-T & init  (overall 1)"]
    assert [line.get_color() for line in figure.axes[0].lines] == colours


def test_training_figure_shows_the_threshold_nearest_to_a_tenth():
    """Shares of 12 % and 60 %: the first is shown, at both epochs."""
    row = {"task": "t", "run": "pt_1", "module": "all", "num_values": 100, "ratio": 2.0}
    row |= {"count_below_0.1": 12, "count_below_1": 60}
    table = pd.DataFrame([row | {"epoch": epoch, "module": module} for epoch in (0, 3) for module in ("all", "sum")])
    figure = spectrum.spectrum_along_training(table)
    assert figure.axes[0].get_ylabel() == "share below 0.1"
    assert figure.axes[0].lines[0].get_xydata().tolist() == [[0, 0.12], [3, 0.12]]


def test_the_given_correlation_is_written_in_the_legend(drawn):
    """With its largest p-value, rounded up to two digits; without a table, r is that of what is drawn."""
    runs = [f"clipart.{name}" for name in ("pt_1", "pt_2", "rit_1", "rit_2")]
    given = pd.DataFrame({"run": runs, "pearson_r": [0.3, 0.5, 0.2, 0.2], "p_value": [1e-9, 1e-3, 0.1031, 0.1]})
    figure = mistakes.accuracy_by_class_size(drawn.class_accuracy(), given)
    assert legend_texts(figure) == [
        "P-T:  Pearson r = 0.40  (mean of 2 runs, p ≤ 0.001)",
        "RI-T:  Pearson r = 0.20  (mean of 2 runs, p ≤ 0.11)",
    ]
    rows = drawn.class_accuracy(runs=("pt_1",))
    r = np.corrcoef(rows["class_size"], rows["accuracy"])[0, 1]
    assert legend_texts(mistakes.accuracy_by_class_size(rows)) == [f"P-T:  Pearson r = {r:.2f}"]


@pytest.mark.parametrize(
    ("p", "text"), [(0.3041, "0.31"), (0.3, "0.3"), (1.21e-12, "1.3e-12"), (0.996, "1"), (0.0, "0")]
)
def test_at_most_is_rounded_up(p, text):
    assert mistakes._rounded_up(p) == text


def test_mistake_bars_are_shares_of_the_examples(drawn):
    """Mistakes of the first model only are what only the second gets right."""
    table = drawn.mistakes(kinds=("P-T & RI-T",)).iloc[:1]
    table = table.assign(num_examples=200, only_a_correct=40, only_b_correct=10, common_mistakes=20)
    widths = [patch.get_width() for patch in mistakes.mistake_bars(table).axes[0].patches]
    assert widths == pytest.approx([5.0, 10.0, 20.0])


def test_pairs_of_a_series_have_a_bar_each_that_names_both_files(drawn):
    """Files of one label are told apart by their names, and another kind of pair keeps its mean over pairs."""
    one = drawn.mistakes(kinds=("P-T & RI-T",)).iloc[:1]
    ends = [("images.m_1@final", f"images.m_{place}@final") for place in (2, 3, 4)]
    rows = [one.assign(pair_kind="model & model", checkpoint_a=a, checkpoint_b=b) for a, b in ends]
    names = {f"images.m_{place}": f"epoch_{place}" for place in (1, 2, 3)}
    ax = mistakes.mistake_bars(pd.concat([*rows, one]), names=names).axes[0]
    shown = {"epoch_1 & epoch_2", "epoch_1 & epoch_3", "model & model", "P-T & RI-T"}  # m_4 is in no series
    assert {tick.get_text() for tick in ax.get_yticklabels()} == shown
    many = {f"images.m_{place}": f"epoch_{place}" for place in range(1, 60)}
    ends = [("images.m_1@final", f"images.m_{place}@final") for place in range(2, 60)]
    table = pd.concat([one.assign(pair_kind="model & model", checkpoint_a=a, checkpoint_b=b) for a, b in ends])
    ax = mistakes.mistake_bars(table, names=many).axes[0]
    assert (len(ax.get_yticklabels()), ax.get_ylabel()) == (40, "pair (the first 40 of 58)")


SERIES_NAMES = {
    "ends that differ": [f"checkpoints/resnet50_lr0.05_wd1e-4_bs256_epoch_{place:03}" for place in range(90)],
    "middles that differ": [f"resnet50_lr0.05_wd1e-4_s{place:02}_augmented_longer_epoch_090" for place in range(90)],
}


def of_series(table, ends):
    """The rows of a figure's table for each pair of files of one label."""
    own = table.assign(pair_kind="model & model")
    return pd.concat(
        [own.assign(checkpoint_a=f"images.m_{a}@final", checkpoint_b=f"images.m_{b}@final") for a, b in ends]
    )


@pytest.mark.parametrize("case", SERIES_NAMES)
def test_long_names_of_files_leave_room_for_the_bars(case, drawn, recwarn):
    """Of names of about 50 letters the axes keep a fifth of the figure at least, and every pair a name of its own."""
    names = {f"images.m_{place}": name for place, name in enumerate(SERIES_NAMES[case])}
    table = of_series(drawn.mistakes(kinds=("P-T & RI-T",)).iloc[:1], [(0, place) for place in range(1, 40)])
    figure = mistakes.mistake_bars(table, names=names)
    figure.draw_without_rendering()
    ax = figure.axes[0]
    assert ax.get_position().width > 0.2
    ticks = [tick.get_text() for tick in ax.get_yticklabels()]
    assert len(set(ticks)) == 39
    if case == "ends that differ":
        assert max(map(len, ticks)) == 2 * 25 + len(" & ")
        assert ticks[4].endswith("_epoch_005")
    assert not [str(warning.message) for warning in recwarn]


def test_pairs_of_a_series_have_a_panel_each(drawn, recwarn):
    """The first 12 of 780 pairs of files, three in a row, with their own values; another kind keeps its mean."""
    names = {f"images.m_{place}": name for place, name in enumerate(SERIES_NAMES["ends that differ"][:40])}
    ends = list(combinations(range(40), 2))
    table = of_series(drawn.flips(kinds=("P-T & RI-T",)), ends)
    table["accuracy_gain"] = table["checkpoint_b"].str.extract(r"_(\d+)@")[0].astype(float).to_numpy() / 1000
    other = drawn.flips(kinds=("P-T & P-T",)).assign(checkpoint_a="a", checkpoint_b="b")
    figure = replacement.flip_bars(pd.concat([other, table]), names=names)
    figure.draw_without_rendering()
    panels = [ax for ax in figure.axes if ax.axison]
    assert [ax.get_title().partition("…")[0] for ax in panels] == ["P-T & P-T", *["checkpoints/"] * 11]
    assert [ax.get_title()[-9:] for ax in panels[1:]] == [f"epoch_{place:03}" for place in range(1, 12)]
    assert [ax.lines[0].get_xdata()[0] for ax in panels[1:]] == pytest.approx([place / 10 for place in range(1, 12)])
    assert "the first 12 pairs of 781" in figure.get_suptitle()
    assert min(ax.get_position().width for ax in panels) > 0.2
    titles = [ax.title.get_window_extent() for ax in panels]
    assert not any(a.overlaps(b) for a, b in combinations(titles, 2))
    assert not [str(warning.message) for warning in recwarn]


def test_findings_share_the_bars_of_pairs(drawn):
    """190 pairs of 14 findings: two pairs are shown, 28 bars; of more findings than bars one pair."""
    names = {f"images.m_{place}": f"epoch_{place}" for place in range(20)}
    ends = list(combinations(range(20), 2))
    for count, shown in ((14, "2"), (50, "one")):
        findings = tuple(f"finding {place}" for place in range(count))
        table = drawn.mistakes(classes=findings, kinds=("P-T & RI-T",)).drop_duplicates("class_name")
        figure = mistakes.mistake_bars(of_series(table, ends), names=names)
        ax = figure.axes[0]
        assert len(ax.get_yticklabels()) == max(1, 40 // count) * count
        assert ax.get_ylabel() == f"pair (the first {shown} of 190)"
        assert figure.get_figheight() < 20


class OnlySome:
    """Images that note which of them are read."""

    def __init__(self, array):
        self.array, self.read = array, set()

    def __getitem__(self, index):
        self.read.add(index)
        return self.array[index]


def test_only_shown_images_are_read(drawn):
    """Of a memory-mapped split of any size, the gallery and the contact sheet read a handful."""
    table, split = drawn.gallery(), OnlySome(drawn.images())
    images.uncommon_mistakes_gallery(split, table)
    assert split.read == set(table["image"])
    split = OnlySome(drawn.images())
    images.contact_sheet(split, np.arange(60) % 3, ["a", "b", "c"], per_class=2)
    assert split.read == {0, 1, 2, 57, 58, 59}  # the first and the last of each class: of a union, some of each part


def test_the_gallery_names_truth_and_both_predictions(drawn):
    """Top row: only model a is right; captions give confidences in percent."""
    table = drawn.gallery(columns=1).assign(confidence_a=0.876, confidence_b=0.5)
    top, bottom = images.uncommon_mistakes_gallery(drawn.images(), table).axes
    assert (top.get_title(), top.get_ylabel()) == ("class 0", "model b wrong,\nmodel a right")
    assert top.get_xlabel() == "model a: class 0 88 %\nmodel b: class 9 50 %"
    assert bottom.get_xlabel() == "model a: class 9 88 %\nmodel b: class 0 50 %"


def test_heat_map_shows_means_in_the_order_of_the_layers(drawn):
    """Rows are the first model's layers; a cell is the mean over the pairs of the kind."""
    table = drawn.cka_layers(kinds=("P-T & RI-T",), layers=("stem", "layer1.0"))
    both = pd.concat([table.assign(cka=[0.1, 0.2, 0.3, 0.4]), table.assign(cka=[0.3, 0.2, 0.3, 0.4])])
    ax = cka.cka_heat_map(both).axes[0]
    np.testing.assert_allclose(ax.images[0].get_array(), [[0.2, 0.2], [0.3, 0.4]])
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("layer of RI-T", "layer of P-T")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["stem", "layer1.0"]


def test_distance_travelled_is_that_of_all_weights(drawn):
    """Each line is the mean over runs of the global distance at every saved epoch."""
    table = drawn.distance_travelled()
    line = distances.distance_travelled(table).axes[0].lines[0]
    rows = table[(table["label"] == "P-T") & (table["module"] == "all")]
    np.testing.assert_allclose(line.get_ydata(), rows.groupby("epoch")["l2"].mean())
    assert line.get_xdata().tolist() == [0, 1, 3, 7, 15]


def test_a_class_keeps_its_column_in_both_rows_of_the_gallery(drawn):
    """Where only one model has an uncommon mistake, the other row says none and the next class stays in its column."""
    table = drawn.gallery(columns=2).query("column == 1 or only_correct == 'a'")
    axes = images.uncommon_mistakes_gallery(drawn.images(), table).axes
    assert [ax.get_title() for ax in axes] == ["class 0", "class 1", "", "class 1"]
    assert [text.get_text() for text in axes[2].texts] == ["none"]


def test_class_sizes_count_positive_and_ignored_labels():
    """Two examples positive, one ignored; -1 is not negative."""
    positive, ignored = labels.count_labels(np.array([[1, 0], [1, -1], [-1, 0]], dtype=np.int8), 2)
    assert (positive.tolist(), ignored.tolist()) == ([2, 0], [1, 1])


def test_cooccurrence_is_a_share_of_the_known_labels():
    """Of three examples with the first label, one has the second, one has not and one is unknown: a half."""
    table = np.array([[1, 1], [1, 0], [1, -1], [0, 1]], dtype=np.int8)
    figure = labels.label_cooccurrence(table, ["first", "second"])
    assert figure.axes[0].images[0].get_array()[0, 1] == pytest.approx(0.5)
    assert [text.get_text() for text in figure.axes[0].texts] == ["n=3", "50", "50", "n=2"]


def test_cooccurrence_needs_several_labels_an_example():
    """A single-label task is refused in one line."""
    with pytest.raises(UserError, match="one label an example"):
        labels.label_cooccurrence(np.array([0, 1]), ["a", "b"])
