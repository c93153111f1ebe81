"""All 53 convolutions of a ResNet-50 at 224 x 224 with zero padding and stride, beside the circular method.

    OMP_NUM_THREADS=1 python tests/benchmarks/bench_network_spectrum.py

The 20 largest values, certified bounds and densities, on one thread, in CPU seconds by the size of the kernel.
"""

from __future__ import annotations

import resource
import time

import torch
import torchvision

from transferscope.analysis.spectrum import layer_spectrum
from transferscope.models.layers import trace_conv_inputs


def main() -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    inputs = {name: entering for name, entering in trace_conv_inputs(model, 224).items() if entering.kind == "conv"}
    for padding in ("network", "circular"):
        seconds, converged = {"1x1": 0.0, "kxk": 0.0}, 0
        for name, entering in inputs.items():
            layer = model.get_submodule(name)
            start = time.process_time()
            found = layer_spectrum(layer, (layer.in_channels, entering.height, entering.width), padding=padding)
            seconds["1x1" if layer.kernel_size == (1, 1) else "kxk"] += time.process_time() - start
            converged += found.top_status in ("exact", "converged")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        times = ", ".join(f"{kind} {spent:.1f}" for kind, spent in seconds.items())
        print(
            f"{padding}: CPU seconds {times}, all {sum(seconds.values()):.1f}; {converged} of {len(inputs)} converged"
        )
        print(f"peak memory so far {peak:.2f} GiB")


if __name__ == "__main__":
    main()
