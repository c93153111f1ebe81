"""Interpolation and criticality against the bare forward pass and against the usual ways, side by side.

    python tests/benchmarks/bench_landscape.py [--model fixup_resnet50 --size 224 --images 64 --batch-size 16]
        [--only interpolation|criticality|cost|intervals] [--repeats 5] [--threads 2] [--precision float32|bfloat16]
        [--device cuda] [--workers 1]

No public library walks between checkpoints of image networks with what is measured here, so the usual ways are own
formulations of what published code does: a state_dict made and loaded at every point, on prepared tensors as ours has
them, or on images that a DataLoader with workers decodes from files at every pass. All compute in channels_last, in one
precision. Prints seconds (medians over interleaved repeats), of CPU with the workers' own, of the clock on a GPU, and
ratios. Nothing is asserted: speed depends on the machine.
"""

from __future__ import annotations

import argparse
import copy
import resource
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode

from transferscope.analysis.criticality import criticality
from transferscope.analysis.evaluator import (
    DTYPES,
    Evaluator,
    Metrics,
    Remembered,
    accuracy_and_loss,
    prepare,
    resident_batches,
    streamed_batches,
)
from transferscope.analysis.interpolation import interpolate, trace, walk
from transferscope.analysis.perturbation import standard_noise
from transferscope.analysis.resampling import Resampling, with_draws
from transferscope.datasets.measurements import MeasurementFolder
from transferscope.models.modules import find_modules
from transferscope.models.parts import split_at_modules
from transferscope.models.zoo import build_model

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
CLASSES = 10


def normalise(images: Tensor) -> Tensor:
    return (images.float() / 255 - MEAN.to(images.device)) / STD.to(images.device)


def clock(device: torch.device) -> float:
    """Seconds of CPU of this process and of its children that have ended; of the clock on a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize()
        return time.perf_counter()
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def side_by_side(ways: dict[str, Callable[[], object]], options: argparse.Namespace) -> dict[str, float]:
    """Median seconds of each way; the ways take turns, so that a busy machine slows all alike."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(options.repeats):
        for name, run in ways.items():
            start = clock(options.device)
            run()
            seconds[name].append(clock(options.device) - start)
        print(f"{repeat + 1} of {options.repeats}", file=sys.stderr, flush=True)
    return {name: statistics.median(times) for name, times in seconds.items()}


def show(title: str, seconds: dict[str, float], reference: str, passes: float) -> None:
    print(f"\n{title}")
    for name, value in seconds.items():
        print(f"  {name:44s} {value:9.3f} s  {passes / value:9.0f} images/s  {seconds[reference] / value:6.2f} x")


class Files(Dataset[tuple[Tensor, int]]):
    """JPEG files, decoded and normalised one by one: what most evaluation loops read."""

    def __init__(self, folder: Path, images: Tensor, labels: Tensor) -> None:
        self.labels = labels.tolist()
        self.paths = [folder / f"{index}.jpg" for index in range(len(images))]
        for path, image in zip(self.paths, images, strict=True):
            Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, quality=90)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            pixels = torch.from_numpy(np.asarray(image.convert("RGB")).copy()).permute(2, 0, 1)
        return normalise(pixels), self.labels[index]


def usual_walk(
    model: nn.Module, ends: list[dict[str, Tensor]], alphas: list[float], batches: Iterable[tuple[Tensor, Tensor]]
) -> None:
    """A state_dict is made and loaded at every point."""
    first = next(model.parameters())
    for alpha in alphas:
        model.load_state_dict({key: (1 - alpha) * ends[0][key] + alpha * ends[1][key] for key in ends[0]})
        correct, loss = 0, 0.0
        with torch.inference_mode():
            for inputs, labels in batches:
                moved = inputs.to(first.device, first.dtype, memory_format=torch.channels_last)
                targets = labels.to(first.device)
                logits = model(moved).float()
                correct += (logits.argmax(1) == targets).sum().item()
                loss += nn.functional.cross_entropy(logits, targets, reduction="sum").item()


def bench_interpolation(
    options: argparse.Namespace, ends: list[dict[str, Tensor]], images: Tensor, labels: Tensor
) -> None:
    alphas = np.linspace(0, 1, 11).tolist()
    model = prepare(build(options), options.device)
    made = {"batch_size": options.batch_size, "device": options.device}
    batches = resident_batches(images, labels, normalise, **made)
    streamed = streamed_batches(images, labels, normalise, **made)
    dtype = DTYPES[options.precision]
    bare, usual = (prepare(build(options), options.device).to(dtype) for _ in range(2))
    rounded = [(inputs.to(dtype), targets) for inputs, targets in batches]

    def forward_only() -> None:
        with torch.inference_mode():
            for _ in alphas:
                for inputs, _ in rounded:
                    bare(inputs)

    resident, fresh = Evaluator(batches, precision=options.precision), Evaluator(streamed, precision=options.precision)
    with tempfile.TemporaryDirectory() as folder:
        files = Files(Path(folder), images.cpu(), labels)
        loader = DataLoader(files, batch_size=options.batch_size, num_workers=options.workers)
        ways = {
            f"bare forward pass, {options.precision}": forward_only,
            "usual: state_dict, prepared tensors": lambda: usual_walk(usual, ends, alphas, rounded),
            f"usual: state_dict, DataLoader ({options.workers}), JPEG": lambda: usual_walk(usual, ends, alphas, loader),
            "walk, resident": lambda: walk(model, *ends, alphas, resident),
            "walk, normalised at each pass": lambda: walk(model, *ends, alphas, fresh),
        }
        seconds = side_by_side(ways, options)
    for reference in list(ways)[:3]:
        title = f"Interpolation, {len(alphas)} points x {len(images)} images, ratios to {reference}"
        show(title, seconds, reference, 11 * len(images))


def usual_criticality(
    model: nn.Module, ends: list[dict[str, Tensor]], cases: list[tuple[float, float]], draws: int, batches: list
) -> None:
    """Every perturbed network is loaded as a whole and run as a whole."""
    for keys in find_modules(model).values():
        for alpha, sigma in cases:
            between = interpolate({k: ends[0][k] for k in keys}, {k: ends[1][k] for k in keys}, alpha)
            for draw in range(draws):
                noisy = {key: value + sigma * standard_noise(value, 0, key, draw) for key, value in between.items()}
                model.load_state_dict({**ends[1], **noisy})
                with torch.inference_mode():
                    for inputs, labels in batches:
                        logits = model(inputs).float()
                        logits.argmax(1).ne(labels).sum().item()
                        nn.functional.cross_entropy(logits, labels, reduction="sum").item()


def bench_criticality(
    options: argparse.Namespace, ends: list[dict[str, Tensor]], images: Tensor, labels: Tensor
) -> None:
    alphas, sigmas, draws = [0.0, 0.25, 0.5, 0.75, 1.0][-options.positions :], [0.01, 0.03, 0.1, 0.3], options.draws
    dtype, made = DTYPES[options.precision], {"batch_size": options.batch_size, "device": options.device}
    batches = [(inputs.to(dtype), targets) for inputs, targets in resident_batches(images, labels, normalise, **made)]
    model, usual = (prepare(build(options), options.device).to(dtype) for _ in range(2))
    modules, stages = find_modules(model), split_at_modules(model)
    grid = {"alphas": alphas, "sigmas": sigmas, "num_draws": draws}
    ways = {
        "usual: whole network loaded and run": lambda: usual_criticality(
            usual, ends, [(a, s) for a in alphas for s in sigmas], draws, batches
        ),
        f"criticality without stages, {options.precision}": lambda: criticality(
            model, *ends, modules, {"train": batches}, **grid
        ),
        f"criticality with stages, {options.precision}": lambda: criticality(
            model, *ends, modules, {"train": batches}, stages=stages, **grid
        ),
    }
    cases = len(alphas) * len(sigmas) * draws
    title = f"Criticality, {len(modules)} modules x {cases} perturbations x {len(images)} images"
    show(title, side_by_side(ways, options), next(iter(ways)), len(modules) * cases * len(images))
    print(
        f"  counted operations: reuse of what lies in front of a module gives {by_operations(model, batches[0][0]):.2f} x"
    )


def by_operations(model: nn.Module, inputs: Tensor) -> float:
    """Modules over the mean share of the operations that lie in each module and behind it."""
    hidden, flops = inputs.to(next(model.parameters()).dtype), []
    with torch.inference_mode():
        for _, stage in split_at_modules(model):
            with FlopCounterMode(display=False) as counter:
                hidden = stage(hidden)
            flops.append(counter.get_total_flops())
    behind = np.cumsum(flops[::-1])
    return float(len(flops) * behind[-1] / behind.sum())


def bench_cost(options: argparse.Namespace, ends: list[dict[str, Tensor]], images: Tensor, labels: Tensor) -> None:
    """Seconds per point and image must not grow with either."""
    model = prepare(build(options), options.device)
    print("\nCost of a walk in points and examples")
    for points, count in ((5, len(images)), (10, len(images)), (20, len(images)), (10, len(images) // 2)):
        made = {"batch_size": options.batch_size, "device": options.device}
        batches = resident_batches(images[:count], labels[:count], normalise, **made)
        alphas = np.linspace(0, 1, points).tolist()
        evaluate = Evaluator(batches)
        ways = {"walk": lambda a=alphas, e=evaluate: walk(model, *ends, a, e)}
        seconds = side_by_side(ways, options)["walk"]
        each = 1e6 * seconds / points / count
        print(f"  {points:3d} points {count:6d} images {seconds:8.3f} s  {each:8.1f} us each")


def bench_intervals(options: argparse.Namespace, ends: list[dict[str, Tensor]], images: Tensor, labels: Tensor) -> None:
    """What 300 resamples of the examples, and remembering on disk, add to a walk; and a walk that is remembered."""
    model = prepare(build(options), options.device)
    batches = resident_batches(images, labels, normalise, batch_size=options.batch_size, device=options.device)
    alphas = np.linspace(0, 1, 11).tolist()
    resampling = Resampling(len(images), 300, seed=0)

    def resampled(logits: Tensor, targets: Tensor) -> Metrics:
        return with_draws(dict(accuracy_and_loss(logits, targets)), resampling.metrics(logits, targets))

    plain, drawn = Evaluator(batches), Evaluator(batches, resampled)
    with tempfile.TemporaryDirectory() as folder:
        known = Remembered(drawn, MeasurementFolder(Path(folder) / "known"), "")

        def new() -> object:
            store = MeasurementFolder(Path(folder) / uuid.uuid4().hex)
            return trace(model, *ends, alphas, Remembered(drawn, store, ""))

        ways = {
            "walk": lambda: trace(model, *ends, alphas, plain),
            "walk with 300 resamples": lambda: trace(model, *ends, alphas, drawn),
            "the same, remembered on disk": new,
            "the same again, all known": lambda: trace(model, *ends, alphas, known),
        }
        ways["the same again, all known"]()
        seconds = side_by_side(ways, options)
    show(f"Intervals, 11 points x {len(images)} images", seconds, "walk", 11 * len(images))


def build(options: argparse.Namespace) -> nn.Module:
    return build_model(options.model, CLASSES, seed=0).eval()


def disturbed(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    return {
        key: tensor + 0.02 * standard_noise(tensor, seed, key, 0) if tensor.is_floating_point() else tensor
        for key, tensor in copy.deepcopy(state).items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fixup_resnet_small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--positions", type=int, default=5)
    parser.add_argument("--draws", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--precision", choices=list(DTYPES), default="float32")
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    parser.add_argument("--workers", type=int, default=1, help="of the DataLoader that decodes files")
    parser.add_argument("--only", choices=["interpolation", "criticality", "cost", "intervals"])
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(
        0, 256, (options.images, 3, options.size, options.size), dtype=torch.uint8, generator=generator
    )
    labels = torch.randint(0, CLASSES, (options.images,), generator=generator)
    ends = [disturbed(build(options).to(options.device).state_dict(), seed) for seed in (1, 2)]
    setting = f"{options.size} px, {options.images} images, {options.threads} threads, torch {torch.__version__}"
    print(f"{options.model}, {setting}")
    benches = {
        "interpolation": bench_interpolation,
        "criticality": bench_criticality,
        "cost": bench_cost,
        "intervals": bench_intervals,
    }
    for name, bench in benches.items():
        if options.only in (None, name):
            bench(options, ends, images, labels)


if __name__ == "__main__":
    main()
