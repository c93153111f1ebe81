"""What the nodes of landscape measure: lines between two models, and the modules of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from transferscope.analysis.criticality import criticality, module_criticality
from transferscope.analysis.evaluation import Batch, Evaluator, prepare
from transferscope.analysis.interpolation import walk
from transferscope.analysis.rewinding import rewinding
from transferscope.images.augment import EvaluationTransform
from transferscope.models.modules import find_modules
from transferscope.models.parts import split_at_modules
from transferscope.models.series import CheckpointSeries, Epoch
from transferscope.options import CriticalityOptions, LandscapeOptions
from transferscope.plan import derive_seed
from transferscope.progress import progress_bar
from transferscope.training.metrics import metrics_from_logits

METRICS = ("accuracy", "loss", "auc")
RESIDENT_BYTES = 1 << 30


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
            PartsEvaluator(chosen),
            progress=advance,
        )
    parts = table.pop("metric").str.partition("/")
    first = next(iter(splits.values()))
    names = {"task": first.name, "split": parts[0], **ends.names}
    return pd.DataFrame({**names, "alpha": table["alpha"], "metric": parts[2], "value": table["value"]})


class PartsEvaluator:
    """`part/metric -> value` of a model on each of some splits; their images are prepared once for all models."""

    def __init__(self, splits: dict[str, Any]) -> None:
        self._parts = {part: Evaluator(batches(split), _metrics_of(split)) for part, split in splits.items()}

    def __call__(self, model: nn.Module) -> dict[str, float]:
        return {
            f"{part}/{metric}": value
            for part, measure in self._parts.items()
            for metric, value in measure(model).items()
        }


def _metrics_of(split: Any) -> Callable[[Tensor, Tensor], dict[str, float]]:
    def metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
        found = metrics_from_logits(logits, labels, multi_label=split.multi_label)
        return {name: value for name, value in found.items() if name in METRICS}

    return metrics


def batches(split: Any, size: int = 128) -> list[Batch] | Callable[[], Iterator[Batch]]:
    """Network inputs and labels: kept in memory where they take less than a GiB, else made anew for every pass."""
    transform = EvaluationTransform(split.pictures)
    labels = torch.as_tensor(np.asarray(split.labels))
    parts = torch.arange(len(split)).split(size)

    def stream() -> Iterator[Batch]:
        for part in parts:
            inputs = transform(split.gather(part)).contiguous(memory_format=torch.channels_last)
            yield inputs, labels[part]

    side = split.pictures.seen_size
    return list(stream()) if len(split) * 3 * side * side * 4 < RESIDENT_BYTES else stream


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
    base = PartsEvaluator({"train": chosen["train"]})(model)["train/loss"]
    mu = module_criticality(shaken, [base + options.epsilon])
    mu["epsilon"] = options.epsilon
    back = rewinding(
        model,
        series.load("final").state_dict,
        {0: series.load(0).state_dict},
        find_modules(model),
        PartsEvaluator({"test": splits["test"]}),
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
    until = [epoch for epoch in series.epochs if epoch <= series.epoch(end)]
    trajectory = {epoch: series.load(epoch).state_dict for epoch in until} if path == "optimization" else None
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
