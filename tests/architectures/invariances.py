"""All analyses on one architecture with random weights, and what must hold for each of them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pandas as pd
import pytest
import torch
from torch import nn

from architectures.matrix import Architecture
from transferscope.analysis.barriers import barrier
from transferscope.analysis.basin import estimate_basin
from transferscope.analysis.batchnorm import batchnorm_layers, recompute_statistics, with_recomputed_statistics
from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.criticality import criticality
from transferscope.analysis.distance import l2_distance, module_distances
from transferscope.analysis.evaluator import Evaluator, prepare
from transferscope.analysis.features import FeatureExtractor
from transferscope.analysis.interpolation import walk
from transferscope.analysis.plane import Plane, evaluate_plane
from transferscope.analysis.rewinding import rewinding
from transferscope.analysis.spectrum_tables import layer_singular_values
from transferscope.analysis.states import TensorKinds
from transferscope.models.layers import feature_layers, trace_conv_inputs
from transferscope.models.layouts import try_layouts
from transferscope.models.modules import find_modules
from transferscope.models.plain_layers import layers_of_unknown_map, make_plain
from transferscope.models.zoo import build_model
from transferscope.system.errors import UserError

NUM_CLASSES = 4
NUM_IMAGES = 6
SPECTRA = 4
"""Layers whose spectrum is measured, evenly spaced."""


def check_every_analysis(architecture: Architecture) -> list[str]:
    """Refusals, `analysis: reason`, of those that refuse the architecture; AssertionError where a result is wrong."""
    refusals: list[str] = []
    with _refused("building", refusals):
        subject = Subject(architecture)
        for check in (similarity, distances, line, plane, basin, modules, spectra):
            with _refused(check.__name__, refusals):
                check(subject)
    return refusals


@contextmanager
def _refused(analysis: str, refusals: list[str]) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        refusals.append(f"{analysis}: {error}")


class Subject:
    """Three networks of an architecture as analyses of weights see them, a network to write into, and images."""

    def __init__(self, architecture: Architecture) -> None:
        generator = torch.Generator().manual_seed(0)
        side = architecture.side
        colours = torch.randn(NUM_IMAGES, 3, 1, 1, generator=generator)
        self.side, self.images = side, colours + torch.randn(NUM_IMAGES, 3, side, side, generator=generator)
        self.batches = [(self.images, torch.arange(NUM_IMAGES) % NUM_CLASSES)]
        drawn = build_model(architecture.name, NUM_CLASSES, seed=0, **architecture.options)
        self.networks = [self._network(drawn, seed) for seed in (1, 2, 3)]
        self.states = [network.state_dict() for network in self.networks]
        self.model = copy.deepcopy(self.networks[0])
        self.kinds = TensorKinds.of_model(self.model)
        self.modules = find_modules(self.model)
        self.losses = [Evaluator(self.batches)(network)["loss"] for network in self.networks]

    def _network(self, drawn: nn.Module, seed: int) -> nn.Module:
        model = copy.deepcopy(drawn)
        _perturb(model, seed)
        recompute_statistics(model, self.batches)
        return prepare(make_plain(model))

    def evaluate(self, model: nn.Module) -> Any:
        measure = Evaluator(self.batches)
        return with_recomputed_statistics(measure, self.batches)(model) if batchnorm_layers(model) else measure(model)


def _perturb(model: nn.Module, seed: int) -> None:
    """Away from zeros and ones, with which many networks start and which would hide what a layer does."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=generator))


def similarity(subject: Subject) -> None:
    """A network with itself: 1. Swapped networks and permuted images: the same."""
    a, b, _ = subject.networks
    layouts, refused = try_layouts(a, feature_layers(a).values(), tuple(subject.images.shape[1:]))
    extractors = {name: FeatureExtractor(model, list(layouts), layouts=layouts) for name, model in (("a", a), ("b", b))}
    pairs = [("a", "a"), ("a", "b"), ("b", "a")]
    table = cka_between(extractors, [subject.images], pairs=pairs)
    by_pair = [part["cka"].to_numpy() for _, part in table.groupby(["checkpoint_a", "checkpoint_b"], sort=False)]
    assert by_pair[0] == pytest.approx(1, abs=1e-6)
    assert by_pair[1] == pytest.approx(by_pair[2], abs=1e-9)
    assert (by_pair[1] < 1 + 1e-6).all()
    permuted = cka_between(extractors, [subject.images.flip(0)], pairs=[("a", "b")])["cka"].to_numpy()
    assert permuted == pytest.approx(by_pair[1], rel=1e-2, abs=2e-3)
    if refused:
        raise UserError("; ".join(refused.values()))


def distances(subject: Subject) -> None:
    """Exactly 0 to itself, the same both ways; weights alone, and each of them once."""
    a, b, _ = subject.states
    assert l2_distance(a, a, kinds=subject.kinds) == 0
    assert l2_distance(a, b, kinds=subject.kinds) == l2_distance(b, a, kinds=subject.kinds) > 0
    table = module_distances(a, b, subject.modules, kinds=subject.kinds).set_index("module")
    assert table.loc["all", "num_parameters"] == sum(p.numel() for p in subject.model.parameters())
    assert table.loc["all", "l2"] == pytest.approx(l2_distance(a, b, kinds=subject.kinds))


def line(subject: Subject) -> None:
    """No barrier to itself, with either kind of statistics; from b to a the mirrored curve; the checkpoints' values."""
    a, b, _ = subject.states
    own = walk(subject.model, a, a, [0, 0.3, 1], subject.evaluate)
    for metric, part in own.groupby("metric"):
        assert barrier(part["alpha"], part["value"], higher_is_better="accuracy" in str(metric)) == 0, metric
    there = walk(subject.model, a, b, [0, 0.2, 1], subject.evaluate)
    back = walk(subject.model, b, a, [1, 0.8, 0], subject.evaluate)
    assert there["value"].tolist() == back["value"].tolist()
    assert there["value"].notna().all()
    stored = there[there["metric"] == _as_stored(there)].set_index("alpha")["value"]
    assert stored[1.0] == pytest.approx(subject.losses[1], rel=1e-5)


def plane(subject: Subject) -> None:
    """Its axes are distances of weights, and its corners the checkpoints."""
    spanned = Plane(*subject.states, kinds=subject.kinds)
    distance = l2_distance(subject.states[0], subject.states[2], kinds=subject.kinds)
    assert sum(value**2 for value in spanned.points[2]) ** 0.5 == pytest.approx(distance)
    table = evaluate_plane(subject.model, spanned, [spanned.length / 2], [0.0], subject.evaluate)
    values = table[table["metric"] == _as_stored(table)].set_index("point")["value"]
    assert values["b"] == pytest.approx(subject.losses[1], rel=1e-5)


def _as_stored(table: pd.DataFrame) -> str:
    """The loss with the statistics that the networks hold."""
    return "naive_loss" if (table["metric"] == "naive_loss").any() else "loss"


def basin(subject: Subject) -> None:
    """Its center lies among the losses of the hull."""
    estimated = estimate_basin(subject.model, subject.states[:2], subject.evaluate, [], num_points=2)
    assert 0 <= estimated.epsilon.value < estimated.center.value


def modules(subject: Subject) -> None:
    """A module at its final value costs nothing, set back to where it is costs nothing; the rest does not move."""
    start, final, _ = subject.states
    last = list(subject.modules)[-1]
    chosen = {last: subject.modules[last]}
    loss = subject.losses[1]
    table = criticality(
        subject.model, start, final, chosen, {"train": subject.batches}, alphas=[0, 1], sigmas=[0, 0.01], num_draws=1
    )
    still = table[(table["position"] == 1) & (table["sigma"] == 0)].iloc[0]
    assert still["loss"] == pytest.approx(loss, rel=1e-5)
    keys = [key for key in chosen[last] if key in subject.kinds.weights]
    assert still["distance"] == pytest.approx(
        l2_distance({k: start[k] for k in keys}, {k: final[k] for k in keys}), rel=1e-6
    )
    back = rewinding(subject.model, final, {0: start, 1: final}, chosen, Evaluator(subject.batches))
    losses = back[back["metric"] == "loss"].set_index("epoch")["value"]
    assert losses[-1] == losses[1] == pytest.approx(loss, rel=1e-5)
    assert losses[0] == pytest.approx(table[(table["position"] == 0) & (table["sigma"] == 0)]["loss"].iloc[0], rel=1e-4)


def spectra(subject: Subject) -> None:
    """The largest singular value bounds what a layer does to an input; the Frobenius norm is that of the weight."""
    unknown = layers_of_unknown_map(subject.model)
    inputs = {k: v for k, v in trace_conv_inputs(subject.model, subject.side).items() if k not in unknown}
    names = list(inputs)
    picked = {name: inputs[name] for name in dict.fromkeys(names[:: max(1, len(names) // SPECTRA)][:SPECTRA])}
    table = layer_singular_values(subject.states[0], picked)
    for name, part in table.groupby("module"):
        layer = subject.model.get_submodule(str(name))
        is_linear = isinstance(layer, nn.Linear)
        shape = (1, layer.in_features) if is_linear else (1, layer.in_channels, *(2 * k for k in layer.kernel_size))
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        subject.model.load_state_dict(subject.states[0])
        with torch.no_grad():
            response = layer(noise) - layer(torch.zeros(shape))
        assert response.norm() <= part["value"].max() * noise.norm() * 1.5
    if unknown:
        raise UserError("no spectrum of " + ", ".join(f"{name} ({reason})" for name, reason in unknown.items()))
