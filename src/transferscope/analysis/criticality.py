"""Measure which modules cannot be moved: criticality by noise along two paths, and rewinding.

Chatterji, Neyshabur, Sedghi, "The intriguing role of module criticality" (ICLR 2020); Figure 30 and Figure 5 of the
paper. One module at a time is set to a point on the way from its initial to its final value, noise is added to it,
all other modules stay final, and error and loss are measured. `module_criticality` makes mu of these losses.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.compiled import compiled as as_compiled
from transferscope.analysis.evaluator import Batches, iterate, per_example
from transferscope.analysis.perturbation import Case, DirectPath, Mover, OptimizationPath, Path
from transferscope.analysis.rewinding import rewind, rewinding
from transferscope.analysis.states import State, check_modules, check_same_tensors, stored_like, write_state
from transferscope.system.errors import UserError
from transferscope.system.renamed import renamed_object

__all__ = ["criticality", "rewind", "rewinding"]

Modules = Mapping[str, tuple[str, ...]]
Stages = Sequence[tuple[str, Callable[[Tensor], Tensor]]]

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
SIGMAS = (0.0, 0.01, 0.03, 0.1)

MEASUREMENTS = ("position", "distance", "sigma", "draw", "error", "loss")

logger = logging.getLogger(__name__)


def criticality(
    model: nn.Module,
    state_initial: State,
    state_final: State,
    modules: Modules,
    examples: Mapping[str, Batches],
    *,
    alphas: Sequence[float] = ALPHAS,
    sigmas: Sequence[float] = SIGMAS,
    num_draws: int = 2,
    first_draw: int = 0,
    seed: int = 0,
    trajectory: Mapping[int, State] | None = None,
    stages: Stages | None = None,
    only: Collection[Case] | None = None,
    compiled: bool = False,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Error and loss with one module moved and disturbed, for every module, position, sigma and draw.

    Direct path: the module at (1 - alpha) initial + alpha final, `position` = alpha. Optimization path, where
    `trajectory` (epoch -> state) is given: the module as it was at every saved epoch, `position` = the epoch. Noise
    is N(0, sigma² I) on the module's parameters (not on buffers), absolute, the same for all positions and, up to its
    size, for all sigmas; sigma 0 is measured once. It depends on seed, parameter and draw alone.

    model: the workspace, with this architecture, on the batches' device; holds `state_final` afterwards. Its dtype is
    the precision of the forward passes; positions and noise are computed in that of the states.
    modules: name -> state_dict keys. examples: part ("train", "test") -> batches.
    stages: the forward pass as (module name, function) in order, made of the model's own submodules. Then everything
    in front of a module is computed once a batch for all its perturbations; otherwise every one is a full pass.
    compiled: each stage by torch's compiler, once for each shape. only: (module, position, sigma) to measure, all by
    default. first_draw: draws first_draw, first_draw + 1, … of the
    same stream, so that further draws can be added to a table.

    Returns columns module, path, split, position, distance (l2 from the initial value, over parameters), sigma, draw,
    error (fraction of examples, or of known labels), loss (nats). Non-finite losses stay, and are named in the log.
    Holds num_draws copies of the noise in memory, and of the trajectory, each as large as the modules: give few modules
    at a time where that is too much, the rows stay the same. `trajectory` may load its states when asked for them.
    `progress(1)` is called after each module of each batch.
    """
    check_same_tensors(state_initial, state_final, "the initial checkpoint", "the final checkpoint")
    check_modules(modules, state_final)
    _check_choices(modules, examples, alphas, sigmas, num_draws, trajectory)
    model.eval()
    write_state(model, state_final)
    initial, final = stored_like(state_initial, model), stored_like(state_final, model)
    if trajectory is None:
        path: Path = DirectPath(initial, final, tuple(float(alpha) for alpha in alphas))
    else:
        wanted = {key for keys in modules.values() for key in keys}
        path = OptimizationPath(
            initial, {epoch: _part(trajectory[epoch], wanted, model) for epoch in sorted(trajectory)}
        )
    draws = range(first_draw, first_draw + num_draws)
    movers = [Mover(name, keys, model, path, final, sigmas, draws, seed, only) for name, keys in modules.items()]
    movers = [mover for mover in movers if mover.cases]
    if not movers:
        raise UserError("no case is left to measure: `only` names no (module, position, sigma) of this grid")
    pipeline = _Pipeline(model, stages, compiled)
    tables = [_measure(pipeline, movers, part, batches, progress) for part, batches in examples.items()]
    table = pd.concat(tables, ignore_index=True)
    table.insert(1, "path", path.name)
    _name_nonfinite(table)
    return table


def _part(state: State, keys: set[str], model: nn.Module) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in stored_like(state, model).items() if key in keys}


def _check_choices(
    modules: Modules,
    examples: Mapping[str, Batches],
    alphas: Sequence[float],
    sigmas: Sequence[float],
    num_draws: int,
    trajectory: Mapping[int, State] | None,
) -> None:
    if not modules or not examples:
        raise UserError("criticality needs at least one module and one part with examples")
    if trajectory is None and len(alphas) == 0:
        raise UserError("alphas is empty: give at least one position on the direct path, for example 0 and 1")
    if trajectory is not None and len(trajectory) == 0:
        raise UserError("trajectory is empty: the optimization path needs saved epochs (keep_epochs in training)")
    if len(sigmas) == 0 or min(sigmas) < 0:
        raise UserError(f"sigmas {list(sigmas)}: give at least one standard deviation, none below 0")
    if num_draws < 1:
        raise UserError(f"num_draws is {num_draws}: at least one draw of the noise is needed")


class _Pipeline:
    """The forward pass in stages; one stage, the whole model, where no decomposition is given."""

    def __init__(self, model: nn.Module, stages: Stages | None, compiled: bool) -> None:
        self.model = model
        self._plain: list[tuple[str, Callable[[Tensor], Tensor]]] = list(stages) if stages else [("", model)]
        self.stages = [
            (name, as_compiled(stage) if compiled and isinstance(stage, nn.Module) else stage)
            for name, stage in self._plain
        ]
        parameter = next(model.parameters())
        self.dtype, self.device = parameter.dtype, parameter.device
        self._checked = not stages

    def starts(self, movers: Sequence[Mover]) -> list[list[int]]:
        """For every stage, the indices of the modules whose perturbation first matters there."""
        starts: list[list[int]] = [[] for _ in self.stages]
        for index, mover in enumerate(movers):
            starts[self._first_stage(mover)].append(index)
        return starts

    def _first_stage(self, mover: Mover) -> int:
        """The first stage that holds a tensor of the module; for stages that are plain functions, that of its name."""
        own = self.model.state_dict(keep_vars=True)
        wanted = {id(own[key]) for key in mover.keys}
        held = [_tensor_ids(function) & wanted for _, function in self.stages]
        if set().union(*held) == wanted:
            return next(index for index, holds in enumerate(held) if holds)
        names = [name for name, _ in self.stages]
        return names.index(mover.name) if mover.name in names else 0

    def run(self, hidden: Tensor, start: int = 0) -> Tensor:
        for _, function in self.stages[start:]:
            hidden = function(hidden)
        return hidden

    def check(self, inputs: Tensor) -> None:
        """The stages must compute what the model computes; tried once, on the first batch, before they are compiled.

        A compiler rounds otherwise, in bfloat16 by more than stages may differ.
        """
        if self._checked:
            return
        self._checked = True
        expected, given = self.model(inputs), inputs
        for _, function in self._plain:
            given = function(given)
        if expected.shape != given.shape or not torch.allclose(expected, given, rtol=1e-3, atol=1e-4, equal_nan=True):
            raise UserError(
                "stages do not compute the model's forward pass: leave them out, or give all of it in order"
            )


def _tensor_ids(function: Callable[[Tensor], Tensor]) -> set[int]:
    if not isinstance(function, nn.Module):
        return set()
    return {id(tensor) for tensor in (*function.parameters(), *function.buffers())}


def _measure(
    pipeline: _Pipeline,
    movers: Sequence[Mover],
    part: str,
    batches: Batches,
    progress: Callable[[int], None] | None,
) -> pd.DataFrame:
    """Loop order batch, module, perturbation: what lies in front of a module is needed for one batch at a time."""
    # Summed where the model is: no perturbation waits for a transfer.
    sums = [torch.zeros(len(mover.cases), 2, dtype=torch.float64, device=pipeline.device) for mover in movers]
    known_labels = 0.0
    starts = pipeline.starts(movers)
    last = max(stage for stage, indices in enumerate(starts) if indices)
    with torch.inference_mode():
        for inputs, labels in iterate(batches):
            hidden, known = inputs.to(pipeline.dtype), torch.zeros(())
            pipeline.check(hidden)
            for stage in range(last + 1):
                for index in starts[stage]:
                    for case in movers[index].each_case():
                        correct, loss, known = per_example(pipeline.run(hidden, stage).float(), labels)
                        sums[index][case] += torch.stack([known.sum() - correct.sum(), loss.sum()])
                    if progress:
                        progress(1)
                if stage < last:
                    hidden = pipeline.stages[stage][1](hidden)
            known_labels += known.sum().item()
    if known_labels == 0:
        raise UserError(f"part {part}: no example has a known label")
    rows = [
        row
        for mover, measured in zip(movers, sums, strict=True)
        for row in _rows(mover, part, (measured / known_labels).tolist())
    ]
    return pd.DataFrame(rows, columns=["module", "split", *MEASUREMENTS])


def _rows(
    mover: Mover, part: str, measured: list[list[float]]
) -> Iterator[tuple[str, str, float, float, float, int, float, float]]:
    distances = {position: mover.distance(position) for position in {position for position, _, _ in mover.cases}}
    for (position, sigma, draw), (error, loss) in zip(mover.cases, measured, strict=True):
        yield mover.name, part, position, distances[position], sigma, draw, error, loss


def _name_nonfinite(table: pd.DataFrame) -> None:
    broken = table.loc[~np.isfinite(table["loss"].to_numpy()), "module"].unique()
    if len(broken):
        logger.warning("criticality: non-finite losses are kept for modules %s", ", ".join(broken))


def __getattr__(name: str) -> object:
    """Names that stood here in version 0.1."""
    if (known := renamed_object(__name__, name)) is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return known
