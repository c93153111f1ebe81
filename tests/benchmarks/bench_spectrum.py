"""All 53 convolutions of a ResNet-50 at 224 x 224: our methods against the published NumPy lines.

    python tests/benchmarks/bench_spectrum.py [--threads 1] [--methods auto svd]

The published method (`np.linalg.svd(np.fft.fft2(kernel, input_shape, axes=[0, 1]), compute_uv=False)`) would take ten
minutes or more, so it is timed on a few of its matrices per layer and extrapolated: their number is the number of
pixels. It ignores stride, so on layers of stride 2 it computes another operator. CPU seconds are given beside wall
seconds, since they suffer less from other work on the machine; with one thread the two should agree. Quote the ratio of kxk layers, which
come first: the published method repeats one decomposition for every pixel of a 1x1 layer, which makes up nearly all of "all".
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from threadpoolctl import threadpool_limits
from torch import Tensor

from transferscope.analysis.spectrum import conv_singular_values
from transferscope.models.layers import LayerInput, trace_conv_inputs

GROUPS = ("kxk", "kxk stride 1", "kxk stride 2", "1x1", "all")
MAX_SAMPLED = 32


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


def published_seconds(weight: Tensor, entering: LayerInput) -> np.ndarray:
    """Seconds of the published lines, from one channel's transforms and a sample of the decompositions."""
    kernel = weight.permute(2, 3, 1, 0).double().numpy()
    size = (entering.height, entering.width)
    channels = max(1, 2**21 // (kernel.shape[3] * size[0] * size[1]))
    part = kernel[:, :, :channels]
    transformed: list[np.ndarray] = []
    transform = seconds(lambda: transformed.append(np.fft.fft2(part, size, axes=[0, 1])))
    pixels = size[0] * size[1]
    matrix_bytes = 16 * kernel.shape[2] * kernel.shape[3]
    sampled = min(pixels, MAX_SAMPLED, max(2, 2**24 // matrix_bytes))
    shape = (sampled, *kernel.shape[2:])
    generator = np.random.default_rng(0)
    matrices = generator.standard_normal(shape) + 1j * generator.standard_normal(shape)
    decompose = seconds(lambda: np.linalg.svd(matrices, compute_uv=False))
    return transform * kernel.shape[2] / part.shape[2] + decompose * pixels / sampled


def group_of(weight: Tensor, entering: LayerInput) -> str:
    if weight.shape[-1] == 1:
        return "1x1"
    return f"kxk stride {entering.stride[0]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=["auto", "svd"])
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    layers = [
        (model.get_submodule(name).weight.detach(), entering)
        for name, entering in trace_conv_inputs(model, 224).items()
        if entering.kind == "conv"
    ]
    times: dict[str, dict[str, np.ndarray]] = {method: {} for method in [*arguments.methods, "published"]}
    for method in arguments.methods:
        for weight, entering in layers:
            size = (entering.height, entering.width)
            spent = seconds(lambda: conv_singular_values(weight, size, stride=entering.stride, method=method))  # noqa: B023
            group = group_of(weight, entering)
            times[method][group] = times[method].get(group, 0) + spent
    print(f"{len(layers)} convolutions, {arguments.threads} thread(s), peak memory {_peak_gib():.2f} GiB")
    known: dict[tuple, np.ndarray] = {}
    with threadpool_limits(arguments.threads, user_api="blas"):
        for weight, entering in layers:
            key = (tuple(weight.shape), entering.height)
            if key not in known:
                known[key] = published_seconds(weight, entering)
            group = group_of(weight, entering)
            times["published"][group] = times["published"].get(group, 0) + known[key]
    for by_group in times.values():
        by_group["kxk"] = by_group["kxk stride 1"] + by_group["kxk stride 2"]
        by_group["all"] = by_group["kxk"] + by_group["1x1"]
    print(f"{'':14}" + "".join(f"{method:>24}" for method in times) + "   ratios to published (wall | CPU)")
    for group in GROUPS:
        cells = "".join(f"{wall:12.2f} s {cpu:6.2f} CPU" for wall, cpu in (times[m][group] for m in times))
        ratios = [times["published"][group] / times[method][group] for method in arguments.methods]
        print(f"{group:14}{cells}   " + ", ".join(f"{wall:.1f} | {cpu:.1f}" for wall, cpu in ratios))


def _peak_gib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
