"""CKA of five layers of two ResNet-50 at 224 x 224: cost beyond the forward passes, and against the package pytorch-cka.

    python tests/benchmarks/bench_cka.py [--batches 1] [--batch-size 32] [--repeats 3] [--device cuda] [--bfloat16]
    python tests/benchmarks/bench_cka.py --memory          # peak memory for 1,000 and 50,000 small images
    python tests/benchmarks/bench_cka.py --models          # all pairs among m models
    python tests/benchmarks/bench_cka.py --coverage 1000   # how often intervals hold the true CKA; --stored features.npz

"forward" is the two models' bare forward passes. pytorch-cka (PyPI, 1.1.3 of 2026) is the fastest public library that was
found: one Gram matrix a layer and one product of them all, where cka-pytorch, ckatorch and torch_cka compute each pair of
layers anew. It runs if it can be imported (`uv pip install --no-deps --target FOLDER pytorch-cka tqdm`, PYTHONPATH=FOLDER),
on the same models, layers and batches, in the same precision and layout; else an own formulation of its algorithm does.
"every layer" is its work: the minibatch estimate of flattened features, each layer with each. The pooled and the
flattened ways of the pipeline have intervals and the floor of permuted examples besides. Where channels and activations
are is found before that, once a study. Errors are against plain hooks and Song's formula on float64 models. Figures are
medians of interleaved repeats: seconds of CPU, of the clock on a GPU.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from copy import deepcopy
from itertools import combinations

import numpy as np
import torch
import torchvision
from stopwatch import seconds
from torch import Tensor, nn

from transferscope.analysis.cka import StreamingCKA, linear_cka
from transferscope.analysis.cka_interval import ExampleSpread
from transferscope.analysis.cka_models import LayerSimilarity, cka_between
from transferscope.analysis.features import FeatureExtractor, Pooling
from transferscope.analysis.hsic import centre_unbiased, gram_matrix
from transferscope.analysis.layer_pairs import LayerComparison
from transferscope.models import build_model
from transferscope.models.layers import feature_layers
from transferscope.models.layouts import Layout


def cpu_seconds(work: Callable[[], object]) -> float:
    return seconds(work, torch.device("cpu"))


@torch.inference_mode()
def forward(models: list[nn.Module], batches: list[Tensor]) -> None:
    for images in batches:
        for model in models:
            model(images)


def extractors(models: list[nn.Module], features: Pooling) -> dict[str, FeatureExtractor]:
    layers, layouts = feature_layers(models[0]), dict[str, Layout]()
    return {
        f"model_{i}": FeatureExtractor(model, layers, features=features, layouts=layouts)
        for i, model in enumerate(models)
    }


def tried(models: list[nn.Module], features: Pooling, images: Tensor) -> dict[str, FeatureExtractor]:
    """Extractors that know where channels and activations are: found once a study, by ten images."""
    by_name = extractors(models, features)
    for extractor in by_name.values():
        extractor(images[:1], reduce=len)
    return by_name


def smooth_images(number: int, size: int) -> Tensor:
    """Images that differ: of plain noise, untrained networks make features so equal that float32 Gram matrices give NaN."""
    coarse = 2 * torch.randn(number, 3, 7, 7) + 2 * torch.randn(number, 3, 1, 1)
    return nn.functional.interpolate(coarse, size, mode="bilinear")


def paths(model: nn.Module) -> list[str]:
    """Modules whose outputs are our features: of a torchvision ResNet `relu` behind `conv1`."""
    layers = list(feature_layers(model).values())
    return ["relu" if path == "conv1" else path for path in layers]


def every_layer(by_name: dict[str, FeatureExtractor], batches: list[Tensor]) -> np.ndarray:
    """Minibatch CKA of flattened features, layers of the first model by layers of the second, and nothing else."""
    names = by_name["model_0"].layers
    one = LayerComparison((("model_0", "model_1"),), tuple(names), "all", ("minibatch",), intervals=False)
    similarity = LayerSimilarity(by_name, [one])
    similarity.update_all(batches)
    return similarity.cka(one)["cka"].to_numpy().reshape(len(names), -1)


def published(models: list[nn.Module], batches: list[Tensor]) -> np.ndarray:
    """The same by pytorch-cka."""
    from cka import compute_cka

    device = batches[0].device
    loader = [batches]  # of one data loader, which is a list
    return compute_cka(*models, loader, layers=paths(models[0]), progress=False, device=device)[0].cpu().numpy()


@torch.inference_mode()
def formulated(models: list[nn.Module], batches: list[Tensor]) -> np.ndarray:
    """The algorithm of pytorch-cka: features by hooks, a Gram matrix a layer, all HSIC by one product."""
    total = 0.0
    for images in batches:
        grams = torch.stack([gram for model in models for gram in hooked(model, images)])
        total = total + unbiased_hsic(grams)
    half = len(total) // 2  # type: ignore[arg-type]
    own = total.diagonal()  # type: ignore[attr-defined]
    return (total[:half, half:] / (own[:half, None] * own[None, half:]).sqrt()).cpu().numpy()  # type: ignore[index]


def hooked(model: nn.Module, images: Tensor) -> list[Tensor]:
    """Gram matrices of the features of a batch."""
    kept: list[Tensor] = []
    handles = [
        model.get_submodule(path).register_forward_hook(lambda _, __, output: kept.append(output.flatten(1)))
        for path in paths(model)
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return [features @ features.T for features in kept]


def unbiased_hsic(grams: Tensor) -> Tensor:
    """Of each two of (L, n, n), (L, L); Song et al. 2012, equation 5."""
    n = grams.shape[1]
    hollow = grams - torch.diag_embed(grams.diagonal(dim1=1, dim2=2))
    rows, flat = hollow.sum(dim=2), hollow.flatten(1)
    sums = rows.sum(dim=1)
    products = flat @ flat.T + torch.outer(sums, sums) / (n - 1) / (n - 2) - 2 / (n - 2) * rows @ rows.T
    return products / n / (n - 3)


def compare(arguments: argparse.Namespace) -> None:
    torch.manual_seed(0)
    device = torch.device(arguments.device)
    models = [torchvision.models.get_model(arguments.model, weights=None).eval().to(device) for _ in range(2)]
    batches = [smooth_images(arguments.batch_size, arguments.image_size).to(device) for _ in range(arguments.batches)]
    values: dict[str, np.ndarray] = {}

    def keep(name: str, work: Callable[[], np.ndarray]) -> Callable[[], None]:
        return lambda: values.update({name: work()})

    library = "pytorch-cka" if importlib.util.find_spec("cka") else "pytorch-cka's algorithm"
    theirs = published if library == "pytorch-cka" else formulated
    pooled, flattened = (tried(models, features, batches[0]) for features in ("pooled", "flattened"))
    works: dict[str, Callable[[], object]] = {
        "forward": lambda: forward(models, batches),
        "pooled, debiased": lambda: cka_between(pooled, batches),
        "flattened, minibatch": lambda: cka_between(flattened, batches),
        "every layer": keep("every layer", lambda: every_layer(flattened, batches)),
        library: keep(library, lambda: theirs(models, batches)),
    }
    if arguments.bfloat16:
        halves = [deepcopy(model).bfloat16() for model in models]
        half_batches = [images.bfloat16() for images in batches]
        known = tried(halves, "flattened", half_batches[0])
        works["every layer, bfloat16"] = keep("every layer, bfloat16", lambda: every_layer(known, half_batches))
        works[f"{library}, bfloat16"] = keep(f"{library}, bfloat16", lambda: theirs(halves, half_batches))
    forward(models, batches[:1])
    timed: dict[str, list[float]] = {name: [] for name in works}
    for repeat in range(arguments.repeats):
        for name, work in works.items():
            timed[name].append(seconds(work, device))
        print(f"{repeat + 1} of {arguments.repeats}", file=sys.stderr, flush=True)
    exact = formulated([deepcopy(model).double() for model in models], [images.double() for images in batches])
    num_images = arguments.batches * arguments.batch_size
    print(f"{arguments.model}, {num_images} images of {arguments.image_size} px, {arguments.repeats} repeats, {device}")
    print(f"{'':28}{'s':>8}{'images/s':>10}{'of forward':>12}{'speed, ' + library:>32}{'error':>10}")
    for name, taken in timed.items():
        ratio = float(np.median(np.array(timed[library]) / taken))
        of_forward = float(np.median(np.array(timed["forward"]) / taken))
        error = f"{np.abs(values[name] - exact).max():10.1e}" if name in values else ""
        middle = float(np.median(taken))
        print(f"{name:28}{middle:8.2f}{num_images / middle:10.1f}{of_forward:12.3f}{ratio:32.3f}{error}")


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
    parser.add_argument("--model", default="resnet50", help="a ResNet of torchvision")
    parser.add_argument("--device", default="cpu")
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
