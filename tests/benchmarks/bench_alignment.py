"""Weight matching against the published loop and the package rebasin; ResNet-50 from groups to permuted weights.

    python tests/benchmarks/bench_alignment.py [--model resnet18] [--repeats 3] [--threads 2]
    python tests/benchmarks/bench_alignment.py --memory [--model resnet50]     # groups, matching, permuting

The loop is that of Git Re-Basin as its paper gives it: for every group in random order, all its tensors are permuted anew
along their other axes, one assignment is solved, and the loop goes on until a whole round brings nothing. It gets its table
of axes from us, since it has none for this network. rebasin (PyPI, 0.0.47 of 2023; the only public package that matches
networks of torch) is in where it can be imported: `uv pip install --no-deps --target FOLDER rebasin torchview graphviz`,
PYTHONPATH=FOLDER. It finds the axes within its time. All match two networks with random weights of their own, in one
descent on the CPU, in float32; the objective (inner product with the first network's weights) is printed because the
optima are local. CPU seconds, medians of interleaved repeats. Memory is the most that the process has used beyond model
and both checkpoints, measured in a process of its own.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from transferscope.analysis.alignment import PermutationGroups, match_weights, permutation_groups, permute
from transferscope.benchmarks.published_ways import published_matching
from transferscope.models import build_model


def cpu_seconds(work: Callable[[], float]) -> tuple[float, float]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def compare(name: str, repeats: int) -> None:
    """All ways by turns."""
    model, a, b = networks(name)
    groups = permutation_groups(model, torch.randn(1, 3, 64, 64))
    assert all(group.blocks == 1 for group in groups), f"{name} has blocks, which the published loop does not know"
    ways: dict[str, Callable[[], float]] = {
        "ours": lambda: match_weights(groups, a, b, restarts=1).objective,
        "published loop": lambda: published_matching(groups, a, b),
    }
    if importlib.util.find_spec("rebasin"):
        ways["rebasin"] = lambda: by_rebasin(groups, name, a, b)
    times: dict[str, list[float]] = {way: [] for way in ways}
    for repeat in range(repeats):
        objectives = {}
        for way, match in ways.items():
            seconds, objectives[way] = cpu_seconds(match)
            times[way].append(seconds)
        print(f"{repeat + 1} of {repeats}", file=sys.stderr, flush=True)
    ours = float(np.median(times["ours"]))
    print(f"{name}: objective of identity {match_weights(groups, a, b, restarts=1).objective_of_identity:.1f}")
    for way, taken in times.items():
        median = float(np.median(taken))
        print(f"  {way:16}{median:7.2f} s, {median / ours:5.2f} times ours; objective {objectives[way]:.1f}")


def by_rebasin(groups: PermutationGroups, name: str, a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """The same objective, of what rebasin makes of the second network."""
    from rebasin import PermutationCoordinateDescent

    first, second = (build_model(name, 1000, seed=0).eval() for _ in range(2))
    first.load_state_dict(a)
    second.load_state_dict(b)
    PermutationCoordinateDescent(first, second, torch.randn(1, 3, 64, 64)).rebasin()
    moved = second.state_dict()
    weights = {axis.key for group in groups for axis in group.axes} & {key for key, _ in first.named_parameters()}
    return sum(float((a[key].double() * moved[key]).sum()) for key in weights)


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
