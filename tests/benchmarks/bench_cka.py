"""CKA of five layers of two ResNet-50 at 224 x 224: cost beyond the forward passes, and against the package torch_cka.

    python tests/benchmarks/bench_cka.py [--batches 1] [--batch-size 32] [--repeats 3] [--model resnet50] [--bfloat16]
    python tests/benchmarks/bench_cka.py --memory          # peak memory for 1,000 and 50,000 small images
    python tests/benchmarks/bench_cka.py --models          # all pairs among m models
    python tests/benchmarks/bench_cka.py --coverage 1000   # how often intervals hold the true CKA; --stored features.npz

"forward" is the two models' bare forward passes. torch_cka (PyPI) runs if it can be imported, under no_grad and with
the same layers; it compares every layer with every layer of flattened features, so it is put beside the same here.
Its errors and ours are against this package on float64 models. Figures are medians of interleaved repeats of CPU
seconds, which suffer less from other work on the machine than wall seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import resource
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import combinations

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from transferscope.analysis.cka import StreamingCKA, linear_cka
from transferscope.analysis.cka_interval import ExampleSpread
from transferscope.analysis.cka_models import cka_between
from transferscope.analysis.features import FeatureExtractor, Pooling
from transferscope.analysis.hsic import centre_unbiased, gram_matrix
from transferscope.models import build_model
from transferscope.models.layers import feature_layers


def cpu_seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


@torch.no_grad()
def forward(models: list[nn.Module], batches: list[Tensor]) -> None:
    for images in batches:
        for model in models:
            model(images)


def extractors(models: list[nn.Module], features: Pooling) -> dict[str, FeatureExtractor]:
    layers = feature_layers(models[0])
    return {f"model_{i}": FeatureExtractor(model, layers, features=features) for i, model in enumerate(models)}


def smooth_images(number: int, size: int) -> Tensor:
    """Images that differ: of plain noise, untrained networks make features so equal that torch_cka gives NaN."""
    coarse = 2 * torch.randn(number, 3, 7, 7) + 2 * torch.randn(number, 3, 1, 1)
    return nn.functional.interpolate(coarse, size, mode="bilinear")


def every_layer(models: list[nn.Module], batches: list[Tensor]) -> np.ndarray:
    """Minibatch CKA of flattened features, layers of the first model by layers of the second."""
    table = cka_between(extractors(models, "flattened"), batches, layer_pairs="all")
    return table["cka"].to_numpy().reshape(len(feature_layers(models[0])), -1)


@torch.no_grad()
def published(models: list[nn.Module], batches: list[Tensor]) -> np.ndarray | None:
    """The same by torch_cka; None where it is not installed."""
    try:
        from torch_cka import CKA
    except ImportError:
        return None
    layers = list(feature_layers(models[0]).values())
    images = DataLoader(TensorDataset(torch.cat(batches)), batch_size=len(batches[0]))
    copies = deepcopy(models)  # it never removes its hooks
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        cka = CKA(*copies, model1_layers=layers, model2_layers=layers)
        cka.compare(images, images)
    return cka.export()["CKA"].numpy()


def compare(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    models = [torchvision.models.get_model(arguments.model, weights=None).eval() for _ in range(2)]
    batches = [smooth_images(arguments.batch_size, arguments.image_size) for _ in range(arguments.batches)]
    values: dict[str, np.ndarray | None] = {}

    def keep(name: str, work: Callable[[], np.ndarray | None]) -> Callable[[], None]:
        return lambda: values.update({name: work()})

    works: dict[str, Callable[[], object]] = {
        "forward": lambda: forward(models, batches),
        "pooled, debiased": lambda: cka_between(extractors(models, "pooled"), batches),
        "flattened, minibatch": lambda: cka_between(extractors(models, "flattened"), batches),
        "every layer, flattened": keep("every layer, flattened", lambda: every_layer(models, batches)),
        "torch_cka": keep("torch_cka", lambda: published(models, batches)),
    }
    if arguments.bfloat16:
        halves = [deepcopy(model).bfloat16() for model in models]
        half_batches = [images.bfloat16() for images in batches]
        works["every layer, bfloat16"] = keep("every layer, bfloat16", lambda: every_layer(halves, half_batches))
    forward(models, batches[:1])
    timed: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(arguments.repeats):
        for name, work in works.items():
            timed[name].append(cpu_seconds(work))
    doubles = [deepcopy(model).double() for model in models]
    exact = every_layer(doubles, [images.double() for images in batches])
    num_images = arguments.batches * arguments.batch_size
    print(f"{arguments.model}, {num_images} images of {arguments.image_size} px, {arguments.repeats} repeats")
    print(f"{'':24}{'CPU s':>8}{'images/s':>10}{'of forward':>12}{'to torch_cka':>14}{'error':>10}")
    medians = {name: float(np.median(seconds)) for name, seconds in timed.items()}
    if values["torch_cka"] is None:
        print("torch_cka is not installed: left out")
        del medians["torch_cka"]
    for name, seconds in medians.items():
        ratio = medians["torch_cka"] / seconds if "torch_cka" in medians else float("nan")
        estimate = values.get(name)
        error = f"{np.abs(estimate - exact).max():10.1e}" if estimate is not None else ""
        print(
            f"{name:24}{seconds:8.2f}{num_images / seconds:10.1f}{medians['forward'] / seconds:12.2f}{ratio:14.2f}{error}"
        )


def streaming_against_gram(num_examples: int = 2000, num_features: int = 256) -> None:
    """Exact sums over batches against one Gram matrix of all examples, on features alone."""
    x, y = torch.randn(2, num_examples, num_features)
    streaming = StreamingCKA()
    values: list[float] = []

    def stream() -> None:
        for batch_x, batch_y in zip(x.split(256), y.split(256), strict=True):
            streaming.update(batch_x, batch_y)
        values.append(streaming.compute())

    # Zero columns change no value, but let linear_cka take the Gram matrices.
    wide_x, wide_y = (nn.functional.pad(f, (0, num_examples + 1 - num_features)) for f in (x, y))
    exact, gram = cpu_seconds(stream), cpu_seconds(lambda: values.append(linear_cka(wide_x, wide_y)))
    print(
        f"{num_examples} examples of {num_features} features: streaming {exact:.2f} CPU s, Gram {gram:.2f}, "
        f"ratio {gram / exact:.1f}, difference {abs(values[0] - values[1]):.1e}"
    )


def small_models(number: int) -> list[nn.Module]:
    torch.manual_seed(0)
    return [build_model("fixup_resnet_small", 10).eval() for _ in range(number)]


def random_batches(num_images: int, size: int) -> Iterator[Tensor]:
    for start in range(0, num_images, 100):
        yield torch.randn(min(100, num_images - start), 3, size, size)


def peak_memory(num_images: int) -> None:
    """All estimators on pooled and flattened features of one process; prints the peak in MiB."""
    models = [build_model("fixup_resnet_small", 10, widths=[4, 8, 8]).eval() for _ in range(2)]
    for features in ("pooled", "flattened"):
        estimators = ("biased", "debiased", "minibatch") if features == "pooled" else ("minibatch",)
        cka_between(extractors(models, features), random_batches(num_images, 16), estimators=estimators)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)


def memory() -> None:
    peaks = {}
    for number in (1000, 50000):
        command = [sys.executable, __file__, "--memory-of", str(number)]
        peaks[number] = float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(", ".join(f"{number:,} images: {peak:.0f} MiB" for number, peak in peaks.items()))
    print(f"ratio {peaks[50000] / peaks[1000]:.3f}")


def many_models() -> None:
    """CPU seconds for all pairs among m models: near proportional to m, where pairs grow as its square."""
    for number in (2, 4, 8):
        models = small_models(number)
        batches = list(random_batches(800, 32))
        work = cpu_seconds(lambda: cka_between(extractors(models, "pooled"), batches))  # noqa: B023
        passes = cpu_seconds(lambda: forward(models, batches))  # noqa: B023
        pairs = number * (number - 1) // 2
        print(f"{number} models, {pairs} pairs: {work:.2f} CPU s, {work / number:.2f} a model, forward {passes:.2f}")


WIDTH = 16


def heavy(number: int, mix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Heavy-tailed features of one model, and those of another that mixes what is behind them with something else."""
    scale = 1 / torch.arange(1, WIDTH + 1)
    ours, others = (torch.randn(number, WIDTH, generator=generator) * scale for _ in range(2))
    return ours.relu() + 0.1 * ours**2, mix * ours + (1 - mix) * others


def normal(number: int, mix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """A few directions have most of the variance."""
    scale = 1 / torch.arange(1, WIDTH + 1)
    ours, others = (torch.randn(number, WIDTH, generator=generator) * scale for _ in range(2))
    return ours, mix * ours + (1 - mix) * others


def even(number: int, mix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All directions have the same variance."""
    ours, others = (torch.randn(number, WIDTH, generator=generator) for _ in range(2))
    return ours, mix * ours + (1 - mix) * others


def classes(number: int, mix: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Clusters, as deep layers have them; a share `mix` of the examples is in the same one in both models."""
    centres = torch.randn(2, 10, WIDTH, generator=torch.Generator().manual_seed(5))
    first, other = (torch.randint(10, (number,), generator=generator) for _ in range(2))
    second = torch.where(torch.rand(number, generator=generator) < mix, first, other)
    noise = 0.5 * torch.randn(2, number, WIDTH, generator=generator)
    return centres[0][first] + noise[0], (centres[1][second] + noise[1]).relu()


POPULATIONS = (
    *((heavy, mix) for mix in (0.0, 0.3, 0.6, 0.95)),
    *((normal, mix) for mix in (0.2, 0.5, 0.9)),
    *((even, mix) for mix in (0.0, 0.2, 0.5)),
    *((classes, mix) for mix in (0.3, 0.8)),
)
SIZES = ((100, 25), (100, 50), (500, 64))


def coverage(studies: int, stored: str | None) -> None:
    """Of every population, or of the features in a file: a line per number of examples and batch size."""
    generator = torch.Generator().manual_seed(0)
    for draw, mix in () if stored else POPULATIONS:
        truth = linear_cka(*draw(200_000, mix, generator)) if mix else 0.0
        report(f"{draw.__name__} {mix:g}", truth, lambda n: torch.cat(draw(n, mix, generator), dim=1), studies)  # noqa: B023
    for name, both in stored_pairs(stored) if stored else ():
        truth = linear_cka(*both.chunk(2, dim=1), debiased=False)
        report(name, truth, lambda n: both[torch.randint(len(both), (n,), generator=generator)], studies)  # noqa: B023


SAMPLES_AT_ONCE = 100


def report(name: str, truth: float, draw: Callable[[int], Tensor], studies: int) -> None:
    """Each sample is a pair of two models of its own, so that many of them are measured at once."""
    for number, size in SIZES:
        rows: dict[str, list[np.ndarray]] = {}
        for start in range(0, studies, SAMPLES_AT_ONCE):
            samples = torch.stack([draw(number) for _ in range(min(SAMPLES_AT_ONCE, studies - start))]).double()
            for estimator, (low, high) in intervals(samples, size).items():
                rows.setdefault(estimator, []).append(np.stack([high < truth, low > truth, high - low]))
        for estimator, held in rows.items():
            below, above, length = np.hstack(held).mean(axis=1)
            print(
                f"{name:32} CKA {truth:.3f}, {number} examples in batches of {size}, {estimator:9}: coverage "
                f"{1 - below - above:.3f}, too low {below:.3f}, too high {above:.3f}, length {length:.3f}",
                flush=True,
            )


def intervals(samples: Tensor, size: int) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Of samples (num_samples, num_examples, features of both models), as `LayerSimilarity` makes them."""
    half = samples.shape[2] // 2
    pairs = np.arange(len(samples))
    units = torch.cat([samples[:, :, :half], samples[:, :, half:]])
    spread = ExampleSpread(len(units), pairs, pairs + len(pairs))
    sums = np.zeros((3, len(pairs)))
    for batch in units.split(size, dim=1):
        grams = [gram_matrix(one) for one in batch]
        stack = torch.stack([centre_unbiased(gram) for gram in grams])
        spread.update(stack, torch.stack([gram.diagonal() for gram in grams]))
        a, b = stack.chunk(2)
        sums += np.stack([(x * y).sum(dim=(1, 2)).numpy() for x, y in ((a, b), (a, a), (b, b))]) / (len(stack[0]) - 3)
    values = {
        "debiased": np.array([linear_cka(one[:, :half], one[:, half:]) for one in samples]),
        "minibatch": sums[0] / np.sqrt(sums[1] * sums[2]),
    }
    return {
        estimator: spread.of(pairs, exact=estimator == "debiased").interval(value, 0.95)  # type: ignore[union-attr]
        for estimator, value in values.items()
    }


def stored_pairs(path: str) -> Iterator[tuple[str, Tensor]]:
    """Each two arrays of one width in an .npz file, (num_examples, num_features), that belong to the same examples."""
    features = {name: torch.as_tensor(array) for name, array in np.load(path, allow_pickle=False).items()}
    for a, b in combinations(features, 2):
        if features[a].shape == features[b].shape:
            yield f"{a} & {b}", torch.cat([features[a], features[b]], dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--image-size", type=int, default=224)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--bfloat16", action="store_true", help="also with bfloat16 models")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--memory-of", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--models", action="store_true")
    parser.add_argument("--coverage", type=int, default=0, metavar="SAMPLES")
    parser.add_argument(
        "--stored", help="an .npz file of features (examples, features): --coverage of each two of them"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.memory_of:
        peak_memory(arguments.memory_of)
    elif arguments.memory:
        memory()
    elif arguments.models:
        many_models()
    elif arguments.coverage:
        coverage(arguments.coverage, arguments.stored)
    else:
        compare(arguments)
        streaming_against_gram()


if __name__ == "__main__":
    main()
