"""Criticality screened in bfloat16 and settled in float32 where it matters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import pandas as pd
import torch
from torch import nn

from transferscope.analysis.criticality import Modules, Stages, criticality
from transferscope.analysis.evaluator import Batches
from transferscope.analysis.perturbation import Case
from transferscope.analysis.states import State
from transferscope.models.duplicate import duplicate
from transferscope.system.errors import UserError

_ROW = ["module", "path", "split", "position", "sigma", "draw"]


def screened_criticality(
    model: nn.Module,
    state_initial: State,
    state_final: State,
    modules: Modules,
    examples: Mapping[str, Batches],
    epsilons: Sequence[float],
    *,
    split: Callable[[nn.Module], Stages] | None = None,
    margin: float = 0.1,
    only: Collection[Case] | None = None,
    **options: Any,
) -> pd.DataFrame:
    """`criticality`, computed in bfloat16, and again in float32 where a mean loss lies within `margin` of an epsilon.

    bfloat16 losses are off by a few percent, which moves a module's mu_epsilon only where the loss is near epsilon:
    those cases, |loss - epsilon| <= margin * epsilon on any part, are settled in float32. `split` takes a model apart
    into stages (`models.split_at_modules`), for the bfloat16 copy and for `model`. `options` are those of
    `criticality`. The table is the same but for rounding.
    """
    if not margin >= 0 or len(epsilons) == 0:
        raise UserError(
            f"epsilons {list(epsilons)}, margin {margin}: give at least one epsilon and a margin of 0 or more"
        )
    rounded = duplicate(model).to(torch.bfloat16)
    ends = (state_initial, state_final, modules, examples)
    table = criticality(rounded, *ends, stages=split(rounded) if split else None, only=only, **options)
    if not (cases := cases_near(table, epsilons, margin)):
        return table
    settled = criticality(model, *ends, stages=split(model) if split else None, only=cases, **options)
    merged = table.set_index(_ROW)
    merged.update(settled.set_index(_ROW))
    return merged.reset_index()[list(table.columns)]


def cases_near(table: pd.DataFrame, epsilons: Sequence[float], margin: float) -> set[Case]:
    """(module, position, sigma) whose loss, mean over draws, is within margin * epsilon of an epsilon on any part."""
    keys = ["module", "position", "sigma"]
    mean = table.groupby([*keys, "split"])["loss"].mean().reset_index()
    near = pd.concat([mean[(mean["loss"] - epsilon).abs() <= margin * epsilon] for epsilon in epsilons])
    return set(near[keys].itertuples(index=False, name=None))
