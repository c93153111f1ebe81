"""A whole ResNet-50 by weightwatcher (PyPI) and by us: equal values where both know the layer's map, and the times.

    python tests/benchmarks/bench_weightwatcher.py [--threads 1]

weightwatcher gives eigenvalues of W^T W. For linear layers and 1x1 convolutions these are the squares of our singular
values. A k x k convolution it takes as k*k separate matrices, one a tap, which is another map than the convolution: those
layers are timed, not compared. `analyze` fits a power law to every spectrum as well; `get_ESD` is the spectrum alone.
The k x k layers, which are more than nine tenths of the work, come first. Says so and ends where weightwatcher (0.7.7 of
2026 when this was run) is not installed, as it is no dependency of ours: `uv pip install --no-deps --target FOLDER
weightwatcher powerlaw`, then PYTHONPATH=FOLDER. It computes on the CPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import torch
import torchvision
from threadpoolctl import threadpool_limits

from transferscope.analysis.spectrum_tables import layer_singular_values
from transferscope.models.layers import trace_conv_inputs


def seconds(work: Callable[[], Any]) -> tuple[Any, float]:
    """What `work` gives, and its CPU seconds."""
    start = time.process_time()
    result = work()
    return result, time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    if importlib.util.find_spec("weightwatcher") is None:
        print("weightwatcher is not installed: nothing to compare with")
        return
    import weightwatcher

    logging.disable(logging.WARNING)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = torchvision.models.resnet50(weights=None)
    with threadpool_limits(arguments.threads, user_api="blas"):
        compare(model, weightwatcher.WeightWatcher(model=model))


def compare(model: torch.nn.Module, watcher: Any) -> None:
    inputs = trace_conv_inputs(model, 224)
    state = model.state_dict()
    numbers = {row.longname: int(row.layer_id) for row in watcher.describe().itertuples()}
    shared = [name for name in numbers if state[f"{name}.weight"].shape[2:] in ((), (1, 1))]
    print(f"{len(inputs)} layers, {len(shared)} of them linear or 1x1; CPU seconds")

    def ours(names: list[str]) -> pd.DataFrame:
        return layer_singular_values(state, {name: inputs[name] for name in names})

    def theirs(names: list[str]) -> dict[str, np.ndarray]:
        return {name: np.asarray(watcher.get_ESD(layer=numbers[name])) for name in names}

    rest = [name for name in numbers if name not in shared]
    our_time, their_time = seconds(lambda: ours(rest))[1], seconds(lambda: theirs(rest))[1]
    print(f"k x k, two different maps: ours {our_time:.1f}, get_ESD {their_time:.1f}", flush=True)
    our_values, our_time = seconds(lambda: ours(shared))
    expected, their_time = seconds(lambda: theirs(shared))
    values = {name: part["value"].to_numpy() for name, part in our_values.groupby("module")}
    largest = max(difference(values[name], expected[name]) for name in shared)
    print(
        f"linear and 1x1: ours {our_time:.1f}, get_ESD {their_time:.1f}, {their_time / our_time:.2f} times; "
        f"largest difference {largest:.0e} of the largest",
        flush=True,
    )
    print(f"analyze (all layers): {seconds(watcher.analyze)[1]:.1f}")


def difference(singular_values: np.ndarray, eigenvalues: np.ndarray) -> float:
    """Largest difference between singular values, as a part of the largest one.

    Where a stride of 2 skips inputs, our zeros are left out: weightwatcher looks at the matrix alone.
    """
    expected = np.sort(np.sqrt(eigenvalues))[::-1]
    largest = singular_values[: len(expected)]
    return float(np.abs(largest - expected).max() / expected[0])


if __name__ == "__main__":
    main()
