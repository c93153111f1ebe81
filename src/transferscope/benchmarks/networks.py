"""Speed of training and of forward passes: the chip, the study's network, and the default's small one."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from transferscope.benchmarks.cases import Case, Setting

SMALL_TRAININGS = 23
"""Runs of the study that fit beside each other on one GPU."""
SMALL_BATCH = 32
BACKWARD = 3.0
"""Operations of an optimizer step over those of its forward pass."""


def chip(setting: Setting) -> Iterator[Case]:
    """A large product of matrices, and a copy within memory: what the device can do at most."""
    yield Case(f"product of matrices, {setting.precision}", lambda: setting.product_rate() / 1e12, "TFLOP/s")
    yield Case("copy within memory", lambda: _copied(setting) / 1e9, "GB/s")


def _copied(setting: Setting) -> float:
    """Bytes read and written a second."""
    source = torch.zeros((1 << 20) if setting.small else (1 << 30), dtype=torch.uint8, device=setting.device)
    target = torch.empty_like(source)

    def work() -> int:
        target.copy_(source)
        return 2 * source.numel()

    return setting.rate(work)


def forward(setting: Setting) -> Iterator[Case]:
    """Forward passes of the study's network, images already there."""
    flops = setting.flops()
    precisions = list(dict.fromkeys([setting.precision, "float32"]))
    for batch in _batches(setting):
        for precision in precisions:
            for compiled in (False, True):
                way = "compiled" if compiled else "eager"
                rate = partial(_forward_rate, setting, batch, precision, compiled)
                yield Case(f"batch {batch}, {precision}, {way}", rate, flops=flops)


def _batches(setting: Setting) -> tuple[int, int]:
    return (8, 4) if setting.small else (256, 32)


def _forward_rate(setting: Setting, batch: int, precision: str, compiled: bool) -> float:
    network = setting.network().eval().to(getattr(torch, precision))
    called = _compiled(setting, network) if compiled else network
    images = _noise(setting, batch).to(getattr(torch, precision))

    def work() -> int:
        called(images)
        return batch

    with torch.inference_mode():
        return setting.rate(work, warm_up=3)


def _noise(setting: Setting, batch: int) -> Tensor:
    images = torch.randn(batch, 3, setting.side, setting.side, device=setting.device)
    return images.contiguous(memory_format=torch.channels_last)


def _compiled(setting: Setting, network: nn.Module, mode: str | None = None) -> nn.Module:
    """In the small mode the graph is traced and called as it is: a compiler of C++ would take most of the time."""
    if setting.small:
        return torch.compile(network, dynamic=False, backend="eager")  # type: ignore[return-value]
    return torch.compile(network, dynamic=False, mode=mode)  # type: ignore[return-value]


def training(setting: Setting) -> Iterator[Case]:
    """Optimizer steps of this package as they are, images on the device, without a compiler."""
    flops = BACKWARD * setting.flops()
    for batch in _batches(setting):
        for deterministic in (False, True):
            kind = "deterministic" if deterministic else "any algorithm"
            rate = partial(_training_rate, setting, batch, deterministic)
            yield Case(f"batch {batch}, eager, {kind}", rate, flops=flops)


def compiled_training(setting: Setting) -> Iterator[Case]:
    """The same compiled, with and without CUDA graphs; the compiler's own time is part of `seconds`."""
    flops = BACKWARD * setting.flops()
    large, little = _batches(setting)
    for batch, deterministic, mode in (
        (large, False, None),
        (little, False, "reduce-overhead"),
        (large, True, None),
        (little, False, None),
        (little, True, "reduce-overhead"),
    ):
        kind = "deterministic" if deterministic else "any algorithm"
        way = "compiled, graphs" if mode else "compiled"
        rate = partial(_training_rate, setting, batch, deterministic, compiled=True, mode=mode)
        against = (f"batch {large}, compiled, any algorithm",) if batch == little and mode else ()
        yield Case(f"batch {batch}, {way}, {kind}", rate, flops=flops, against=against)


def _training_rate(
    setting: Setting, batch: int, deterministic: bool, *, compiled: bool = False, mode: str | None = None
) -> float:
    from transferscope.training.device import reproducible

    with reproducible(deterministic=deterministic, compiled=compiled):
        step = _step(setting, batch, deterministic, compiled=compiled, mode=mode)
        return setting.rate(step, warm_up=4)


def _step(setting: Setting, batch: int, deterministic: bool, *, compiled: bool, mode: str | None) -> Callable[[], int]:
    """One optimizer step of the study's training, with the paper's augmentation, from images on the device."""
    from transferscope.benchmarks.feeding import split_in_memory
    from transferscope.experiment.options import ModelOptions, TrainingOptions
    from transferscope.experiment.run import RunSpec
    from transferscope.images.feed import Feed
    from transferscope.training.device import OneProcess
    from transferscope.training.optim import make_optimizer
    from transferscope.training.step import Setup, take_step

    name, model_options = setting.model
    options = TrainingOptions.model_validate(
        {
            "epochs": 1,
            "batch_size": batch,
            "lr": 1e-3,
            "precision": setting.precision,
            "channels_last": True,
            "deterministic": deterministic,
            "augmentation": {"flip": True, "random_resized_crop": (0.08, 1.0)},
        }
    )
    run = RunSpec(task="bench", name="run_1", model=ModelOptions(name=name, options=model_options), training=options)
    split = split_in_memory(setting, 2 * batch)
    feed = Feed(split, setting.device)
    model = setting.network().train()
    network = _compiled(setting, model, mode) if compiled else model
    setup = Setup(run, split, 1, setting.device, OneProcess(), model, network, False)
    optimizer = make_optimizer(model, options)
    steps = iter(range(10**9))

    def step() -> int:
        indices = (np.arange(batch) + next(steps)) % len(split)
        share = setup.share(1, 0, indices)
        (stored,) = feed.batches([share.read])
        if mode == "reduce-overhead" and not setting.small:
            torch.compiler.cudagraph_mark_step_begin()
        take_step(setup, optimizer, 1, 0, share, stored)
        return batch

    return step


def small_trainings(setting: Setting) -> Iterator[Case]:
    """The default's small network: one training alone, many in threads, many as one by `torch.func.vmap`."""
    number = 2 if setting.small else SMALL_TRAININGS
    alone = "one training"
    yield Case(alone, partial(_alone_rate, setting))
    yield Case(f"{number} trainings in threads", partial(_threads_rate, setting, number), against=(alone,))
    for precision in dict.fromkeys(["float32", setting.precision]):
        rate = partial(_together_rate, setting, number, precision)
        yield Case(f"{number} trainings as one, {precision}", rate, against=(alone,))


def _small_network(seed: int) -> nn.Module:
    from transferscope.models.zoo import build_model

    return build_model("fixup_resnet_small", 10, seed=seed)


def _small_batch(setting: Setting) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(SMALL_BATCH, 3, 32, 32, generator=generator).to(setting.device)
    return images, torch.arange(SMALL_BATCH, device=setting.device) % 10


def _optimizer(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=1e-4, fused=True)


def small_step(setting: Setting, seed: int) -> tuple[nn.Module, Callable[[], int]]:
    """A small network, and a function that takes one optimizer step of it."""
    network = _small_network(seed).to(setting.device)
    optimizer = _optimizer(network.parameters())
    images, labels = _small_batch(setting)

    def step() -> int:
        loss = F.cross_entropy(network(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return SMALL_BATCH

    return network, step


def _alone_rate(setting: Setting) -> float:
    return setting.rate(small_step(setting, 0)[1], warm_up=3)


def _threads_rate(setting: Setting, number: int) -> float:
    """Each training in a thread with a stream of its own, as nodes of a run are."""
    steps = [small_step(setting, seed)[1] for seed in range(number)]
    on_gpu = setting.device.type == "cuda"
    streams = [torch.cuda.Stream(setting.device) if on_gpu else None for _ in steps]

    def several(index: int) -> int:
        stream = streams[index]
        with torch.cuda.stream(stream) if stream is not None else nullcontext():
            return sum(steps[index]() for _ in range(2 if setting.small else 10))

    with ThreadPoolExecutor(number) as pool:
        return setting.rate(lambda: sum(pool.map(several, range(number))))


def _together_rate(setting: Setting, number: int, precision: str) -> float:
    return setting.rate(step_together(setting, number, precision)[1], warm_up=3)


def step_together(setting: Setting, number: int, precision: str) -> tuple[dict[str, Tensor], Callable[[], int]]:
    """Weights of several small networks by name, `(number, ...)` each, and one vmapped optimizer step of all of them.

    Each network has weights, images and momentum of its own; network i is that of `small_step` with the seed i.
    """
    networks = [_small_network(seed).to(setting.device) for seed in range(number)]
    weights, buffers = torch.func.stack_module_state(networks)
    skeleton = copy.deepcopy(networks[0]).to("meta")
    images, labels = (torch.stack([part] * number) for part in _small_batch(setting))
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in weights.items()}
    optimizer = _optimizer(leaves.values())
    dtype = getattr(torch, precision)

    def loss(own: dict[str, Tensor], kept: dict[str, Tensor], given: Tensor, wanted: Tensor) -> Tensor:
        rounded = {name: tensor.to(dtype) for name, tensor in own.items()}
        logits = torch.func.functional_call(skeleton, (rounded, kept), (given.to(dtype),))
        return F.cross_entropy(logits.float(), wanted)

    gradients = torch.func.vmap(torch.func.grad(loss))

    def step() -> int:
        own = {name: leaf.detach() for name, leaf in leaves.items()}
        for name, gradient in gradients(own, buffers, images, labels).items():
            leaves[name].grad = gradient
        optimizer.step()
        return number * SMALL_BATCH

    return leaves, step
