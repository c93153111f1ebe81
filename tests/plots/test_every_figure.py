"""What holds for every figure, on ordinary and on awkward tables."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pandas as pd
import pytest
import torch

from drawn_study import merging as merged_models
from transferscope.plots import (
    barriers,
    cka,
    connections,
    criticality,
    curves,
    distances,
    images,
    labels,
    matrices,
    merging,
    mistakes,
    planes,
    replacement,
    reuse,
    shuffled,
    singular_vectors,
    spectrum,
    speed,
    split_runs,
)
from transferscope.system.errors import UserError

FINDINGS = ("Cardiomegaly", "Edema", "Consolidation", "Atelectasis", "Pleural Effusion")
DEEP = [f"layer{stage}.{block}.conv{conv}" for stage in range(1, 5) for block in range(5) for conv in (1, 2, 3)]
WITHOUT_RIT = ("P-T & P-T",)
CRITERIA = {"positions": (1.0,), "sigmas": (0.1,)}


def diverged(drawn):
    history = drawn.history(runs=("pt_1", "rit_1"))
    broken = history["run"].str.contains("rit") & (history["epoch"] > 4)
    history.loc[broken, ["train_loss", "train_loss_eval", "test_loss", "test_accuracy", "train_accuracy"]] = np.nan
    return history


def merged():
    return merged_models(1)


def never_learned(drawn):
    return drawn.history(runs=("rit_1",)).assign(test_accuracy=np.nan, train_accuracy=np.nan)


def with_gaps(table, column):
    return table.assign(**{column: table[column].where(np.arange(len(table)) % 3 > 0, np.nan)})


def multi_label(seed=0):
    return np.random.default_rng(seed).choice([1, 0, -1], (200, 5), p=[0.3, 0.6, 0.1]).astype(np.int8)


def single_label(num_classes, number=3000):
    return np.random.default_rng(0).integers(0, num_classes, number)


CASES = {
    "curves": lambda d: curves.learning_curves(d.history(), note="generated images"),
    "curves of the loss": lambda d: curves.learning_curves(d.history(), metric="loss"),
    "curves, AUC": lambda d: curves.learning_curves(d.history(metric="auc")),
    "curves, one replica, long": lambda d: curves.learning_curves(d.history(runs=("pt_1",), epochs=200)),
    "curves, diverged": lambda d: curves.learning_curves(diverged(d)),
    "curves, diverged loss": lambda d: curves.learning_curves(diverged(d), metric="loss"),
    "curves, no value": lambda d: curves.learning_curves(never_learned(d)),
    "curves, a file": lambda d: curves.learning_curves(d.history(epochs=0).assign(lr=np.nan)),
    "curves, one epoch": lambda d: curves.learning_curves(d.history(epochs=0)),
    "speed": lambda d: speed.optimization_speed(d.runs(), note="generated images"),
    "speed, AUC, one run": lambda d: speed.optimization_speed(d.runs(names=("pt_1",), metric="auc")),
    "speed, diverged": lambda d: speed.optimization_speed(d.runs().assign(status="diverged")),
    "speed, no value": lambda d: speed.optimization_speed(d.runs().assign(optimization_speed=np.nan)),
    "barriers": lambda d: barriers.barrier_panels(d.interpolation(), note="generated images"),
    "barriers of the loss": lambda d: barriers.barrier_panels(d.interpolation(), metric="loss"),
    "barriers, one alpha": lambda d: barriers.barrier_panels(d.interpolation(alphas=[0.5])),
    "barriers, NaN": lambda d: barriers.barrier_panels(with_gaps(d.interpolation(), "value")),
    "barriers, all NaN": lambda d: barriers.barrier_panels(d.interpolation().assign(value=np.nan)),
    "barriers, infinite loss": lambda d: barriers.barrier_panels(
        d.interpolation().replace({"alpha": {}}).assign(value=lambda t: t["value"].where(t["alpha"] != 0.5, np.inf)),
        metric="loss",
    ),
    "barriers without RI-T": lambda d: barriers.barrier_panels(d.interpolation(kinds=WITHOUT_RIT)),
    "barriers, best and final": lambda d: barriers.barrier_panels(
        d.interpolation(metrics=("auc",), ends=list(itertools.product(("best", "final"), repeat=2))), metric="auc"
    ),
    "extrapolation": lambda d: barriers.barrier_panels(d.interpolation(alphas=np.linspace(-1, 2, 13))),
    "cross domain": lambda d: barriers.cross_domain_panels(d.interpolation(trained_on=("real_clipart", "quickdraw"))),
    "cross domain, AUC": lambda d: barriers.cross_domain_panels(d.interpolation(metrics=("auc", "loss"))),
    "cross domain, no loss": lambda d: barriers.cross_domain_panels(d.interpolation(metrics=("accuracy",))),
    "distances": lambda d: distances.distance_per_module(d.distances(), note="generated images"),
    "matrix, 3 models": lambda d: matrices.distance_matrix(d.file_pairs(3), d.file_names(3), title="photos", note="generated images"),
    "matrix, 20 models": lambda d: matrices.barrier_matrix(d.file_pairs(20), d.file_names(20), title="photos"),
    "distances, deep": lambda d: distances.distance_per_module(d.distances(modules=DEEP), measures=("relative",)),
    "distances, zero": lambda d: distances.distance_per_module(d.distances().assign(l2=0.0)),
    "distances, some zero": lambda d: distances.distance_per_module(
        d.distances().assign(l2=lambda t: t["l2"].where(t["module"] != "stem", 0.0))
    ),
    "distances, NaN": lambda d: distances.distance_per_module(d.distances().assign(l2=np.nan)),
    "distance to initial": lambda d: distances.distance_to_initialisation(d.distances()),
    "no distance to initial": lambda d: distances.distance_to_initialisation(d.distances(kinds=WITHOUT_RIT)),
    "cka bars": lambda d: cka.cka_bars(d.cka(), note="generated images"),
    "cka bars, many layers": lambda d: cka.cka_bars(d.cka(layers=DEEP[:20]), features="flattened"),
    "cka bars, NaN": lambda d: cka.cka_bars(with_gaps(d.cka(), "cka")),
    "cka map": lambda d: cka.cka_heat_map(d.cka_layers(), note="generated images"),
    "cka map, one pair, NaN": lambda d: cka.cka_heat_map(with_gaps(d.cka_layers(kinds=WITHOUT_RIT), "cka")),
    "cka map, many layers": lambda d: cka.cka_heat_map(d.cka_layers(layers=DEEP[:17])),
    "distance travelled": lambda d: distances.distance_travelled(d.distance_travelled(), note="generated images"),
    "distance travelled, one epoch": lambda d: distances.distance_travelled(d.distance_travelled(epochs=(0,))),
    "class sizes and accuracy": lambda d: mistakes.accuracy_by_class_size(d.class_accuracy(), note="generated images"),
    "345 classes and accuracy": lambda d: mistakes.accuracy_by_class_size(d.class_accuracy(num_classes=345)),
    "one class and accuracy": lambda d: mistakes.accuracy_by_class_size(d.class_accuracy(num_classes=1)),
    "mistakes": lambda d: mistakes.mistake_bars(d.mistakes(), note="generated images"),
    "mistakes, findings": lambda d: mistakes.mistake_bars(d.mistakes(classes=FINDINGS)),
    "no mistakes": lambda d: mistakes.mistake_bars(
        d.mistakes().assign(only_a_correct=0, only_b_correct=0, common_mistakes=0)
    ),
    "flips": lambda d: replacement.flip_bars(d.flips(), note="generated images"),
    "flips, 345 classes": lambda d: replacement.flip_bars(d.flips(classes=[f"class {i}" for i in range(345)])),
    "flips, findings": lambda d: replacement.flip_bars(d.flips(findings=FINDINGS)),
    "flips, no images": lambda d: replacement.flip_bars(d.flips().assign(num_examples=0)),
    "reliability": lambda d: replacement.reliability_diagram(d.reliability(), note="generated images"),
    "reliability, findings": lambda d: replacement.reliability_diagram(d.reliability(findings=FINDINGS), title="chest"),
    "reliability, nothing": lambda d: replacement.reliability_diagram(d.reliability().iloc[:0]),
    "criticality": lambda d: criticality.criticality_heat_map(d.criticality(), "stem", note="generated images"),
    "criticality, four paths": lambda d: criticality.criticality_heat_map(
        d.criticality(ends=("best", "final"), sigmas=np.linspace(0, 1, 11)), "fc", run="clipart.rit_1"
    ),
    "criticality, one cell": lambda d: criticality.criticality_heat_map(d.criticality(paths=("direct",), **CRITERIA), "fc"),
    "criticality, module at rest": lambda d: criticality.criticality_heat_map(d.criticality().assign(distance=0.0), "fc"),
    "criticality, NaN": lambda d: criticality.criticality_heat_map(d.criticality().assign(error=np.nan), "fc"),
    "criticality of the loss": lambda d: criticality.criticality_heat_map(d.criticality(), "fc", measure="loss"),
    "mu": lambda d: criticality.module_criticality_bars(d.module_criticality(), note="generated images"),
    "mu, deep": lambda d: criticality.module_criticality_bars(d.module_criticality(modules=DEEP)),
    "mu, zero": lambda d: criticality.module_criticality_bars(d.module_criticality().assign(mu=0.0)),
    "mu, infinite": lambda d: criticality.module_criticality_bars(d.module_criticality().assign(mu=np.inf)),
    "rewinding": lambda d: criticality.rewinding_bars(d.rewinding(), note="generated images"),
    "rewinding, AUC": lambda d: criticality.rewinding_bars(d.rewinding(metric="auc", modules=DEEP[:18]), epoch=5),
    "rewinding, loss": lambda d: criticality.rewinding_bars(d.rewinding(metric="loss", runs=("pt_1",))),
    "plane": lambda d: planes.plane_contours(d.plane(), note="generated images"),
    "plane, wide": lambda d: planes.plane_contours(d.plane(width=9.0), title="three RI-T"),
    "plane, NaN": lambda d: planes.plane_contours(with_gaps(d.plane(), "value")),
    "plane, all NaN": lambda d: planes.plane_contours(d.plane().assign(value=np.nan)),
    "plane, flat": lambda d: planes.plane_contours(d.plane().assign(value=0.5)),
    "plane, AUC alone": lambda d: planes.plane_contours(d.plane(metrics=("auc",)), metrics=("auc", "loss")),
    "connection": lambda d: connections.connection_card(*d.connection(), note="generated images"),
    "connection of the loss": lambda d: connections.connection_card(*d.connection(), metric="loss"),
    "connection, AUC, no profile": lambda d: connections.connection_card(*d.connection(metrics=("auc",), profiles=())),
    "connection, one way": lambda d: connections.connection_card(*d.connection(ways=("straight",))),
    "connection, deep": lambda d: connections.connection_card(
        *d.connection()[:2], d.connection()[2].assign(module=lambda t: [f"layer{i % 16}.conv1" for i in range(len(t))])
    ),
    "connection, NaN": lambda d: connections.connection_card(
        *(table.assign(**{column: np.nan for column in ("value", "barrier", "drop") if column in table}) for table in d.connection())
    ),
    "copies": lambda d: split_runs.barrier_by_split(d.split_runs(), note="generated images"),
    "copies, one split, AUC": lambda d: split_runs.barrier_by_split(d.split_runs(metrics=("auc",), epochs=(0,))),
    "copies, NaN": lambda d: split_runs.barrier_by_split(d.split_runs().assign(barrier=np.nan)),
    "merges": lambda d: merging.merge_scores(merged(), title="cross_domain", note="generated images"),
    "merges, one": lambda d: merging.merge_scores(merged().query("merge == 'pt_soup_1'")),
    "merges, one task": lambda d: merging.merge_scores(merged().query("task == 'clipart'")),
    "merges, NaN": lambda d: merging.merge_scores(merged().assign(value=np.nan, value_low=np.nan, refitted=np.nan)),
    "merges, all methods": lambda d: merging.merge_scores(
        pd.concat([merged().query("kind == 'candidate'"), *(merged().query("kind == 'merge'").assign(model=name) for name in merging.METHODS)])
    ),
    "basin": lambda d: planes.basin_walls(d.basin(), title="clipart", note="generated images"),
    "basin without delta": lambda d: planes.basin_walls(d.basin(delta=np.inf)),
    "spectrum": lambda d: spectrum.spectrum_histogram(d.singular_values(), note="generated images"),
    "spectrum, one run": lambda d: spectrum.spectrum_histogram(d.singular_values(runs=("pt_1",)), epoch=0),
    "spectrum, all zero": lambda d: spectrum.spectrum_histogram(d.singular_values().assign(value=0.0)),
    "spectrum along training": lambda d: spectrum.spectrum_along_training(d.spectrum()),
    "count below": lambda d: spectrum.count_below_threshold(d.singular_values(), note="generated images"),
    "count below, all zero": lambda d: spectrum.count_below_threshold(d.singular_values().assign(value=0.0)),
    "spectrum of layers": lambda d: next(spectrum.layer_spectra(d.singular_values(modules=["stem"]))),
    "norm ratios": lambda d: spectrum.norm_ratios(d.spectrum(), note="generated images"),
    "singular vectors": lambda d: singular_vectors.singular_vectors(d.singular_vectors(), note="generated images"),
    "singular vectors, one": lambda d: singular_vectors.singular_vectors(d.singular_vectors(runs=("pt_1",), top=1)),
    "singular vectors, all zero": lambda d: singular_vectors.singular_vectors(d.singular_vectors().assign(amplitude=0.0)),
    "block sizes": lambda d: reuse.block_sizes(d.reuse(), note="generated images"),
    "block sizes, replicas, AUC": lambda d: reuse.block_sizes(d.reuse(3, metric="auc"), title="chest"),
    "block sizes, 224 px": lambda d: reuse.block_sizes(d.reuse(side=224)),
    "block sizes, none": lambda d: reuse.block_sizes(d.reuse(series=("epoch",))),
    "controls of reuse": lambda d: reuse.controls(d.reuse(2), note="generated images"),
    "controls of reuse, none": lambda d: reuse.controls(d.reuse(series=("blocks",))),
    "source epochs": lambda d: reuse.source_epochs(
        d.reuse(2), d.gains(), d.along_pretraining(), note="generated images"
    ),
    "source epochs of a file": lambda d: reuse.source_epochs(d.reuse(), d.gains(low=None, high=None)),
    "source epochs, no gain": lambda d: reuse.source_epochs(d.reuse(), d.gains(None, None, None)),
    "source epochs, none": lambda d: reuse.source_epochs(d.reuse(series=("blocks",)), d.gains(), d.along_pretraining()),
    "gallery": lambda d: images.uncommon_mistakes_gallery(d.images(), d.gallery(), note="generated images"),
    "gallery, long names": lambda d: images.uncommon_mistakes_gallery(d.images(channels=1), d.gallery(6, long=True)),
    "gallery, one side": lambda d: images.uncommon_mistakes_gallery(d.images(), d.gallery().query("only_correct == 'a'")),
    "gallery, one column": lambda d: images.uncommon_mistakes_gallery(d.images(), d.gallery(columns=1)),
    "contact sheet": lambda d: images.contact_sheet(d.images(60), np.arange(60) % 6, [f"class {i}" for i in range(6)]),
    "contact sheet, 345 classes": lambda d: images.contact_sheet(
        d.images(400), np.arange(400) % 345, [f"a class with a rather long name {i}" for i in range(345)]
    ),
    "contact sheet, shuffled": lambda d: shuffled.shuffled_sheet(torch.from_numpy(d.images(4)), note="generated images"),
    "contact sheet, shuffled, grey": lambda d: shuffled.shuffled_sheet(torch.from_numpy(d.images(1, channels=1))),
    "contact sheet, findings": lambda d: images.contact_sheet(d.images(200, channels=1), multi_label(), FINDINGS),
    "class sizes": lambda _: labels.class_size_bars({"train": single_label(10)}, [f"class {i}" for i in range(10)]),
    "class sizes, 345": lambda _: labels.class_size_bars(
        {"train": single_label(345), "test": single_label(345, 900)}, [f"aircraft carrier {i}" for i in range(345)]
    ),
    "class sizes, findings": lambda _: labels.class_size_bars({"train": multi_label(), "test": multi_label(1)}, FINDINGS),
    "labels together": lambda _: labels.label_cooccurrence(multi_label(), FINDINGS, note="generated images"),
    "labels together, one absent": lambda _: labels.label_cooccurrence(multi_label() * [0, 1, 1, 1, 1], FINDINGS),
}  # fmt: skip

EMPTY = {
    "curves": (curves.learning_curves, "history"),
    "speed": (speed.optimization_speed, "runs"),
    "barriers": (barriers.barrier_panels, "interpolation"),
    "cross domain": (barriers.cross_domain_panels, "interpolation"),
    "distances": (distances.distance_per_module, "distances"),
    "cka bars": (cka.cka_bars, "cka"),
    "distance travelled": (distances.distance_travelled, "distance_travelled"),
    "cka map": (cka.cka_heat_map, "cka_layers"),
    "class accuracy": (mistakes.accuracy_by_class_size, "class_accuracy"),
    "mistakes": (mistakes.mistake_bars, "mistakes"),
    "mu": (criticality.module_criticality_bars, "module_criticality"),
    "rewinding": (criticality.rewinding_bars, "rewinding"),
    "plane": (planes.plane_contours, "plane"),
    "basin": (planes.basin_walls, "basin"),
    "spectrum": (spectrum.spectrum_histogram, "singular_values"),
    "count below": (spectrum.count_below_threshold, "singular_values"),
    "norm ratios": (spectrum.norm_ratios, "spectrum"),
}


def boxes(artists):
    extents = [artist.get_window_extent() for artist in artists if artist.get_visible() and artist.get_text().strip()]
    return [box for box in extents if box.width > 0]


def assert_labelled(figure, name):
    """One axis at least of every grid of panels is named in x and one in y, but where tick labels say it all."""
    axes = [ax for ax in figure.axes if ax.get_visible() and ax.axison]
    if axes and "contact sheet" not in name:
        assert any(ax.get_xlabel() for ax in axes)
        assert any(ax.get_ylabel() for ax in axes) or name.startswith(("mistakes", "no mistakes"))


def overlap(a, b, slack=0.5):
    return min(a.x1, b.x1) - max(a.x0, b.x0) > slack and min(a.y1, b.y1) - max(a.y0, b.y0) > slack


@pytest.mark.parametrize("name", CASES)
def test_limits_are_finite_and_no_text_covers_another(name, drawn, recwarn):
    """Tick labels, axis labels, titles, legend and note of a drawn figure keep apart; x and y are named."""
    figure = CASES[name](drawn)
    figure.draw_without_rendering()
    assert_labelled(figure, name)
    page = figure.bbox
    for ax in figure.axes:
        if not ax.get_visible():
            continue
        assert np.isfinite([*ax.get_xlim(), *ax.get_ylim()]).all()
        if not ax.axison:
            continue
        x_low, x_high = sorted(ax.get_xlim())
        y_low, y_high = sorted(ax.get_ylim())
        x_texts = [t for p, t in zip(ax.get_xticks(), ax.get_xticklabels(), strict=False) if x_low <= p <= x_high]
        y_texts = [t for p, t in zip(ax.get_yticks(), ax.get_yticklabels(), strict=False) if y_low <= p <= y_high]
        texts = boxes([*x_texts, *y_texts, ax.xaxis.label, ax.yaxis.label, ax.title])
        assert not [1 for a, b in itertools.combinations(texts, 2) if overlap(a, b)]
        for legend in figure.legends:
            assert not [1 for text in texts if overlap(text, legend.get_window_extent())]
    for legend, text in itertools.product(figure.legends, figure.texts):
        assert not overlap(legend.get_window_extent(), text.get_window_extent())
    for legend in figure.legends:
        box = legend.get_window_extent()
        assert box.x0 >= page.x0 - 1
        assert box.x1 <= page.x1 + 1
    assert not [str(warning.message) for warning in recwarn]


@pytest.mark.parametrize("name", EMPTY)
def test_an_empty_table_gives_a_figure_that_says_so(name, drawn):
    """No exception: a report may draw what a plan did not measure."""
    draw, table = EMPTY[name]
    figure = draw(getattr(drawn, table)().iloc[:0])
    assert "to show" in figure.axes[0].texts[0].get_text()


@pytest.mark.parametrize("name", EMPTY)
def test_a_missing_column_is_named(name):
    """One line that says what the table lacks."""
    draw, _ = EMPTY[name]
    with pytest.raises(UserError, match="lacks the column"):
        draw(pd.DataFrame({"task": ["clipart"]}))


@pytest.mark.parametrize("name", ["curves", "criticality"])
def test_the_same_table_gives_the_same_bytes(name, drawn):
    """Saved as PNG twice."""
    saved = []
    for _ in range(2):
        stream = io.BytesIO()
        CASES[name](drawn).savefig(stream, format="png")
        saved.append(stream.getvalue())
    assert saved[0] == saved[1]
