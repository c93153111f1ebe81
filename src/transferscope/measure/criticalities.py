"""Measurements of the modules of one run: criticality and rewinding."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import NamedTuple, cast

import numpy as np
import pandas as pd

from transferscope.analysis.criticality import MEASUREMENTS
from transferscope.analysis.criticality import criticality as disturb
from transferscope.analysis.learning import loss_without_knowledge
from transferscope.analysis.module_criticality import module_criticality, settle
from transferscope.analysis.rewinding import rewinding as rewind
from transferscope.analysis.screening import screened_criticality
from transferscope.analysis.states import State
from transferscope.experiment.options import CriticalityOptions, ModulesOptions
from transferscope.experiment.seeds import derive_seed
from transferscope.measure.bench import Bench, batches, workspace
from transferscope.models.checkpoint import Checkpoint
from transferscope.models.layers import image_channels
from transferscope.models.modules import Modules, find_modules
from transferscope.models.parametrised import analysed_model, analysed_state
from transferscope.models.parts import split_at_modules
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.models.state_dicts import state_digest
from transferscope.system.progress import progress_bar

logger = logging.getLogger(__name__)

MODULES_AT_ONCE = 4

Case = tuple[str, float, float]
"""Module, position on its path, and sigma of the noise."""


class Criticality(NamedTuple):
    """Criticality of the modules of one run."""

    noise: pd.DataFrame
    """A row per module, path, end, part, position, sigma and draw: distance, loss, error; num_examples."""
    mu: pd.DataFrame
    """A row per module, path and end: epsilon (`epsilon_share`), bound (the largest train loss, nats), mu, mu_low,
    mu_high, num_draws; num_examples. mu is NaN where the unperturbed model is no better than the class frequencies."""


def modules_of(checkpoint: Checkpoint, options: ModulesOptions | None = None) -> Modules:
    """Find the modules of analysis of a checkpoint's network."""
    chosen = options or ModulesOptions()
    return find_modules(analysed_model(checkpoint), granularity=chosen.granularity, groups=chosen.groups)


def criticality(
    bench: Bench, series: CheckpointSeries, modules: Modules, options: CriticalityOptions | None = None
) -> Criticality:
    """Measure every module of a run, moved towards its initial value and disturbed, on all parts of the bench.

    In bfloat16 what lies near the bound of mu, and the bound itself, are measured in float32. `max_examples` and
    `rewind_epochs` of the options are the caller's.
    """
    chosen = options or CriticalityOptions()
    noise, mu = [], []
    for end in chosen.ends:
        bound = _bound(bench, series.load(end), chosen.epsilon_share)
        for path in chosen.paths:
            table = _Disturbed(bench, series, modules, chosen, end, path, bound).measure()
            noise.append(table)
            own = module_criticality(table, [bound]).rename(columns={"epsilon": "bound"})
            own.insert(list(own.columns).index("bound"), "epsilon", chosen.epsilon_share)
            mu.append(own if math.isfinite(bound) else own.assign(mu=math.nan, mu_low=math.nan, mu_high=math.nan))
            _name_what_says_nothing(series.name, own, path, end)
    tables = pd.concat(noise, ignore_index=True), pd.concat(mu, ignore_index=True)
    sizes = {part: len(split) for part, split in bench.splits.items()}
    return Criticality(
        tables[0].assign(num_examples=tables[0]["split"].map(sizes)), tables[1].assign(num_examples=sizes["train"])
    )


def _bound(bench: Bench, checkpoint: Checkpoint, share: float) -> float:
    """Largest train loss that counts as unharmed; NaN for a model that is no better than the class frequencies."""
    own = _unperturbed_loss(bench, checkpoint)
    learned = loss_without_knowledge(np.asarray(bench.split("train").labels)) - own
    if not learned > 0:
        run = checkpoint.metadata.run
        logger.warning("%s knows no more than the frequencies of the classes: no criticality of modules", run)
        return math.nan
    return own + share * learned


def _name_what_says_nothing(run: str, mu: pd.DataFrame, path: str, end: Epoch) -> None:
    if len(mu) > 1 and (mu["mu"] == 0).all():
        logger.warning(
            "%s, %s path to %s: each module can be set back at epsilon_share %g, so criticality says nothing; "
            "give analyses.landscape.criticality.epsilon_share a smaller value",
            run,
            path,
            end,
            mu["epsilon"].iloc[0],
        )


def rewinding(bench: Bench, series: CheckpointSeries, modules: Modules, epochs: Sequence[int] = (0,)) -> pd.DataFrame:
    """Measure the final model on test with one module set back to each of some epochs: the columns of the analysis.

    Beside them: split, num_examples. Epochs that a run which diverged never came to are left out.
    """
    final = series.load("final")
    model = workspace(final)
    earlier = {epoch: analysed_state(series.load(epoch)) for epoch in series.reached(epochs)}
    with progress_bar(f"{series.name}: modules set back", len(modules) * len(earlier)) as advance:
        evaluate = bench.metrics(final, ["test"])
        table = rewind(model, analysed_state(final), earlier, modules, evaluate, progress=advance)
    metric = table["metric"].str.removeprefix("test/")
    return table.assign(split="test", metric=metric, num_examples=len(bench.split("test")))


def _unperturbed_loss(bench: Bench, checkpoint: Checkpoint) -> float:
    exact = Bench(bench.splits, bench.store)
    return float(exact.metrics(checkpoint, ["train"])(workspace(checkpoint))["train/loss"])


class _Disturbed:
    """Criticality of every module on one path; what the store has is not measured again."""

    def __init__(
        self,
        bench: Bench,
        series: CheckpointSeries,
        modules: Modules,
        options: CriticalityOptions,
        end: Epoch,
        path: str,
        bound: float,
    ) -> None:
        self.bench, self.modules, self.options, self.bound = bench, modules, options, bound
        self.final, self.initial = series.load(end), analysed_state(series.load(0))
        self.model, self.final_state = workspace(self.final), analysed_state(self.final)
        epochs = [epoch for epoch in series.epochs if epoch <= series.epoch(end)]
        self.trajectory = (
            {epoch: analysed_state(series.load(epoch)) for epoch in epochs} if path == "optimization" else None
        )
        self.positions = options.positions.values() if self.trajectory is None else [float(epoch) for epoch in epochs]
        self.seed = derive_seed(series.name, "criticality")
        self.places = _places(self.initial, self.final_state, self.positions, self.trajectory)
        channels = image_channels(self.model)
        self.examples = {part: batches(split, channels) for part, split in bench.splits.items()}
        self.names = {"path": path, "end": end}
        self.title = f"{series.name}: {path} path to {end}"

    def measure(self) -> pd.DataFrame:
        """All parts with the draws asked for, and on train further draws where they decide mu."""
        cases = {(name, at, sigma) for name in self.modules for at in self.positions for sigma in self.options.sigmas}
        screened = self.bench.precision != "float32" and math.isfinite(self.bound)
        with progress_bar(self.title, len(self.modules)) as advance:
            table = self._rows(cases, 0, self.options.draws, list(self.bench.splits), screened, advance)
        if not math.isfinite(self.bound):
            return table

        def more(cases: set[Case], first: int, num: int) -> pd.DataFrame:
            return self._rows(cases, first, num, ["train"], False, lambda _: None)

        return settle(table, self.bound, more, max_draws=self.options.max_draws)

    def _rows(
        self, cases: set[Case], first: int, num: int, parts: list[str], screened: bool, advance: Callable[[int], None]
    ) -> pd.DataFrame:
        ordered = [
            (name, at, sigma)
            for name in self.modules
            for at in self.positions
            for sigma in self.options.sigmas
            if (name, at, sigma) in cases
        ]
        keys = {case: self._key(case, first, num, parts, screened) for case in ordered}
        rows: dict[Case, dict[str, np.ndarray]] = {}
        for group in _groups([name for name in self.modules if any(case[0] == name for case in ordered)]):
            of_group = [case for case in ordered if case[0] in group]
            stored = {case: self.bench.store.get(keys[case]) for case in of_group}
            rows |= {case: measured for case, measured in stored.items() if measured is not None}
            missing = {case for case in of_group if case not in rows}
            if missing:
                table = self._measure(group, missing, first, num, parts, screened)
                for case, measured in _by_case(table).items():
                    rows[case] = self.bench.store[keys[case]] = measured
            advance(len(group))
        columns = {
            column: np.concatenate([rows[case][column] for case in ordered]) for column in ("split", *MEASUREMENTS)
        }
        counts = [len(rows[case]["split"]) for case in ordered]
        # A place that both paths pass may be stored under its position on the other.
        columns["position"] = np.repeat([case[1] for case in ordered], counts)
        table = pd.DataFrame({**columns, "module": np.repeat([case[0] for case in ordered], counts)})
        return table.assign(**self.names)[["module", "path", "end", "split", *MEASUREMENTS]]

    def _key(self, case: Case, first: int, num: int, parts: list[str], screened: bool) -> str:
        name, at, sigma = case
        settled = [self.bound] if screened else []
        draws = [num] if first == 0 else [first, num]
        splits = [self.bench.split(part) for part in parts]
        return self.bench.key(
            self.final, "criticality", name, *self.modules[name], self.places[at], sigma, *draws, self.seed, *settled,
            *splits,
        )  # fmt: skip

    def _measure(
        self, group: list[str], cases: set[Case], first: int, num: int, parts: list[str], screened: bool
    ) -> pd.DataFrame:
        measure = (
            partial(screened_criticality, epsilons=[self.bound], split=split_at_modules)
            if screened
            else partial(disturb, stages=split_at_modules(self.model))
        )
        return measure(
            self.model,
            self.initial,
            self.final_state,
            {name: self.modules[name] for name in group},
            {part: self.examples[part] for part in parts},
            alphas=self.positions,
            sigmas=self.options.sigmas,
            num_draws=num,
            first_draw=first,
            seed=self.seed,
            trajectory=self.trajectory,
            only=cases,
            compiled=self.bench.compiled,
        )


def _groups(names: list[str]) -> list[list[str]]:
    """Modules that are measured together: they share what lies in front of them, and a kill loses them together."""
    return [names[start : start + MODULES_AT_ONCE] for start in range(0, len(names), MODULES_AT_ONCE)]


def _by_case(table: pd.DataFrame) -> dict[Case, dict[str, np.ndarray]]:
    """Rows as arrays, by module, position and sigma."""
    columns = {"split": table["split"].to_numpy(dtype=str)}
    columns |= {column: table[column].to_numpy() for column in MEASUREMENTS}
    cases = table.groupby(["module", "position", "sigma"], sort=False).indices
    return {cast(Case, case): {name: values[rows] for name, values in columns.items()} for case, rows in cases.items()}


def _places(
    initial: State, final: State, positions: list[float], trajectory: Mapping[int, State] | None
) -> dict[float, list[object]]:
    """Contents from which the weights of a module at each position follow; both paths begin and end at one place."""
    ends = [state_digest(initial), state_digest(final)]
    if trajectory is None:
        at_ends: dict[float, object] = {0.0: ends[0], 1.0: ends[1]}
        return {position: [*ends, at_ends.get(position, position)] for position in positions}
    return {position: [*ends, state_digest(trajectory[int(position)])] for position in positions}
