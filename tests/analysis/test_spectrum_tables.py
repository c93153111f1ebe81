"""Spectra of whole networks and their comparison."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import ttest_ind
from torch import nn

from transferscope.analysis.spectrum import conv_singular_values
from transferscope.analysis.spectrum_summary import probability_smaller
from transferscope.analysis.spectrum_tables import (
    bound_factors,
    compare_small_values,
    layer_singular_values,
    layers_without_spectrum,
    spectrum_table,
)
from transferscope.models.layers import LayerInput, trace_conv_inputs
from transferscope.system.errors import UserError


def network(seed: int = 0, scale: float = 1.0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.Conv2d(4, 4, 3, groups=2), nn.Flatten(1))
    model.append(nn.Linear(4 * 4, 5))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter *= scale
    return model


def values_of(model: nn.Module, image_size: int = 8, **options) -> pd.DataFrame:
    return layer_singular_values(model.state_dict(), trace_conv_inputs(model, image_size), **options)


def test_every_layer_is_in_the_table():
    """One block of rows per layer, the same as for the layer alone at its own input size."""
    model = network()
    table = values_of(model)
    assert list(dict.fromkeys(table["module"])) == ["0", "1", "3"]
    assert table.groupby("module")["multiplicity"].sum().to_dict() == {"0": 4 * 16, "1": 4 * 16, "3": 5}
    expected, _ = conv_singular_values(model[1].weight, 4, groups=2)
    np.testing.assert_array_equal(table[table["module"] == "1"]["value"], expected)


def test_whole_network_and_sum():
    """Row "all" is the summary of all values together; row "sum" adds |W_i|_F / |W_i|_2."""
    table = spectrum_table(values_of(network())).set_index("module")
    layers = table.loc[["0", "1", "3"]]
    assert table.loc["all", "num_values"] == layers["num_values"].sum()
    assert table.loc["all", "frobenius"] == pytest.approx(np.linalg.norm(layers["frobenius"]))
    assert table.loc["all", "spectral_norm"] == layers["spectral_norm"].max()
    assert table.loc["sum", "ratio"] == pytest.approx(layers["ratio"].sum())
    assert table.loc["all", "count_below_0.1"] == layers["count_below_0.1"].sum()


def test_bound_factors_by_hand():
    """Sum of ratios, of squared ratios, and the logarithm of the product of norms, for each epoch apart."""
    first = pd.DataFrame({"module": ["a", "a", "b", "z"], "value": [4.0, 3.0, 2.0, 0.0], "multiplicity": [1, 1, 9, 5]})
    second = pd.DataFrame({"module": ["a", "b"], "value": [1.0, 1.0], "multiplicity": [4, 1]})
    names = {"task": "t", "run": "r", "label": "P"}
    tables = [spectrum_table(values).assign(epoch=epoch, **names) for epoch, values in enumerate((first, second))]
    margins = pd.DataFrame([{**names, "epoch": 1, "margin": 2.5}])
    factors = bound_factors(pd.concat(tables), margins).set_index("epoch")
    assert factors["sum_of_ratios"].to_list() == pytest.approx([5 / 4 + 3, 2 + 1])
    assert factors["sum_of_squared_ratios"].to_list() == pytest.approx([25 / 16 + 9, 4 + 1])
    assert factors["log_product_of_norms"].to_list() == pytest.approx([np.log(8), 0])
    assert factors["num_layers"].to_list() == [2, 2]
    assert factors["margin"].to_list() == pytest.approx([np.nan, 2.5], nan_ok=True)


def test_a_size_that_the_stride_does_not_divide_is_taken_up():
    """At 7 pixels a layer of stride 2 is that of 8 pixels."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1))
    odd, even = (values_of(model, size) for size in (7, 8))
    assert odd.equals(even)


def test_layers_without_a_spectrum_are_listed_with_their_type():
    """Whatever has two or more dimensions and is not covered is named, nothing is skipped silently."""
    parts = {"conv": nn.Conv1d(2, 2, 3), "embedding": nn.Embedding(4, 2), "norm": nn.LayerNorm(2)}
    parts["attention"] = nn.MultiheadAttention(4, 2)
    left_out = layers_without_spectrum(nn.ModuleDict(parts), {"attention.out_proj": LayerInput("linear", 1, 1)})
    assert left_out == {"conv": "Conv1d", "embedding": "Embedding", "attention": "MultiheadAttention"}
    assert layers_without_spectrum(network(), trace_conv_inputs(network(), 8)) == {}


def test_a_parameter_of_the_network_itself_has_a_name() -> None:
    """As the position embedding of a transformer, whose layer has an empty name."""
    model = nn.Sequential(nn.Linear(2, 2))
    model.positions = nn.Parameter(torch.zeros(3, 2))
    assert layers_without_spectrum(model, {"0": LayerInput("linear", 1, 1)}) == {"the network's own": "Sequential"}


def test_smaller_weights_have_more_small_values():
    """Networks shrunk to a half: more of their values are below, with an interval above 0, in every module.

    The interval is Welch's between the runs' shares, never with more degrees of freedom than the pooled one.
    """
    shrunk = [values_of(network(seed, 0.5)) for seed in (0, 1)]
    others = [values_of(network(seed)) for seed in (2, 3)]
    row = compare_small_values(shrunk, others, [0.3]).iloc[0]
    assert row["fraction_a"] - row["fraction_b"] == pytest.approx(row["difference"])
    assert 0 < row["low"] <= row["difference"] <= row["high"]
    shares = [[below(values, 0.3) for values in group] for group in (shrunk, others)]
    pooled = ttest_ind(*shares).confidence_interval()
    assert row["low"] <= pooled.low * (1 + 1e-9)
    assert row["high"] - row["low"] < 12.71 / 4.30 * (pooled.high - pooled.low)
    assert math.isnan(compare_small_values(shrunk[:1], others, [0.3])["low"].iloc[0])
    assert row["layers_more_in_a"] == row["num_layers"] == 3
    pairs = [
        probability_smaller(a["value"], a["multiplicity"], b["value"], b["multiplicity"])
        for a in shrunk
        for b in others
    ]
    assert row["probability_smaller"] == pytest.approx(np.mean(pairs))
    assert row["probability_smaller"] > 0.6


def below(values, threshold):
    """The share of a network's singular values below a threshold, each counted as often as it occurs."""
    every = np.repeat(values["value"], values["multiplicity"])
    return (every < threshold).mean()


def test_a_group_against_itself_shows_nothing():
    """The difference is 0 and inside the interval; exchanging the groups changes its sign."""
    networks = [values_of(network(seed)) for seed in (0, 1)]
    row = compare_small_values(networks, networks, [0.3]).iloc[0]
    assert row["difference"] == 0
    assert row["low"] <= 0 <= row["high"]
    one, other = (
        compare_small_values(*groups, [0.3]).iloc[0]
        for groups in ((networks[:1], networks[1:]), (networks[1:], networks[:1]))
    )
    assert one["difference"] == -other["difference"]


def test_bad_input_is_named():
    """The layer is named whose weights are missing or not finite; unlike networks are refused."""
    model = network()
    inputs = trace_conv_inputs(model, 8)
    state = model.state_dict()
    state["1.weight"] = state["1.weight"] * float("inf")
    with pytest.raises(UserError, match="layer 1: weight holds values that are not finite"):
        layer_singular_values(state, inputs)
    del state["1.weight"]
    with pytest.raises(UserError, match=r"no tensor 1\.weight"):
        layer_singular_values(state, inputs)
    with pytest.raises(UserError, match="no 2-d convolution and no linear layer"):
        layer_singular_values(state, {})
    values = values_of(model)
    with pytest.raises(UserError, match="differ in their layers"):
        compare_small_values([values], [values[values["module"] != "3"]])
    smaller, bigger = (values_of(nn.Sequential(*list(model)[:3]), size) for size in (8, 16))
    with pytest.raises(UserError, match=r"differ in the size of their layers"):
        compare_small_values([bigger, smaller], [smaller])
    with pytest.raises(UserError, match="at least one network"):
        compare_small_values([], [values])
