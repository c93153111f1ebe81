"""CKA of five layers of two ResNet-50 at 224 x 224: what it costs beyond the forward passes, and against a naive loop.

    python tests/benchmarks/bench_cka.py [--batches 2] [--batch-size 32] [--threads 1] [--model resnet50]

"forward" is the two models' bare forward passes. "naive" keeps all activations of both models and evaluates the
textbook HSIC of every pair of layers with explicit centring matrices, as loops over batches commonly do. The last part
compares exact streaming sums with one Gram matrix of all examples, on features alone. CPU seconds are given beside wall
seconds, since they suffer less from other work on the machine.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from transferscope.analysis.cka import StreamingCKA, linear_cka
from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.features import FeatureExtractor
from transferscope.models.layers import feature_layers


def seconds(work: Callable[[], object]) -> np.ndarray:
    """Wall and CPU seconds of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return np.array([time.perf_counter() - wall, time.process_time() - cpu])


@torch.no_grad()
def forward(models: list[nn.Module], batches: list[Tensor]) -> None:
    for images in batches:
        for model in models:
            model(images)


def naive(extractors: list[FeatureExtractor], batches: list[Tensor]) -> Tensor:
    """Mean over batches of biased CKA of every layer of one model with every layer of the other."""
    total = torch.zeros(len(extractors[0].layers), len(extractors[1].layers))
    for images in batches:
        first, second = (list(extractor(images).values()) for extractor in extractors)
        for i, x in enumerate(first):
            for j, y in enumerate(second):
                total[i, j] += hsic(x, y) / (hsic(x, x) * hsic(y, y)).sqrt()
    return total / len(batches)


def hsic(x: Tensor, y: Tensor) -> Tensor:
    n = len(x)
    centring = torch.eye(n) - 1 / n
    return torch.trace(x @ x.T @ centring @ y @ y.T @ centring) / (n - 1) ** 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="resnet50")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    models = [torchvision.models.get_model(arguments.model, weights=None).eval() for _ in range(2)]
    shape = (arguments.batch_size, 3, arguments.image_size, arguments.image_size)
    batches = [torch.randn(shape) for _ in range(arguments.batches)]
    layers = feature_layers(models[0])

    def extract(features: str) -> dict[str, FeatureExtractor]:
        return {f"model_{i}": FeatureExtractor(model, layers, features=features) for i, model in enumerate(models)}

    forward(models, batches[:1])
    timed = {
        "forward": seconds(lambda: forward(models, batches)),
        "pooled, exact": seconds(lambda: cka_between(extract("pooled"), batches)),
        "flattened, minibatch": seconds(lambda: cka_between(extract("flattened"), batches)),
        "naive": seconds(lambda: naive(list(extract("flattened").values()), batches)),
    }
    num_pairs = arguments.batches * arguments.batch_size
    print(f"{arguments.model}, {num_pairs} images, {arguments.threads} thread(s)")
    print(f"{'':24}{'wall s':>8}{'CPU s':>8}{'images/s':>10}{'of forward (wall | CPU)':>26}{'faster than naive':>26}")
    for name, (wall, cpu) in timed.items():
        of_forward, over_naive = timed["forward"] / timed[name], timed["naive"] / timed[name]
        print(
            f"{name:24}{wall:8.2f}{cpu:8.2f}{num_pairs / wall:10.1f}{of_forward[0]:15.2f} | {of_forward[1]:.2f}"
            f"{over_naive[0]:18.1f} | {over_naive[1]:.1f}"
        )
    print(f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
    streaming_against_gram()


def streaming_against_gram(num_examples: int = 2000, num_features: int = 256) -> None:
    x, y = torch.randn(2, num_examples, num_features)
    streaming = StreamingCKA()
    values: list[float] = []

    def stream() -> None:
        for batch_x, batch_y in zip(x.split(256), y.split(256), strict=True):
            streaming.update(batch_x, batch_y)
        values.append(streaming.compute())

    # Zero columns change no value, but let linear_cka take the Gram matrices.
    wide_x, wide_y = (nn.functional.pad(f, (0, num_examples + 1 - num_features)) for f in (x, y))
    exact, gram = seconds(stream), seconds(lambda: values.append(linear_cka(wide_x[:, :num_features], wide_y)))
    print(
        f"{num_examples} examples of {num_features} features: streaming {exact[0]:.2f} s ({exact[1]:.2f} CPU), Gram "
        f"{gram[0]:.2f} s ({gram[1]:.2f} CPU), ratio {gram[0] / exact[0]:.1f}, difference {abs(values[0] - values[1]):.1e}"
    )


if __name__ == "__main__":
    main()
