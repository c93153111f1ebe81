"""Speed of packing and of reading packed images, as ratios to the usual way, side by side on the same cores.

    python tests/benchmarks/bench_images.py [--images 400] [--workers 2] [--repeats 5]

Makes JPEG photos of 500x375 pixels in a temporary folder. Each line gives images/s of the clock of both ways, medians of
interleaved repeats, and the ratio of them. Packing is put beside a bare loop of as many threads. Reading is put beside a
`DataLoader` with workers that decodes the files, which is the usual way, and beside one that reads the same packed images
as an array, with torchvision's transforms of a whole batch: that one differs in nothing but the loader. Ours reads in
one thread. A GPU has no part in this; `transferscope.benchmarks.gpu` measures how ours feeds one.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import v2

from transferscope.experiment.options import IMAGENET_MEAN, IMAGENET_STD, PictureOptions
from transferscope.images.domainnet import read_domainnet
from transferscope.images.pack import pack_split
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.split import PackedSplit

BATCH = 64


def make_photos(root: Path, count: int) -> None:
    """A domain of JPEG files with smooth content and some noise."""
    rng = np.random.default_rng(0)
    lines = []
    for i in range(count):
        path = f"photo/class_{i % 10}/{i:05d}.jpg"
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        smooth = np.asarray(small.resize((500, 375), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (smooth + rng.integers(-12, 13, smooth.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / path, quality=90)
        lines.append(f"{path} {i % 10}\n")
    for part in ("train", "test"):
        (root / f"photo_{part}.txt").write_text("".join(lines))


class Photos(Dataset):
    """The usual way: decode with Pillow, torchvision's transforms, one image at a time."""

    def __init__(self, paths: list[Path], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB"))


class Packed(Dataset):
    """The packed images as an array: one copy for each image."""

    def __init__(self, images: torch.Tensor) -> None:
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.images[index].clone()


def decode_and_resize(path: Path, size: int) -> np.ndarray:
    """The least that packing has to do for an image."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        scale = size / min(image.size)
        image = image.resize((int(image.width * scale), int(image.height * scale)), Image.Resampling.BILINEAR)
        left, top = (image.width - size) // 2, (image.height - size) // 2
        return np.asarray(image.crop((left, top, left + size, top + size)))


def compare(name: str, ours: Callable[[], int], usual: Callable[[], int], repeats: int, usual_repeats: int) -> None:
    """Print images/s of both and their ratio; each callable returns how many images it handled."""
    speeds: dict[str, list[float]] = {"ours": [], "usual": []}
    for repeat in range(repeats):
        for key, call in (("ours", ours), ("usual", usual)):
            if key == "usual" and repeat >= usual_repeats:
                continue
            start = time.perf_counter()
            count = call()
            speeds[key].append(count / (time.perf_counter() - start))
    a, b = (statistics.median(speeds[key]) for key in ("ours", "usual"))
    print(f"{name:52s} {a:12,.0f} against {b:10,.0f} images/s: {a / b:8.2f}x", flush=True)


def bench_packing(root: Path, paths: list[Path], workers: int, repeats: int) -> PackedSplit:
    source = read_domainnet(root, "photo")
    numbers = iter(range(10**6))

    def pack() -> int:
        pictures = PictureOptions(store_size=256, crop_size=224)
        return len(pack_split(source, "train", pictures, root / f"packed_{next(numbers)}", num_workers=workers))

    def loop() -> int:
        with ThreadPoolExecutor(workers) as executor:
            for _ in executor.map(lambda path: decode_and_resize(path, 256), paths):
                pass
        return len(paths)

    compare(f"packing at 256, {workers} threads / bare decode and resize", pack, loop, repeats, repeats)
    return PackedSplit.open(root / "packed_0")


def bench_reading(root: Path, paths: list[Path], size: int, workers: int, repeats: int) -> None:
    stored = size * 8 // 7
    pictures = PictureOptions(store_size=stored, crop_size=size)
    split = pack_split(read_domainnet(root, "photo"), "train", pictures, root / f"packed_at_{size}")
    usual = transforms.Compose(
        [
            transforms.Resize(stored),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    loader = DataLoader(Photos(paths, usual), BATCH, shuffle=True, num_workers=workers, persistent_workers=True)
    transform = EvaluationTransform(pictures)
    buffer = torch.empty(BATCH, 3, size, size)
    rng = np.random.default_rng(0)

    def epochs(handle: Callable[[torch.Tensor], object]) -> int:
        # Several epochs, since one takes milliseconds.
        count = 0
        for _ in range(5):
            order = rng.permutation(len(split))
            for start in range(0, len(order), BATCH):
                handle(split.gather(order[start : start + BATCH]))
            count += len(order)
        return count

    def loaded() -> int:
        return sum(len(batch) for batch in loader)

    array = DataLoader(
        Packed(split.gather(np.arange(len(split)))), BATCH, shuffle=True, num_workers=workers, persistent_workers=True
    )
    whole = v2.Compose(
        [v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_MEAN, IMAGENET_STD)]
    )

    def taken(handle: Callable[[torch.Tensor], object]) -> int:
        return sum(len(batch) for batch in array if handle(batch) is not None)

    loaded(), taken(len)
    ready = lambda: epochs(lambda batch: transform(batch, out=buffer[: len(batch)]))  # noqa: E731
    for name, ours, theirs in (("raw", lambda: epochs(len), len), ("normalised", ready, whole)):
        compare(f"{name} batches at {size} / DataLoader of JPEG", ours, loaded, repeats, 3)
        compare(f"{name} batches at {size} / DataLoader of an array", ours, lambda t=theirs: taken(t), repeats, repeats)


def bench_random_access(paths: list[Path], split: PackedSplit, repeats: int) -> None:
    rng = np.random.default_rng(0)

    def packed() -> int:
        for index in rng.integers(0, len(split), 2000):
            split.gather([index])
        return 2000

    def decoded() -> int:
        for index in rng.integers(0, len(paths), 50):
            decode_and_resize(paths[index], 256)
        return 50

    compare("one example at random / decode and resize", packed, decoded, repeats, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.workers)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_photos(root, arguments.images)
        paths = sorted((root / "photo").rglob("*.jpg"))
        split = bench_packing(root, paths, arguments.workers, arguments.repeats)
        for size in (64, 224):
            bench_reading(root, paths, size, arguments.workers, arguments.repeats)
        bench_random_access(paths, split, arguments.repeats)


if __name__ == "__main__":
    main()
