"""Weight matching against the published loop, written naively; ResNet-50 from groups to permuted weights: time and memory.

    python tests/benchmarks/bench_alignment.py [--model resnet18] [--repeats 3] [--threads 2]
    python tests/benchmarks/bench_alignment.py --memory [--model resnet50]     # groups, matching, permuting

The naive loop is that of Git Re-Basin: for every group in random order, all its tensors are permuted anew along their
other axes, one assignment is solved, and the loop goes on until a whole round brings nothing. It gets its table of axes
from us, since it has none for this network. Both match two networks with random weights of their own, in one descent,
and solve one assignment a step; objectives are printed because the optima are local. CPU seconds, which suffer less from
other work on the machine than wall seconds, medians of interleaved repeats. Memory is what the process has used at most
beyond model and both checkpoints, measured in a process of its own.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from transferscope.analysis.alignment import match_weights, permutation_groups, permute
from transferscope.benchmarks.published_ways import published_matching
from transferscope.models import build_model


def cpu_seconds(work: Callable[[], object]) -> tuple[float, object]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(name: str, repeats: int) -> None:
    """Both ways by turns."""
    model, a, b = networks(name)
    groups = permutation_groups(model, torch.randn(1, 3, 64, 64))
    assert all(group.blocks == 1 for group in groups), f"{name} has blocks, which the published loop does not know"
    times: dict[str, list[float]] = {"published": [], "ours": []}
    for _ in range(repeats):
        seconds, theirs = cpu_seconds(lambda: published_matching(groups, a, b))
        times["published"].append(seconds)
        seconds, ours = cpu_seconds(lambda: match_weights(groups, a, b, restarts=1))
        times["ours"].append(seconds)
    medians = {way: float(np.median(seconds_of_way)) for way, seconds_of_way in times.items()}
    ratio = medians["published"] / medians["ours"]
    print(f"{name}: published loop {medians['published']:.2f} s, ours {medians['ours']:.2f} s, {ratio:.2f} times")
    print(f"objective: published {theirs:.4f}, ours {ours.objective:.4f}, identity {ours.objective_of_identity:.4f}")


def networks(name: str) -> tuple[torch.nn.Module, dict[str, Tensor], dict[str, Tensor]]:
    """The model and two sets of weights, of seeds of their own."""
    a, b = (build_model(name, 1000, seed=seed).state_dict() for seed in (1, 2))
    return build_model(name, 1000, seed=0), a, b


def peak() -> int:
    """Bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def measure(name: str) -> None:
    """Time of each step and peak memory beyond what is given, in this process."""
    model, a, b = networks(name)
    image = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        model.eval()(image)
    size = sum(tensor.numel() * tensor.element_size() for tensor in a.values())
    given, start, cpu = peak(), time.perf_counter(), time.process_time()
    groups = permutation_groups(model, image)
    times = [time.perf_counter()]
    permutation = match_weights(groups, a, b)
    times.append(time.perf_counter())
    permute(groups, permutation, b)
    times.append(time.perf_counter())
    steps = np.diff([start, *times])
    names = ("groups", "matching", "permuting")
    print(", ".join(f"{step} {seconds:.1f} s" for step, seconds in zip(names, steps, strict=True)))
    print(f"{name}: {times[-1] - start:.1f} s, {time.process_time() - cpu:.1f} CPU s")
    print(f"beyond model and both checkpoints {(peak() - given) / size:.2f} times the model's {size / 2**20:.0f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--here", action="store_true", help="measure in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.here:
        measure(arguments.model)
    elif arguments.memory:
        command = [sys.executable, __file__, "--here", "--model", arguments.model, "--threads", str(arguments.threads)]
        subprocess.run(command, check=True)
    else:
        compare(arguments.model, arguments.repeats)


if __name__ == "__main__":
    main()
