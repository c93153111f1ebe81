"""What the nodes of landscape measure: lines between two models, and the modules of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from torch import nn

from transferscope.analysis.criticality import criticality, module_criticality
from transferscope.analysis.evaluation import prepare
from transferscope.analysis.interpolation import walk
from transferscope.analysis.rewinding import rewinding
from transferscope.images.augment import EvaluationTransform
from transferscope.models.modules import find_modules
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.models.parts import split_at_modules
from transferscope.options import CriticalityOptions, LandscapeOptions
from transferscope.plan import derive_seed
from transferscope.progress import progress_bar
from transferscope.training.evaluate import evaluate

METRICS = ("accuracy", "loss", "auc")


@dataclass(frozen=True)
class Ends:
    """The two models of a line."""

    pair: dict[str, Any]
    series_a: CheckpointSeries
    series_b: CheckpointSeries
    epoch: Epoch

    @property
    def names(self) -> dict[str, str]:
        return {
            "pair_kind": self.pair["kind"],
            "checkpoint_a": f"{self.pair['run_a']}@{self.epoch}",
            "checkpoint_b": f"{self.pair['run_b']}@{self.epoch}",
        }


def line(ends: Ends, splits: dict[str, Any], alphas: list[float], options: LandscapeOptions) -> pd.DataFrame:
    """Every metric on every split at every alpha; one row each."""
    checkpoint_a, checkpoint_b = ends.series_a.load(ends.epoch), ends.series_b.load(ends.epoch)
    model = prepare(checkpoint_a.build())
    chosen = {part: subset(split, options.max_examples, part) for part, split in splits.items()}
    label = f"{ends.names['checkpoint_a']} to {ends.names['checkpoint_b']}"
    with progress_bar(label, len(alphas)) as advance:
        table = walk(
            model,
            checkpoint_a.state_dict,
            checkpoint_b.state_dict,
            alphas,
            lambda moved: measure_parts(moved, chosen),
            progress=advance,
        )
    parts = table.pop("metric").str.partition("/")
    first = next(iter(splits.values()))
    names = {"task": first.name, "split": parts[0], **ends.names}
    return pd.DataFrame({**names, "alpha": table["alpha"], "metric": parts[2], "value": table["value"]})


def measure_parts(model: nn.Module, splits: dict[str, Any]) -> dict[str, float]:
    """`part/metric -> value` on each split."""
    return {
        f"{part}/{metric}": value
        for part, split in splits.items()
        for metric, value in evaluate(model, split).items()
        if metric in METRICS
    }


def subset(split: Any, limit: int | None, *seed: object) -> Any:
    """At most `limit` examples, drawn once per split so that all points and models see the same."""
    if limit is None or len(split) <= limit:
        return split
    generator = np.random.default_rng(derive_seed(split.name, *seed))
    return split.subset(np.sort(generator.choice(len(split), limit, replace=False)))


def modules(
    run: dict[str, Any], series: CheckpointSeries, splits: dict[str, Any], options: CriticalityOptions
) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Criticality, mu per module, and rewinding, of one run."""
    chosen = {part: subset(split, options.max_examples, part) for part, split in splits.items()}
    shaken = pd.concat([_shake(series, chosen, options, end, path) for end in options.ends for path in options.paths])
    model = prepare(series.load("final").build())
    base = evaluate(model, chosen["train"])["loss"]
    mu = module_criticality(shaken, [base + options.epsilon])
    mu["epsilon"] = options.epsilon
    back = rewinding(
        model,
        series.load("final").state_dict,
        {0: series.load(0).state_dict},
        find_modules(model),
        lambda moved: measure_parts(moved, {"test": splits["test"]}),
    )
    back["split"] = "test"
    back["metric"] = back["metric"].str.removeprefix("test/")
    names = {"task": run["task"], "run": run["name"], "label": run["label"]}
    shaken, mu, back = (table.assign(**names)[[*names, *table.columns]] for table in (shaken, mu, back))
    return shaken, mu, back


def _shake(
    series: CheckpointSeries, splits: dict[str, Any], options: CriticalityOptions, end: Epoch, path: str
) -> pd.DataFrame:
    final = series.load(end)
    model = prepare(final.build())
    examples = {part: batches(split) for part, split in splits.items()}
    trajectory = {epoch: series.load(epoch).state_dict for epoch in series.epochs} if path == "optimization" else None
    table = criticality(
        model,
        series.load(0).state_dict,
        final.state_dict,
        find_modules(model),
        examples,
        alphas=options.positions.values(),
        sigmas=options.sigmas,
        num_draws=options.draws,
        seed=derive_seed(series.name, "criticality"),
        trajectory=trajectory,
        stages=split_at_modules(model),
    )
    table.insert(2, "end", end)
    return table


def batches(split: Any, size: int = 128) -> list[tuple[Any, Any]]:
    """The split as network inputs and labels; a few hundred images, so all at once."""
    import torch

    transform = EvaluationTransform(split.pictures)
    labels = torch.as_tensor(np.asarray(split.labels))
    starts = range(0, len(split), size)
    indices = [np.arange(start, min(start + size, len(split))) for start in starts]
    return [
        (transform(split.gather(part)).contiguous(memory_format=torch.channels_last), labels[part]) for part in indices
    ]
