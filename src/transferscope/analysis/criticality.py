"""Measure which modules cannot be moved: criticality by noise along two paths, and rewinding.

Chatterji, Neyshabur, Sedghi, "The intriguing role of module criticality" (ICLR 2020); Figure 30 and Figure 5 of the
paper. One module at a time is set to a point on the way from its initial to its final value, noise is added to it,
all other modules stay final, and error and loss are measured.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
import scipy
import torch
from torch import Tensor, nn

from transferscope.analysis.compiled import compiled as as_compiled
from transferscope.analysis.evaluator import Batches, iterate, per_example
from transferscope.analysis.perturbation import Case, DirectPath, Mover, OptimizationPath, Path
from transferscope.analysis.rewinding import rewind, rewinding
from transferscope.analysis.states import State, check_modules, check_same_tensors, stored_like, write_state
from transferscope.system.errors import UserError

__all__ = [
    "criticality",
    "deciding_cells",
    "module_criticality",
    "network_criticality",
    "rewind",
    "rewinding",
    "settle",
]

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


def module_criticality(
    table: pd.DataFrame, epsilons: Sequence[float], *, split: str = "train", confidence: float = 0.95
) -> pd.DataFrame:
    """mu_epsilon of every module: the smallest distance² / sigma² at which the mean loss stays at epsilon or below.

    On the direct path distance² = alpha² ‖final - initial‖_F², so this is the published measure; on the optimization
    path it is the same with the distance that training had gone. The loss is the mean over draws on `split`. A module
    that can be set back to its initial value has mu 0; one that bears no measured noise at any place has mu infinite.

    mu is that of the means. With few draws it is too small more often than too large, since one lucky cell is enough.
    So there is an interval over draws: mu_low is the smallest ratio at which the loss was not shown to exceed epsilon,
    mu_high the smallest at which it was shown not to (infinite where none was). They meet where enough draws were taken
    (`settle`); the grid of places and sizes of noise is taken as it is. In 1,000 simulations it holds mu, one of a few
    places, in 99 %. Columns: what identifies a module, epsilon, mu, mu_low, mu_high, num_draws (the most in a cell).
    """
    if len(epsilons) == 0:
        raise UserError("epsilons is empty: give at least one bound on the loss")
    keys, cells = _cells(table, split)
    rows = []
    for epsilon in epsilons:
        judged = _judge(cells, keys, float(epsilon), confidence)
        for group, part in judged.groupby(keys, sort=False, dropna=False):
            bounds = [part.loc[chosen, "ratio"].min() for chosen in (part["below"], ~part["refused"], part["allowed"])]
            values = (np.inf if np.isnan(bound) else float(bound) for bound in bounds)
            rows.append((*group, float(epsilon), *values, int(part["count"].max())))
    return pd.DataFrame(rows, columns=[*keys, "epsilon", "mu", "mu_low", "mu_high", "num_draws"])


def _cells(table: pd.DataFrame, split: str) -> tuple[list[str], pd.DataFrame]:
    """Columns that identify a module, and mean, spread and number of the losses at every place and size of noise."""
    chosen = table[table["split"] == split]
    if chosen.empty:
        present = ", ".join(map(str, table["split"].unique()))
        raise UserError(f"no rows of split {split!r} in the table, only {present}")
    keys = [column for column in table.columns if column not in (*MEASUREMENTS, "split")]
    cases = chosen.groupby([*keys, "position", "distance", "sigma"], sort=False, dropna=False)["loss"]
    cells = pd.DataFrame({"mean": cases.agg(_mean_with_nan), "std": cases.std(), "count": cases.size()}).reset_index()
    cells["ratio"] = _ratio(cells["distance"].to_numpy(), cells["sigma"].to_numpy())
    return keys, cells


def _judge(cells: pd.DataFrame, keys: list[str], epsilon: float, confidence: float) -> pd.DataFrame:
    """below: the mean is at epsilon or below. allowed, refused: shown by the draws that it is, or that it is not.

    By Student's t, at levels so that an interval from the first cell that is not refused to the first that is allowed
    is right with `confidence`: half of the error is for refusing the one cell that counts, half for allowing any of the
    cells before it. Cells are judged after every doubling of their draws, the k-th time with 1 / (k (k + 1)) of the
    error, which sums to 1. A cell without noise is exact.
    """
    count = cells["count"].to_numpy()
    doublings = np.maximum(np.ceil(np.log2(count)), 1)
    error = (1 - confidence) / 2 / (doublings * (doublings + 1))
    num_cells = cells.groupby(keys, sort=False, dropna=False)["mean"].transform("size").to_numpy()
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = (cells["mean"].to_numpy() - epsilon) / (cells["std"].to_numpy() / np.sqrt(count))
        refused = scores > scipy.stats.t.ppf(1 - error, count - 1)
        allowed = scores < scipy.stats.t.ppf(error / num_cells, count - 1)
    exact = cells["sigma"].to_numpy() == 0
    below = cells["mean"].to_numpy() <= epsilon
    # A loss that is not finite is no draw away from being allowed.
    broken = ~np.isfinite(cells["mean"].to_numpy())
    return cells.assign(
        below=below, allowed=np.where(exact, below, allowed), refused=np.where(exact, ~below, refused | broken)
    )


More = Callable[[set[Case], int, int], pd.DataFrame]
"""(module, position, sigma) of cells, their first new draw and how many -> rows like those of `criticality`."""


def settle(
    table: pd.DataFrame, epsilon: float, more: More, *, max_draws: int, split: str = "train", confidence: float = 0.95
) -> pd.DataFrame:
    """The table with further draws of the noise where they decide mu_epsilon, until they do or there are max_draws.

    The cells that decide are those that are neither allowed nor refused yet, whose ratio is at most the present mu, as
    what lies above it does not matter, and below that of every cell that is allowed. Their draws are doubled until none
    is left. table: of one path and end.
    """
    while cases := deciding_cells(table, epsilon, max_draws=max_draws, split=split, confidence=confidence):
        new = [more(chosen, count, min(count, max_draws - count)) for count, chosen in cases.items()]
        table = pd.concat([table, *new], ignore_index=True)
    return table


def deciding_cells(
    table: pd.DataFrame, epsilon: float, *, max_draws: int, split: str = "train", confidence: float = 0.95
) -> dict[int, set[Case]]:
    """Cells that decide mu_epsilon and are not settled, by the number of draws that they have so far."""
    keys, cells = _cells(table, split)
    judged = _judge(cells, keys, epsilon, confidence)
    modules = [judged[key] for key in keys]
    mu, settled = (
        judged["ratio"].where(judged[chosen]).groupby(modules, dropna=False).transform("min").fillna(np.inf)
        for chosen in ("below", "allowed")
    )
    at_issue = (judged["ratio"] <= mu) & (judged["ratio"] < settled) & ~judged["allowed"] & ~judged["refused"]
    by_count: dict[int, set[Case]] = {}
    for row in judged[at_issue & (judged["count"] < max_draws)].to_dict("records"):
        by_count.setdefault(int(row["count"]), set()).add((str(row["module"]), row["position"], row["sigma"]))
    return by_count


def _mean_with_nan(values: pd.Series) -> float:
    return float(values.mean(skipna=False))


def _ratio(distance: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """distance² / sigma²: 0 where nothing is moved, infinite where something is and no noise is borne."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(distance == 0, 0.0, np.square(distance / sigma))


def network_criticality(mu: pd.DataFrame) -> pd.DataFrame:
    """The sum of mu over a network's modules, per epsilon: the published measure of the whole network."""
    keys = [column for column in mu.columns if column not in ("module", "mu", "mu_low", "mu_high", "num_draws")]
    return mu.groupby(keys, sort=False, dropna=False)["mu"].sum().reset_index()
