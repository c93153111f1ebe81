"""Each module set back to an earlier epoch (Figure 5 of the paper)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.evaluator import Evaluate
from transferscope.analysis.states import State, check_modules, check_same_tensors, find_module, write_state


def rewind(state_final: State, state_initial: State, keys: Sequence[str]) -> dict[str, Tensor]:
    """The final weights with the tensors of one module set back to their earlier values; new tensors."""
    check_same_tensors(state_initial, state_final, "the earlier checkpoint", "the final checkpoint")
    check_modules({"to rewind": keys}, state_final)
    chosen = set(keys)
    return {
        key: (state_initial[key] if key in chosen else tensor).detach().clone() for key, tensor in state_final.items()
    }


def rewinding(
    model: nn.Module,
    state_final: State,
    earlier: Mapping[int, State],
    modules: Mapping[str, tuple[str, ...]],
    evaluate: Evaluate,
    *,
    only: Sequence[str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Metrics with one module set back to each of some epochs (Figure 5): columns module, epoch, metric, value.

    The rows of module "none" at epoch -1 are the unrewound model. `only` names the modules to rewind, all by default.
    `model` is the workspace and holds `state_final` afterwards.
    """
    chosen = {name: find_module(name, modules) for name in (modules if only is None else only)}
    check_modules(chosen, state_final)
    write_state(model, state_final)
    targets = model.state_dict()
    rows = [("none", -1, metric, float(value)) for metric, value in evaluate(model).items()]
    with torch.no_grad():
        for epoch, state in earlier.items():
            check_same_tensors(state, state_final, f"epoch {epoch}", "the final checkpoint")
            for name, keys in chosen.items():
                for key in keys:
                    targets[key].copy_(state[key])
                rows += [(name, epoch, metric, float(value)) for metric, value in evaluate(model).items()]
                for key in keys:
                    targets[key].copy_(state_final[key])
                if progress:
                    progress(1)
    return pd.DataFrame(rows, columns=["module", "epoch", "metric", "value"])
