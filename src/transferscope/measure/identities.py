"""Find out whether two checkpoints are one function, by weights in any order of channels and by outputs."""

from __future__ import annotations

import math
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor

from transferscope.analysis.alignment import Permutation, match_weights, permutation_groups, permute
from transferscope.analysis.distance import module_distances
from transferscope.analysis.merging.candidates import parent_correlation
from transferscope.analysis.states import State, TensorKinds, describe_nonfinite
from transferscope.experiment.options import ModulesOptions
from transferscope.measure.bench import Bench, network
from transferscope.measure.criticalities import modules_of
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.system.errors import UserError
from transferscope.training.evaluation import predict

NUM_NOISE = 8
"""Noise images on which outputs are compared where there are no images."""
SHORT_TYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}
"""Formats in which networks are stored to save space, the most precise one first."""
COLUMNS = (
    "comparable", "equal", "correlation", "relative", "moved", "relative_matched", "correlation_matched", "not_matched",
    "rounded_to", "inputs", "num_inputs", "output_difference", "not_compared",
)  # fmt: skip


class Identity(NamedTuple):
    """Two checkpoints as one function, or two."""

    summary: pd.DataFrame
    """One row, `COLUMNS`.

    comparable: both are of one architecture, with tensors of the same names and shapes; where they are not, what
    follows from weights is NaN, and equal False. equal: all tensors are equal, counters aside. correlation: of the
    weights (`parent_correlation`). relative: l2 distance of all weights over the norm of a's. moved: part of b's
    channels that matching by weights moves, relative_matched and correlation_matched the same then; not_matched: why
    channels could not be matched. rounded_to: the most precise of `SHORT_TYPES` in which all tensors are equal, once
    channels are matched, where they are not equal themselves, as those of a copy in half precision. output_difference:
    largest difference of two logits over the larger standard deviation of theirs, on `num_inputs` of `inputs` ("test
    images" or "noise images"); not_compared: why there is none.
    """
    matched: pd.DataFrame
    """`module_distances` from a to b with b's channels matched to a's; no rows where they could not be."""


def identity(
    a: Checkpoint,
    b: Checkpoint,
    modules: ModulesOptions | None = None,
    *,
    bench: Bench | None = None,
    side: int | None = None,
    max_examples: int = 256,
) -> Identity:
    """Compare two checkpoints as functions.

    That weights are equal once channels are matched (Ainsworth et al. 2022, arXiv 2209.04836) proves that two networks
    are one function, with the same outputs beside it; that outputs differ on any input proves that they are two.

    Args:
        bench: Its test images, at most `max_examples` of them, are the inputs. None: noise images, standard normal.
        side: Of noise images, in pixels.

    Raises:
        UserError: Neither test images nor a side is given, or the networks cannot be built.
    """
    split = bench.limited(max_examples).split("test") if bench is not None else None
    pixels = split.pictures.seen_size if split is not None else side
    if pixels is None:
        raise UserError("identity needs inputs: give a bench with test images, or the side of noise images in pixels")
    states = analysed_state(a), analysed_state(b)
    row: dict[str, object] = dict.fromkeys(COLUMNS, math.nan)
    row |= {"comparable": _comparable(a, b, *states), "equal": False}
    row |= {"not_matched": "", "rounded_to": "", "not_compared": ""}
    row["inputs"] = "noise images" if split is None else "test images"
    matched = pd.DataFrame()
    if row["comparable"]:
        row["equal"] = _equal(*states)
        row["correlation"] = parent_correlation(*states)
        matched = _match(a, states, modules, pixels, row)
    try:
        outputs = [predict(network(one), split) if split is not None else _on_noise(one, pixels) for one in (a, b)]
    except (RuntimeError, ValueError, AssertionError, UserError) as error:  # vision transformers assert the size
        row["not_compared"] = next(iter(str(error).splitlines()), type(error).__name__)
        outputs = []
    if outputs:
        row["num_inputs"] = len(outputs[0])
        row["output_difference"] = _difference(*outputs)
        if outputs[0].shape != outputs[1].shape:
            row["not_compared"] = f"{outputs[0].shape[1]} and {outputs[1].shape[1]} outputs"
    return Identity(pd.DataFrame([row], columns=list(COLUMNS)), matched)


def _comparable(one: Checkpoint, other: Checkpoint, a: State, b: State) -> bool:
    built = [(known.metadata.architecture, known.metadata.model_options) for known in (one, other)]
    return built[0] == built[1] and a.keys() == b.keys() and all(a[key].shape == b[key].shape for key in a)


def _equal(a: State, b: State, rounded_to: torch.dtype | None = None) -> bool:
    return all(
        torch.equal(tensor.to(rounded_to or tensor.dtype), b[key].to(rounded_to or tensor.dtype))
        for key, tensor in a.items()
        if tensor.is_floating_point()
    )


def _match(
    a: Checkpoint, states: tuple[State, State], modules: ModulesOptions | None, side: int, row: dict[str, object]
) -> pd.DataFrame:
    """Distances module by module once channels are matched; fills the row."""
    kinds, parts = TensorKinds.of_model(analysed_model(a)), modules_of(a, modules)
    plain = module_distances(*states, parts, kinds=kinds)
    row["relative"] = _whole(plain)
    nonfinite = next((nonfinite for state in states if (nonfinite := describe_nonfinite(state, "a checkpoint"))), None)
    if nonfinite:
        row["not_matched"] = nonfinite
        return pd.DataFrame()
    if row["equal"]:
        row |= {"moved": 0.0, "relative_matched": 0.0, "correlation_matched": row["correlation"]}
        return plain
    try:
        permutation, other = _aligned(a, states, side)
    except UserError as error:
        row["not_matched"] = str(error)
        return pd.DataFrame()
    if not _equal(states[0], other):
        row["rounded_to"] = next((name for name, short in SHORT_TYPES.items() if _equal(states[0], other, short)), "")
    matched = module_distances(states[0], other, parts, kinds=kinds) if permutation.moved else plain
    row |= {"moved": permutation.moved, "relative_matched": _whole(matched)}
    row["correlation_matched"] = parent_correlation(states[0], other)
    return matched


def _aligned(a: Checkpoint, states: tuple[State, State], side: int) -> tuple[Permutation, State]:
    model = analysed_model(a)
    groups = permutation_groups(model, _noise(1, image_channels(model), side))
    permutation = match_weights(groups, *states)
    return permutation, permute(groups, permutation, states[1])


def _whole(table: pd.DataFrame) -> float:
    return float(table.loc[table["module"] == "all", "relative"].iloc[0])


def _noise(number: int, channels: int, side: int) -> Tensor:
    return torch.randn(number, channels, side, side, generator=torch.Generator().manual_seed(0))


@torch.inference_mode()
def _on_noise(checkpoint: Checkpoint, side: int) -> Tensor:
    model = network(checkpoint)
    device = next(model.parameters()).device
    logits: Tensor = model(_noise(NUM_NOISE, image_channels(model), side).to(device)).float().cpu()
    return logits


def _difference(first: Tensor, second: Tensor) -> float:
    """Largest difference over the larger standard deviation; NaN where shapes differ or values are not finite."""
    if first.shape != second.shape or not (first.isfinite().all() and second.isfinite().all()):
        return math.nan
    # Of both, as a network may put out nearly the same for all noise, such as one that ends in a ReLU.
    largest, scale = float((first - second).abs().max()), max(float(one.double().std()) for one in (first, second))
    return largest / scale if scale > 0 else (math.inf if largest else 0.0)
