"""Measure the speed of a device on which costs are estimated, at the work that the plan will give it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from transferscope.experiment.options import ModelOptions, Precision, TrainingOptions
from transferscope.experiment.plan import Plan
from transferscope.experiment.study import pictures_of

if TYPE_CHECKING:
    import torch

EVALUATED = 256
"""Images of a batch in evaluation."""
ANALYSED = 128
"""Images of a batch in analyses."""


@dataclass(frozen=True)
class Speed:
    """Images per second of one device: of a training step, and of a forward pass.

    A CPU is a device with all of its cores, which work side by side, each on a network of its own, and on nothing else.
    """

    train: float
    forward: float
    analyses: float | None = None
    """Of a forward pass in analyses; None: the same as in training."""

    @property
    def in_analyses(self) -> float:
        """Images per second of a forward pass in analyses."""
        return self.forward if self.analyses is None else self.analyses


Speeds = Speed | Mapping[str, Speed]
"""One for all runs, or by the run's full name."""


def speed_of(speeds: Speeds, run: str) -> Speed:
    """The speed of a run's network."""
    return speeds if isinstance(speeds, Speed) else speeds[run]


def measure_speeds(plan: Plan, *, seconds: float = 6.0) -> dict[str, Speed]:
    """Speed of this machine's first device for the network of every run, each kind of network measured once.

    Measured is what the plan will do: precision, memory format, compiler and batch size of the run's training, and the
    precision and compiler of analyses. seconds: of the whole, beside what compilers take.
    """
    analyses = plan.study.analyses
    asked = {}
    for run in plan.runs.values():
        options = run.training
        side = pictures_of(plan.study, run.task).seen_size
        facts = options.batch_size, options.precision, options.channels_last, options.compile
        asked[run.full_name] = (run.model.model_dump_json(), side, facts), (run.model, side, options)
    different = dict(asked.values())
    each = seconds / max(1, len(different))
    measured = {
        key: measure_speed(
            model, side, training=options, precision=analyses.precision, compiled=analyses.compile, seconds=each
        )
        for key, (model, side, options) in different.items()
    }
    return {run: measured[key] for run, (key, _) in asked.items()}


def measure_speed(
    model: ModelOptions,
    side: int,
    *,
    training: TrainingOptions | None = None,
    precision: Precision = "float32",
    compiled: bool = False,
    num_classes: int = 10,
    seconds: float = 5.0,
) -> Speed:
    """Speed of this machine's first device on random images of `side` pixels.

    training: Its batch size, precision, memory format, compiler and clipping are those of the steps that are measured;
    None: those of `TrainingOptions`. precision, compiled: Of analyses.
    """
    import torch

    options = training or TrainingOptions()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    number = 1 if device.type == "cuda" else len(os.sched_getaffinity(0))
    works = [_Work(model, side, options, precision, compiled, num_classes, device) for _ in range(number)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if device.type == "cpu" else threads)
    try:
        return Speed(
            train=options.batch_size * _rate([work.step for work in works], device, seconds / 2),
            forward=EVALUATED * _rate([work.evaluate for work in works], device, seconds / 4),
            analyses=ANALYSED * _rate([work.analyse for work in works], device, seconds / 4),
        )
    finally:
        torch.set_num_threads(threads)


class _Work:
    """A network and the three kinds of work that plans give it."""

    def __init__(
        self,
        model: ModelOptions,
        side: int,
        options: TrainingOptions,
        precision: Precision,
        compiled: bool,
        num_classes: int,
        device: torch.device,
    ) -> None:
        import torch

        from transferscope.models.layers import image_channels
        from transferscope.models.memory_layout import as_input, first_weight, lay_out
        from transferscope.models.plain_sgd import PlainSGD
        from transferscope.models.precision import TYPES, analyses_precision
        from transferscope.models.zoo import build_model

        self.dtype = TYPES[analyses_precision(precision, device)]
        network = build_model(model.name, num_classes, seed=0, **model.options)
        layout = torch.channels_last if options.channels_last else torch.contiguous_format
        self.network = network.to(device)
        lay_out(network, layout)
        self.called = torch.compile(network, dynamic=False) if options.compile else network
        analysed = build_model(model.name, num_classes, seed=0, **model.options).eval()
        analysed.to(device=device, dtype=self.dtype)
        lay_out(analysed, torch.channels_last)
        self.analysed = torch.compile(analysed, dynamic=False) if compiled else analysed
        largest = max(options.batch_size, EVALUATED)
        self.images = torch.randn(largest, image_channels(network), side, side, device=device)
        self.images = as_input(self.images, first_weight(network))
        self.seen = as_input(self.images[:ANALYSED].to(self.dtype), first_weight(analysed))
        self.labels = torch.zeros(options.batch_size, dtype=torch.long, device=device)
        self.optimizer = PlainSGD(network.parameters(), lr=0.0, momentum=0.9, fused=True)
        self.options, self.device = options, device

    def step(self) -> None:
        import torch

        self.network.train()
        with self._autocast():
            logits = self.called(self.images[: self.options.batch_size])
        self.optimizer.zero_grad()
        torch.nn.functional.cross_entropy(logits.float(), self.labels).backward()
        if self.options.clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.options.clip_norm, foreach=True)
        self.optimizer.step()

    def evaluate(self) -> None:
        import torch

        self.network.eval()
        with torch.inference_mode(), self._autocast():
            self.called(self.images[:EVALUATED])

    def analyse(self) -> None:
        import torch

        with torch.inference_mode():
            self.analysed(self.seen)

    def _autocast(self) -> torch.autocast:
        import torch

        from transferscope.models.precision import training_type

        dtype = training_type(self.options.precision, self.device)
        return torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)


def _rate(actions: list[Callable[[], None]], device: torch.device, seconds: float) -> float:
    """Times per second of all actions, each in a thread beside the others, after a first time that does not count.

    On a CPU seconds are those that a thread computes, so that other programs on its core do not count.
    """
    import torch

    def finish() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()

    for action in actions:
        action()
    finish()
    begin = time.perf_counter()
    clock = time.thread_time if device.type == "cpu" else time.perf_counter

    def repeat(action: Callable[[], None]) -> float:
        count, started = 0, clock()
        while count == 0 or time.perf_counter() - begin < seconds:
            action()
            count += 1
        finish()
        return count / (clock() - started)

    with ThreadPoolExecutor(len(actions)) as pool:
        return sum(pool.map(repeat, actions))
