"""Spectra of all layers of a network, as tables, and the comparison of two groups of networks."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from torch import Tensor, nn

from transferscope.analysis.intervals import difference_of_means
from transferscope.analysis.spectrum import Method, conv_singular_values, linear_singular_values
from transferscope.analysis.spectrum_summary import THRESHOLDS, count_below, probability_smaller, summarise
from transferscope.analysis.states import State
from transferscope.models.layers import LayerInput
from transferscope.system.errors import UserError

logger = logging.getLogger(__name__)

SUMMED = ("frobenius", "spectral_norm", "ratio", "stable_rank", "effective_rank")
"""Columns of the row "sum" that add up those of the layers."""


def layer_singular_values(state: State, inputs: Mapping[str, LayerInput], *, method: Method = "auto") -> pd.DataFrame:
    """All singular values of all convolutions and linear layers: columns module (the layer), value, multiplicity.

    state: a state_dict; inputs: layer -> what enters it, from `transferscope.models.layers.trace_conv_inputs`. Values
    are those of circular padding (see `conv_singular_values`). Where a stride does not divide the input size, the size
    is taken up to the next multiple. Raises UserError naming the layer whose weights are missing or not finite.
    """
    tables = []
    for name, entering in inputs.items():
        if f"{name}.weight" not in state:
            raise UserError(f"layer {name}: the checkpoint has no tensor {name}.weight")
        try:
            values, multiplicities = _of_layer(state, name, entering, method)
        except UserError as error:
            raise UserError(f"layer {name}: {error}") from error
        tables.append(pd.DataFrame({"module": name, "value": values.numpy(), "multiplicity": multiplicities.numpy()}))
    if not tables:
        raise UserError("the model has no 2-d convolution and no linear layer")
    return pd.concat(tables, ignore_index=True)


def _of_layer(state: State, name: str, entering: LayerInput, method: Method) -> tuple[Tensor, Tensor]:
    weight = state[f"{name}.weight"]
    if entering.kind == "linear":
        return linear_singular_values(weight, method=method)
    size = (entering.height, entering.width)
    step_h, step_w = entering.stride
    multiple = (-(-size[0] // step_h) * step_h, -(-size[1] // step_w) * step_w)
    if multiple != size and method != "published":
        logger.info("spectrum of %s: input size %s taken as %s, a multiple of its stride", name, size, multiple)
        size = multiple
    return conv_singular_values(
        weight, size, stride=entering.stride, dilation=entering.dilation, groups=entering.groups, method=method
    )


def layers_without_spectrum(model: nn.Module, inputs: Mapping[str, LayerInput | str]) -> dict[str, str]:
    """Layers with a weight of two or more dimensions that `layer_singular_values` leaves out, and their types.

    These are types that are no 2-d convolution and no linear layer (embeddings, 1-d convolutions, attention's own
    matrices), and layers that the forward pass does not reach.
    """
    return {
        name or "the network's own": type(layer).__name__
        for name, layer in model.named_modules()
        if name not in inputs and any(weight.ndim >= 2 for weight in layer.parameters(recurse=False))
    }


def spectrum_table(singular_values: pd.DataFrame, thresholds: Sequence[float] = THRESHOLDS) -> pd.DataFrame:
    """`summarise` for every module, then for "all" and "sum".

    "all" is the whole network's spectrum, all layers side by side. "sum" adds the norms, ratios and ranks of the layers
    (all-zero layers left out): its ratio is the sum of |W_i|_F / |W_i|_2 of appendix C.
    """
    by_module = [(str(name), part) for name, part in singular_values.groupby("module", sort=False)]
    layers = pd.DataFrame([_summary_row(name, part, thresholds) for name, part in by_module])
    whole = _summary_row("all", singular_values, thresholds)
    sums = {column: float(layers[column].sum()) for column in SUMMED}
    summed = {**whole, "module": "sum", "condition": float("nan"), **sums}
    return pd.concat([layers, pd.DataFrame([whole, summed])], ignore_index=True)


def _summary_row(name: str, values: pd.DataFrame, thresholds: Sequence[float]) -> dict[str, object]:
    return {"module": name, **summarise(values["value"], values["multiplicity"], thresholds)}


def bound_factors(spectrum: pd.DataFrame, margins: pd.DataFrame) -> pd.DataFrame:
    """The factors of the generalisation bounds that appendix C names, for every run and epoch.

    spectrum: rows of `spectrum_table` with the columns task, run, label and epoch before them. Columns added to these
    four: sum_of_ratios, the sum of |W_i|_F/|W_i|_2 (the paper's); sum_of_squared_ratios, the form of Neyshabur et al.
    2018; log_product_of_norms, the natural logarithm of the product of |W_i|_2; num_layers, the depth. All-zero layers
    are left out of all four. The columns of `margins` follow, matched by run and epoch, empty where it has no row.
    """
    layers = spectrum[~spectrum["module"].isin(["all", "sum"]) & (spectrum["spectral_norm"] > 0)]
    layers = layers.assign(log_norm=np.log(layers["spectral_norm"]))
    factors = (
        layers.groupby(["task", "run", "label", "epoch"], sort=False)
        .agg(
            sum_of_ratios=("ratio", "sum"),
            sum_of_squared_ratios=("stable_rank", "sum"),
            log_product_of_norms=("log_norm", "sum"),
            num_layers=("module", "size"),
        )
        .reset_index()
    )
    return factors.merge(margins.drop(columns=["task", "label"]), on=["run", "epoch"], how="left")


def compare_small_values(
    networks_a: Sequence[pd.DataFrame],
    networks_b: Sequence[pd.DataFrame],
    thresholds: Sequence[float] = THRESHOLDS,
    *,
    confidence: float = 0.95,
) -> pd.DataFrame:
    """Has group a (say RI-T) more small singular values than group b (say P-T)? A number with an interval.

    networks: tables of `layer_singular_values`, one per replica, of the same architecture. Returns a row per threshold:
    threshold, fraction_a and fraction_b (of the network's singular values that are below, mean over replicas),
    difference (a - b), low and high (over other replicas, `difference_of_means` within -1 and 1; NaN where a group has
    one network), layers_more_in_a, num_layers; and, the same in all rows, probability_smaller (mean over pairs of
    replicas).
    """
    names = list(dict.fromkeys(networks_a[0]["module"])) if len(networks_a) and len(networks_b) else []
    if not names:
        raise UserError("compare_small_values needs at least one network in each group")
    below_a, total = _counts_by_module(networks_a, names, thresholds)
    below_b, total_b = _counts_by_module(networks_b, names, thresholds)
    if not np.array_equal(total, total_b):
        raise UserError("the two groups' networks differ in their layers: compare networks of one architecture")
    parts_a, parts_b = (below.sum(axis=1) / total.sum() for below in (below_a, below_b))
    intervals = [difference_of_means(a, b, confidence) for a, b in zip(parts_a.T, parts_b.T, strict=True)]
    low, high = np.clip(np.transpose(intervals), -1, 1)  # shares differ by at most 1
    more = below_a.mean(axis=0) > below_b.mean(axis=0)
    smaller = [
        probability_smaller(a["value"], a["multiplicity"], b["value"], b["multiplicity"])
        for a in networks_a
        for b in networks_b
    ]
    return pd.DataFrame(
        {
            "threshold": list(thresholds),
            "fraction_a": parts_a.mean(axis=0),
            "fraction_b": parts_b.mean(axis=0),
            "difference": parts_a.mean(axis=0) - parts_b.mean(axis=0),
            "low": low,
            "high": high,
            "layers_more_in_a": more.sum(axis=0),
            "num_layers": len(names),
            "probability_smaller": float(np.mean(smaller)),
        }
    )


def _counts_by_module(
    networks: Sequence[pd.DataFrame], names: list[str], thresholds: Sequence[float]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Values below each threshold (num_networks, num_modules, num_thresholds), and values in all (num_modules,)."""
    below, totals = [], []
    for network in networks:
        modules = dict(iter(network.groupby("module", sort=False)))
        if list(modules) != names:
            raise UserError("the networks differ in their layers: compare networks of one architecture")
        below.append([count_below(part["value"], part["multiplicity"], thresholds) for part in modules.values()])
        totals.append([part["multiplicity"].sum() for part in modules.values()])
    if len({tuple(total) for total in totals}) > 1:
        raise UserError("the networks differ in the size of their layers: compare them at one image size")
    return np.array(below), np.array(totals[0])
