"""Peak memory of merging candidates that lie in files, in models, by method.

    python tests/benchmarks/bench_merging.py [--model resnet50] [--candidates 5] [--side 224] [--methods uniform,ties]

A process for each method makes one merge of candidates with random weights near a parent, judges it on a few images, and
reports the memory that it allocated at most (`RssAnon`, sampled every 5 ms) beyond what it held before it read the first
file, over the bytes of a model. `with images` is how much of that one forward pass, and for Fisher information a
backward pass, of the network takes beside its weights. Large tensors go back to the system when they are freed
(`MALLOC_MMAP_THRESHOLD_`), as a heap would keep gaps between them.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from transferscope.analysis.refitting import fit_classifier
from transferscope.experiment.options import FROM_PARENT, MERGE_METHODS, MergingOptions, PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure.bench import Bench
from transferscope.measure.merging import merge
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint, save_checkpoint
from transferscope.models.zoo import build_model

CLASSES = 4
FEW = MergingOptions(statistics=4, fisher_examples=2, resamples=1, alphas=(0.5,), scales=(0.3,))


def write_files(folder: Path, name: str, candidates: int) -> None:
    """A parent and candidates near it."""
    state = build_model(name, CLASSES, seed=0).state_dict()
    for place in range(candidates + 1):
        torch.manual_seed(place)
        moved = {
            key: tensor + 0.2 * tensor.std() * torch.randn_like(tensor) if place and tensor.dim() > 1 else tensor
            for key, tensor in state.items()
        }
        metadata = CheckpointMetadata(architecture=name, num_classes=CLASSES)
        save_checkpoint(Checkpoint(moved, metadata), folder / f"{place}.safetensors")


def split(part: str, count: int, side: int) -> PackedSplit:
    """Noise."""
    images = np.random.default_rng(count).integers(0, 255, (count, 3, side, side), dtype=np.uint8)
    info = SplitInfo("noise", part, tuple("abcd"), False, True, PictureOptions(store_size=side), f"{part}{count}")
    sizes = np.full((count, 2), side, dtype=np.int32)
    return PackedSplit(info, images, np.arange(count) % CLASSES, [str(row) for row in range(count)], sizes)


def allocated() -> int:
    """Bytes of this process's own memory, mapped files aside."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("RssAnon")).split()[1])


@contextmanager
def sampled(peak: list[int]) -> Iterator[None]:
    """Add the largest use of memory inside."""
    stop, seen = threading.Event(), [allocated()]

    def watch() -> None:
        while not stop.is_set():
            seen.append(allocated())
            time.sleep(0.005)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        peak.append(max(seen))


class Files(dict[str, Path]):
    """Checkpoints that are read when they are asked for."""

    def __getitem__(self, name: str) -> Checkpoint:  # type: ignore[override]
        return load_checkpoint(super().__getitem__(name))


def measure(folder: Path, name: str, candidates: int, side: int, method: str) -> None:
    """Print one line for a method."""
    torch.set_num_threads(1)
    images = torch.randn(4, 3, side, side)
    network = build_model(name, CLASSES, seed=0).to(memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    size = sum(tensor.nbytes for tensor in network.state_dict().values())
    before, peak = allocated(), []  # type: ignore[var-annotated]
    with sampled(peak):
        if method == "fisher":
            network(images[:1]).sum().backward()
        else:
            with torch.inference_mode():
                network(images)
    activations = peak.pop() - before - (size if method == "fisher" else 0)
    del network, images
    bench = Bench({"train": split("train", 4, side), "test": split("test", 6, side)})
    files = Files({str(place): folder / f"{place}.safetensors" for place in range(1, candidates + 1)})
    parent = (lambda: load_checkpoint(folder / "0.safetensors")) if method in FROM_PARENT else None
    fit_classifier(np.eye(4), np.arange(4), 4)  # imports scikit-learn and with it SciPy, which are no models
    before, start = allocated(), time.process_time()
    with sampled(peak):
        merge([bench], files, FEW, methods=[method], parent=parent)  # type: ignore[list-item]
    total = (peak.pop() - before) / size
    print(
        f"{method:17} {total:5.2f} models, of which with images {activations / size:.2f}; "
        f"{time.process_time() - start:.0f} CPU s"
    )


def main() -> None:
    """Measure each method in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--candidates", type=int, default=5)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--methods", default=",".join(MERGE_METHODS))
    parser.add_argument("--of", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.of:
        measure(Path(chosen.of), chosen.model, chosen.candidates, chosen.side, chosen.methods)
        return
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), chosen.model, chosen.candidates)
        for method in chosen.methods.split(","):
            options = ["--model", chosen.model, "--candidates", str(chosen.candidates), "--side", str(chosen.side)]
            command = [sys.executable, __file__, "--of", folder, "--methods", method, *options]
            subprocess.run(command, check=True, env=environment)


if __name__ == "__main__":
    main()
