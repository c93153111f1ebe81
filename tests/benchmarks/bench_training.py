"""Training and evaluation against the bare steps, and against a loop that decodes JPEG files, side by side.

    python tests/benchmarks/bench_training.py [--model fixup_resnet50 --size 224 --images 64 --batch-size 8]
        [--repeats 5] [--threads 1] [--precision float32|bfloat16] [--augment] [--only train|evaluate] [--device cuda]

Prints images per second of CPU (of the wall clock on a GPU), medians over interleaved repeats, and ratios. The bare step
has its batch on the device, normalised: no loop can be faster. The usual way is what the authors' code does: a
`DataLoader` with workers over files with PIL and torchvision's transforms, and on a GPU `DataParallel`. It takes the same
steps in the same precision and memory format; seconds of its workers count. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

from transferscope.experiment.options import IMAGENET_MEAN, IMAGENET_STD, ModelOptions, PictureOptions, TrainingOptions
from transferscope.experiment.run import RunSpec
from transferscope.images.image_folder import read_image_folder
from transferscope.images.pack import pack_split
from transferscope.images.split import PackedSplit
from transferscope.models.memory_layout import as_input, first_weight
from transferscope.models.zoo import build_model
from transferscope.system.memory import keep_freed_memory
from transferscope.training.device import autocast, choose_device
from transferscope.training.evaluation import predict
from transferscope.training.loop import CHECK_EVERY, train_run
from transferscope.training.optim import make_optimizer

CLASSES = 10
Way = Callable[[], float]


def draw_files(root: Path, count: int, size: int) -> None:
    """JPEG files of smooth noise, half as large again as the network's input, in class folders."""
    rng = np.random.default_rng(0)
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8))
        for part in ("train", "test"):
            folder = root / part / f"class_{index % CLASSES}"
            folder.mkdir(parents=True, exist_ok=True)
            coarse.resize((size * 3 // 2, size * 3 // 2), Image.Resampling.BICUBIC).save(folder / f"{index}.jpg")


class Setting:
    """One network, one set of images, one device."""

    def __init__(self, arguments: argparse.Namespace, folder: Path) -> None:
        self.size, self.batch_size, self.folder = arguments.size, arguments.batch_size, folder
        self.device = choose_device(arguments.device)
        self.options = TrainingOptions(
            epochs=1,
            batch_size=arguments.batch_size,
            lr=1e-3,
            clip_norm=2.0,
            evaluate_every=1,
            channels_last=True,
            precision=arguments.precision,
            augmentation={"flip": True, "random_resized_crop": (0.08, 1.0)} if arguments.augment else {},
        )
        self.model = ModelOptions(name=arguments.model)
        draw_files(folder / "files", arguments.images, arguments.size)
        source = read_image_folder(folder / "files")
        pictures = PictureOptions(store_size=arguments.size)
        self.splits = [pack_split(source, part, pictures, folder / part) for part in ("train", "test")]

    def clock(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            return time.perf_counter()
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def noise(self) -> Tensor:
        return torch.randn(self.batch_size, 3, self.size, self.size, device=self.device)

    def build(self) -> nn.Module:
        network = build_model(self.model.name, CLASSES, seed=0, **self.model.options)
        return network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def step(self, network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor) -> None:
        with autocast(self.device, self.options.precision):
            logits = network(images)
        loss = nn.functional.cross_entropy(logits.float(), labels)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 2.0, foreach=True)
        optimizer.step()


def full_training(setting: Setting) -> Way:
    """`train_run` itself: seconds between its first and its last report of progress within the epoch."""
    numbers = iter(range(10**6))
    train, test = setting.splits

    def run() -> float:
        reports: list[tuple[int, float]] = []

        def progress(steps: int, note: str) -> None:
            reports.append((steps, setting.clock()))

        spec = RunSpec(task="bench", name="run", model=setting.model, training=setting.options, fingerprint="bench")
        folder = setting.folder / f"run_{next(numbers)}"
        few = test.subset(range(CLASSES))
        train_run(spec, train, few, initial=None, folder=folder, device=setting.device, progress=progress)
        steps = sum(count for count, _ in reports[1:])
        return (reports[-1][1] - reports[0][1]) / (steps * setting.batch_size)

    return run


def bare_training(setting: Setting) -> Way:
    """The same steps on one batch that is already there."""
    network = setting.build()
    optimizer = make_optimizer(network, setting.options)
    images = as_input(setting.noise(), first_weight(network))
    labels = torch.arange(setting.batch_size, device=setting.device) % CLASSES

    def run() -> float:
        setting.step(network, optimizer, images, labels)
        started = setting.clock()
        for _ in range(CHECK_EVERY):
            setting.step(network, optimizer, images, labels)
        return (setting.clock() - started) / (CHECK_EVERY * setting.batch_size)

    return run


def usual_batches(setting: Setting, part: str, *, train: bool) -> Iterator[tuple[Tensor, Tensor]]:
    geometry = (
        [transforms.RandomResizedCrop(setting.size), transforms.RandomHorizontalFlip()]
        if train and setting.options.augmentation.flip
        else [transforms.Resize(setting.size), transforms.CenterCrop(setting.size)]
    )
    chain = transforms.Compose([*geometry, transforms.ToTensor(), transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)])
    files = ImageFolder(str(setting.folder / "files" / part), chain)
    on_gpu = setting.device.type == "cuda"
    workers = min(16, os.cpu_count() or 1) if on_gpu else 1
    # No more images than are used: workers would read ahead.
    used = CHECK_EVERY * setting.batch_size if train else len(files)
    chosen = Subset(files, torch.randperm(len(files))[:used].tolist())
    batches = DataLoader(
        chosen, setting.batch_size, shuffle=train, drop_last=True, num_workers=workers, pin_memory=on_gpu
    )
    for images, labels in batches:
        yield images.contiguous(memory_format=torch.channels_last), labels


def usual_training(setting: Setting) -> Way:
    """Files, a DataLoader, and on a GPU DataParallel."""
    network = setting.build()
    wrapped = nn.DataParallel(network) if setting.device.type == "cuda" else network
    optimizer = make_optimizer(network, setting.options)

    def run() -> float:
        started, count = setting.clock(), 0
        for images, labels in usual_batches(setting, "train", train=True):
            setting.step(wrapped, optimizer, images.to(setting.device), labels.to(setting.device))
            count += len(images)
        return (setting.clock() - started) / count

    return run


def full_evaluation(setting: Setting) -> Way:
    network, split = setting.build(), setting.splits[1]

    def run() -> float:
        started = setting.clock()
        predict(network, split, batch_size=setting.batch_size, precision=setting.options.precision)
        return (setting.clock() - started) / len(split)

    return run


def bare_forward(setting: Setting) -> Way:
    network = setting.build().eval()
    split: PackedSplit = setting.splits[1]
    images = as_input(setting.noise(), first_weight(network))

    def run() -> float:
        passes = max(1, len(split) // setting.batch_size)
        with torch.inference_mode(), autocast(setting.device, setting.options.precision):
            started = setting.clock()
            for _ in range(passes):
                network(images)
            return (setting.clock() - started) / (passes * setting.batch_size)

    return run


def usual_evaluation(setting: Setting) -> Way:
    network = setting.build().eval()

    def run() -> float:
        started, count = setting.clock(), 0
        with torch.inference_mode(), autocast(setting.device, setting.options.precision):
            for images, _ in usual_batches(setting, "test", train=False):
                network(images.to(setting.device))
                count += len(images)
        return (setting.clock() - started) / count

    return run


def side_by_side(title: str, ways: dict[str, Way], repeats: int) -> None:
    """Median of each way, the ways taking turns, so that a busy machine slows all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats):
        for name, run in ways.items():
            times[name].append(run())
        print(f"{title}: {repeat + 1} of {repeats}", file=sys.stderr, flush=True)
    medians = {name: statistics.median(values) for name, values in times.items()}
    ours = medians["ours"]
    print(f"\n{title}")
    for name, value in medians.items():
        print(f"  {name:22s} {1 / value:9.1f} images/s   ours is {value / ours:6.2f} of its speed")


def main() -> None:
    keep_freed_memory()  # as in `kedro run`, for all ways
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="fixup_resnet_small")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--augment", action="store_true", help="random crops and flips, in ours and in the usual way")
    parser.add_argument("--device", help="default: a GPU where there is one")
    parser.add_argument("--only", choices=("train", "evaluate"))
    arguments = parser.parse_args()
    if arguments.images < 2 * CHECK_EVERY * arguments.batch_size and arguments.only != "evaluate":
        parser.error(f"give at least {2 * CHECK_EVERY} batches of images")
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        setting = Setting(arguments, Path(folder))
        print(f"{arguments.model} at {arguments.size} px, {arguments.precision}, {setting.device}")
        if arguments.only != "evaluate":
            ways = {"ours": full_training(setting), "bare step": bare_training(setting)}
            side_by_side("training", ways | {"usual way": usual_training(setting)}, arguments.repeats)
        if arguments.only != "train":
            ways = {"ours": full_evaluation(setting), "bare forward pass": bare_forward(setting)}
            side_by_side("evaluation", ways | {"usual way": usual_evaluation(setting)}, arguments.repeats)


if __name__ == "__main__":
    main()
