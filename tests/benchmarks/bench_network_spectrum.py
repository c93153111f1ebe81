"""All 53 convolutions of a ResNet-50 at 224 x 224 with zero padding and stride, beside the circular method.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_network_spectrum.py [FOLDER_OF_WEIGHTWATCHER]

The 20 largest values, certified bounds and densities, on one thread: CPU seconds by the size of the kernel, with both
methods taking turns at every layer, and the peak of memory. With a folder that `uv pip install --no-deps --target
FOLDER weightwatcher powerlaw` has filled, that library analyses the same network, in a process of its own; its
exponents, stable ranks and norms are compared with ours.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn

from transferscope.analysis.spectrum import layer_spectrum
from transferscope.analysis.spectrum.heavy_tail import fit_power_law, layer_eigenvalues
from transferscope.models.layers import trace_conv_inputs

PADDINGS = ("circular", "network")


class Fits(NamedTuple):
    """One row for each layer: columns name, alpha, stable_rank, spectral_norm (of the taps' matrices), num_tail."""

    table: pd.DataFrame
    seconds: float
    peak: float
    """GiB."""


def main() -> None:
    model = network()
    seconds = dict.fromkeys([(padding, kind) for padding in PADDINGS for kind in ("1x1", "kxk")], 0.0)
    converged, before = 0, peak()
    inputs = {name: entering for name, entering in trace_conv_inputs(model, 224).items() if entering.kind == "conv"}
    for name, entering in inputs.items():
        layer = model.get_submodule(name)
        for padding in PADDINGS:
            start = time.process_time()
            spectrum = layer_spectrum(layer, (layer.in_channels, entering.height, entering.width), padding=padding)
            seconds[padding, "1x1" if layer.kernel_size == (1, 1) else "kxk"] += time.process_time() - start
        converged += spectrum.top_status in ("exact", "converged")
    totals = {padding: sum(seconds[padding, kind] for kind in ("1x1", "kxk")) for padding in PADDINGS}
    for padding in PADDINGS:
        print(
            f"{padding}: 1x1 {seconds[padding, '1x1']:.1f} s, kxk {seconds[padding, 'kxk']:.1f}, "
            f"all {totals[padding]:.1f}: {totals[padding] / totals['circular']:.1f} x circular"
        )
    print(f"{converged} of {len(inputs)} layers converged or exact; peak {before:.2f} GiB before, {peak():.2f} after")
    if len(sys.argv) > 1:
        compare_fits(sys.argv[1])


def compare_fits(folder: str) -> None:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        theirs = other.submit(by_weightwatcher, folder).result()
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as other:
        ours = other.submit(by_transferscope).result()
    print(f"fits by weightwatcher: {theirs.seconds:.1f} s, peak {theirs.peak:.2f} GiB")
    print(f"fits by transferscope: {ours.seconds:.1f} s, peak {ours.peak:.2f} GiB")
    both = ours.table.merge(theirs.table, on="name", suffixes=("", "_theirs"))
    print(f"{len(both)} layers in both, of {len(ours.table)}")
    for column in ("alpha", "stable_rank", "spectral_norm"):
        difference = (both[column] / both[f"{column}_theirs"] - 1).abs()
        worst = both.loc[difference.idxmax()]
        print(
            f"{column}: relative difference median {difference.median():.1e}, largest {difference.max():.1e} "
            f"({worst['name']}: {worst[column]:.4f}, theirs {worst[column + '_theirs']:.4f})"
        )


def by_weightwatcher(folder: str) -> Fits:
    model = network()
    sys.path.append(folder)
    import weightwatcher

    start = time.process_time()
    # The factor by which it scales convolutions is left out; exponents and stable ranks do not depend on it.
    table = weightwatcher.WeightWatcher(model=model).analyze(conv2d_norm=False)
    seconds = time.process_time() - start
    table = table.assign(name=table["longname"], spectral_norm=np.sqrt(table["spectral_norm"]))
    return Fits(table[["name", "alpha", "stable_rank", "spectral_norm"]], seconds, peak())


def by_transferscope() -> Fits:
    model = network()
    start, rows = time.process_time(), []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            values = layer_eigenvalues(layer.weight).numpy()
            largest = values.max()
            fit = fit_power_law(values)
            rows.append((name, fit.alpha, values.sum() / largest, np.sqrt(largest)))
    table = pd.DataFrame(rows, columns=["name", "alpha", "stable_rank", "spectral_norm"])
    return Fits(table, time.process_time() - start, peak())


def network() -> nn.Module:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    return torchvision.models.resnet50(weights=None)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
