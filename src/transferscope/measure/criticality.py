"""What is measured of the modules of one run: criticality and rewinding."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pandas as pd

from transferscope.analysis.criticality import MEASUREMENTS, criticality, module_criticality
from transferscope.analysis.evaluation import Store
from transferscope.analysis.rewinding import rewinding
from transferscope.analysis.screening import screened_criticality
from transferscope.analysis.states import State, state_digest
from transferscope.experiment.options import CriticalityOptions, Precision
from transferscope.experiment.plan import derive_seed
from transferscope.measure.bench import Engine, batches, subset, workspace
from transferscope.models.layers import image_channels
from transferscope.models.modules import Modules
from transferscope.models.parametrised import analysed_state
from transferscope.models.parts import split_at_modules
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.system.progress import progress_bar

MODULES_AT_ONCE = 4


def measure_modules(
    run: dict[str, Any],
    series: CheckpointSeries,
    modules: Modules,
    splits: dict[str, Any],
    options: CriticalityOptions,
    store: Store,
    precision: Precision = "float32",
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Criticality, mu per module, and rewinding, of one run.

    In bfloat16 what lies near the bound of mu, and the bound itself, are measured in float32.
    """
    chosen = {part: subset(split, options.max_examples, part) for part, split in splits.items()}
    shaken, mu = [], []
    for end in options.ends:
        bound = _unperturbed_loss(series, end, chosen["train"], store) + options.epsilon
        for path in options.paths:
            table = _shake(series, modules, chosen, options, end, path, store, bound, precision)
            shaken.append(table)
            mu.append(module_criticality(table, [bound]).assign(epsilon=options.epsilon))
    back = _rewind(series, modules, splits["test"], options, store, precision)
    names = {"task": run["task"], "run": run["name"], "label": run["label"]}
    tables = (pd.concat(shaken, ignore_index=True), pd.concat(mu, ignore_index=True), back)
    shaken_all, mu_all, back = (table.assign(**names)[[*names, *table.columns]] for table in tables)
    shaken_all["num_examples"] = shaken_all["split"].map({part: len(split) for part, split in chosen.items()})
    return shaken_all, mu_all.assign(num_examples=len(chosen["train"])), back.assign(num_examples=len(splits["test"]))


def _unperturbed_loss(series: CheckpointSeries, end: Epoch, split: Any, store: Store) -> float:
    checkpoint = series.load(end)
    return float(Engine(checkpoint, {"train": split}, store).checkpoint(workspace(checkpoint))["train/loss"])


def _rewind(
    series: CheckpointSeries,
    modules: Modules,
    split: Any,
    options: CriticalityOptions,
    store: Store,
    precision: Precision,
) -> pd.DataFrame:
    final = series.load("final")
    model = workspace(final)
    earlier = {epoch: analysed_state(series.load(epoch)) for epoch in series.reached(options.rewind_epochs)}
    evaluate = Engine(final, {"test": split}, store, precision=precision).checkpoint
    with progress_bar(f"{series.name}: modules set back", len(modules) * len(earlier)) as advance:
        table = rewinding(model, analysed_state(final), earlier, modules, evaluate, progress=advance)
    return table.assign(split="test", metric=table["metric"].str.removeprefix("test/"))


def _shake(
    series: CheckpointSeries,
    modules: Modules,
    splits: dict[str, Any],
    options: CriticalityOptions,
    end: Epoch,
    path: str,
    store: Store,
    bound: float,
    precision: Precision,
) -> pd.DataFrame:
    """Criticality of every module on one path; what the store has is not measured again."""
    final, initial = series.load(end), analysed_state(series.load(0))
    model, final_state = workspace(final), analysed_state(final)
    epochs = [epoch for epoch in series.epochs if epoch <= series.epoch(end)]
    trajectory = {epoch: analysed_state(series.load(epoch)) for epoch in epochs} if path == "optimization" else None
    positions: list[float] = options.positions.values() if trajectory is None else list(epochs)
    seed = derive_seed(series.name, "criticality")
    cases = [(name, at, sigma) for name in modules for at in positions for sigma in options.sigmas]
    places = _places(initial, final_state, positions, trajectory)
    context = Engine(final, {}, store, precision=precision).context
    settled = [] if precision == "float32" else [bound]
    keys = {
        (name, at, sigma): context(
            "criticality", name, *modules[name], places[at], sigma, options.draws, seed, *settled, *splits.values()
        )
        for name, at, sigma in cases
    }
    rows = {case: store.get(keys[case]) for case in cases}
    examples = {part: batches(split, image_channels(model)) for part, split in splits.items()}
    measure = (
        partial(criticality, stages=split_at_modules(model))
        if precision == "float32"
        else partial(screened_criticality, epsilons=[bound], split=split_at_modules)
    )
    with progress_bar(f"{series.name}: {path} path to {end}", len(modules)) as advance:
        for group in _groups(list(modules)):
            missing = {case for case in cases if case[0] in group and rows[case] is None}
            if missing:
                table = measure(
                    model,
                    initial,
                    final_state,
                    {name: modules[name] for name in group},
                    examples,
                    alphas=positions,
                    sigmas=options.sigmas,
                    num_draws=options.draws,
                    seed=seed,
                    trajectory=trajectory,
                    only=missing,
                )
                for case, measured in _by_case(table).items():
                    rows[case] = store[keys[case]] = measured
            advance(len(group))
    table = pd.concat([pd.DataFrame(rows[case]).assign(module=case[0]) for case in cases], ignore_index=True)
    return table.assign(path=path, end=end)[["module", "path", "end", "split", *MEASUREMENTS]]


def _groups(names: list[str]) -> list[list[str]]:
    """Modules that are measured together: they share what lies in front of them, and a kill loses them together."""
    return [names[start : start + MODULES_AT_ONCE] for start in range(0, len(names), MODULES_AT_ONCE)]


def _by_case(table: pd.DataFrame) -> dict[Any, dict[str, Any]]:
    """Rows of each module, position and sigma as arrays."""
    found = table.groupby(["module", "position", "sigma"], sort=False)
    return {
        case: {"split": part["split"].to_numpy(dtype=str)}
        | {column: part[column].to_numpy() for column in MEASUREMENTS}
        for case, part in found
    }


def _places(
    initial: State, final: State, positions: list[float], trajectory: Mapping[int, State] | None
) -> dict[float, list[object]]:
    """What the weights of a module at each position follow from, by content."""
    ends = [state_digest(initial), state_digest(final)]
    if trajectory is None:
        return {position: [*ends, position] for position in positions}
    return {position: [*ends, state_digest(trajectory[int(position)])] for position in positions}
