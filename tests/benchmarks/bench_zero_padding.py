"""How far the singular values of circular padding are from those of the zero-padded convolution that a network computes.

    python tests/benchmarks/bench_zero_padding.py

Small layers with normal weights, both maps as dense matrices. Prints the table of docs/spectrum.md.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor
from torch.nn import functional

from transferscope.analysis.spectrum import conv_singular_values

LAYERS = ((3, 8, 3, 8, 1), (8, 8, 3, 8, 1), (8, 8, 3, 16, 1), (8, 8, 3, 24, 1), (8, 16, 3, 16, 2), (3, 8, 7, 16, 2), (8, 8, 5, 16, 1), (8, 8, 1, 16, 1))  # fmt: skip
"""Input channels, output channels, kernel, input size, stride."""


def zero_padded_values(weight: Tensor, size: int, stride: int) -> Tensor:
    """Singular values of the layer as networks have it (padding of half the kernel), from its dense matrix."""
    channels, padding = weight.shape[1], weight.shape[2] // 2
    images = torch.eye(channels * size * size, dtype=torch.float64).reshape(-1, channels, size, size)
    outputs = functional.conv2d(images, weight, stride=stride, padding=padding)
    return torch.linalg.svdvals(outputs.flatten(1))


def main() -> None:
    print("| Layer | Spectral norm | Frobenius norm | Median | Smallest | Largest difference |")
    print("|---|---|---|---|---|---|")
    for number, (inputs, outputs, kernel, size, stride) in enumerate(LAYERS, start=1):
        print(f"layer {number} of {len(LAYERS)}: {inputs * size**2} columns", file=sys.stderr)
        generator = torch.Generator().manual_seed(0)
        scale = (2 / (inputs * kernel**2)) ** 0.5
        weight = scale * torch.randn(outputs, inputs, kernel, kernel, generator=generator, dtype=torch.float64)
        zero = zero_padded_values(weight, size, stride)
        circular = torch.repeat_interleave(*conv_singular_values(weight, size, stride=stride))
        measures = [
            circular[0] / zero[0], circular.norm() / zero.norm(), circular.median() / zero.median(),
            circular[-1] / zero[-1],
        ]  # fmt: skip
        if zero[-1] < 1e-12 * zero[0]:
            measures[-1] = torch.tensor(float("nan"))
        cells = [f"{float(value):.3g}" for value in measures]
        largest = float((circular - zero).abs().max() / zero[0])
        print(
            f"| {kernel}×{kernel}, {inputs}→{outputs} at {size}, stride {stride} | {' | '.join(cells)} | {largest:.1%} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
