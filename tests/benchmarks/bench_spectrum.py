"""All 53 convolutions of a ResNet-50 at 224 x 224: our methods against two ways to decompose every frequency.

    python tests/benchmarks/bench_spectrum.py [--threads 1] [--methods auto svd] [--device cuda]

No public library computes these values, so the rivals are formulations: the published NumPy lines
(`np.linalg.svd(np.fft.fft2(kernel, input_shape, axes=[0, 1]), compute_uv=False)`), and the same by torch on the device, for
half of the frequencies, as the other half of a real kernel are their conjugates. Both would take minutes, so they are timed
on a few matrices per layer and extrapolated. They ignore stride, so on layers of stride 2 they compute another operator.
Seconds are of CPU, of the clock on a GPU (where NumPy stays on the CPU). Quote the ratio of kxk layers, which come first:
one decomposition is repeated for every pixel of a 1x1 layer, which makes up nearly all of "all".
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections import Counter
from functools import partial

import numpy as np
import torch
import torchvision
from stopwatch import seconds
from threadpoolctl import threadpool_limits
from torch import Tensor

from transferscope.analysis.spectrum import conv_singular_values
from transferscope.models.layers import LayerInput, trace_conv_inputs

GROUPS = ("kxk", "kxk stride 1", "kxk stride 2", "1x1", "all")
MAX_SAMPLED = 32


def sampled(weight: Tensor, pixels: int) -> int:
    """Decompositions that are timed of a layer."""
    return min(pixels, MAX_SAMPLED, max(2, 2**24 // (16 * weight.shape[0] * weight.shape[1])))


def published_seconds(weight: Tensor, entering: LayerInput) -> float:
    """Seconds of the published lines, from one channel's transforms and a sample of the decompositions."""
    kernel = weight.permute(2, 3, 1, 0).double().numpy()
    size = (entering.height, entering.width)
    channels = max(1, 2**21 // (kernel.shape[3] * size[0] * size[1]))
    part = kernel[:, :, :channels]
    cpu = torch.device("cpu")
    transform = seconds(lambda: np.fft.fft2(part, size, axes=[0, 1]), cpu)
    pixels = size[0] * size[1]
    number = sampled(weight, pixels)
    generator = np.random.default_rng(0)
    shape = (number, *kernel.shape[2:])
    matrices = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    decompose = seconds(lambda: np.linalg.svd(matrices, compute_uv=False), cpu)
    return transform * kernel.shape[2] / part.shape[2] + decompose * pixels / number


def batched_seconds(weight: Tensor, entering: LayerInput, device: torch.device) -> float:
    """Seconds of torch's decompositions of half of the frequencies, from a sample of them; transforms left out."""
    pixels = entering.height * (entering.width // 2 + 1)
    number = sampled(weight, pixels)
    matrices = torch.randn(number, *weight.shape[:2], dtype=torch.complex128, device=device)
    return seconds(lambda: torch.linalg.svdvals(matrices), device) * pixels / number


def group_of(weight: Tensor, entering: LayerInput) -> str:
    if weight.shape[-1] == 1:
        return "1x1"
    return f"kxk stride {entering.stride[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["auto", "svd"])
    parser.add_argument("--device", type=torch.device, default=torch.device("cpu"))
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    layers = [
        (model.get_submodule(name).weight.detach(), entering)
        for name, entering in trace_conv_inputs(model, 224).items()
        if entering.kind == "conv"
    ]
    times = {way: Counter[str]() for way in [*arguments.methods, "published", "torch"]}
    known: dict[tuple, dict[str, float]] = {}
    with threadpool_limits(arguments.threads, user_api="blas"):
        for number, (weight, entering) in enumerate(layers, start=1):
            group, size, moved = (
                group_of(weight, entering),
                (entering.height, entering.width),
                weight.to(arguments.device),
            )
            for method in arguments.methods:
                work = partial(conv_singular_values, moved, size, stride=entering.stride, method=method)
                times[method][group] += seconds(work, arguments.device)  # type: ignore[assignment]
            key = (tuple(weight.shape), entering.height)
            if key not in known:
                batched = batched_seconds(weight, entering, arguments.device)
                known[key] = {"published": published_seconds(weight, entering), "torch": batched}
            for way, taken in known[key].items():
                times[way][group] += taken  # type: ignore[assignment]
            print(f"{number} of {len(layers)}", file=sys.stderr, flush=True)
    print(f"{len(layers)} convolutions, {arguments.threads} thread(s), peak memory {_peak_gib():.2f} GiB")
    for by_group in times.values():
        by_group["kxk"] = by_group["kxk stride 1"] + by_group["kxk stride 2"]
        by_group["all"] = by_group["kxk"] + by_group["1x1"]
    print(f"{'seconds':14}" + "".join(f"{way:>12}" for way in times) + "   times as fast as published | torch")
    for group in GROUPS:
        cells = "".join(f"{by_group[group]:12.2f}" for by_group in times.values())
        ratios = [
            f"{method} {times['published'][group] / times[method][group]:.1f} | "
            f"{times['torch'][group] / times[method][group]:.1f}"
            for method in arguments.methods
        ]
        print(f"{group:14}{cells}   {', '.join(ratios)}")


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
