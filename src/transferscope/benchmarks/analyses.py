"""Speed of the analyses, each against the bare forward pass and against the usual way to compute the same."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from transferscope.benchmarks.cases import Case, Setting

BARE = "bare forward pass"
USUAL = "the usual way"
ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)

Batches = list[tuple[Tensor, Tensor]]


def _examples(setting: Setting, count: int, size: int = 128) -> Batches:
    """Network inputs and labels on the device, in batches."""
    images = torch.randn(count, 3, setting.side, setting.side, device=setting.device)
    labels = torch.arange(count, device=setting.device) % setting.classes
    parts = images.contiguous(memory_format=torch.channels_last).split(size)
    return list(zip(parts, labels.split(size), strict=True))


def _states(setting: Setting) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of two networks."""
    first, second = (setting.network(seed).state_dict() for seed in (0, 1))
    return first, second


def _bare_rate(setting: Setting, precision: str, batches: Batches, models: int = 1) -> float:
    """Images a second of forward passes alone, of several models each."""
    dtype = getattr(torch, precision)
    network = setting.network().eval().to(dtype)
    inputs = [images.to(dtype) for images, _ in batches]

    def work() -> int:
        for images in inputs:
            for _ in range(models):
                network(images)
        return sum(map(len, inputs))

    with torch.inference_mode():
        return setting.rate(work)


def interpolation(setting: Setting) -> Iterator[Case]:
    """Accuracy and loss at five points of a line: images through a network a second, all points counted."""
    batches = _examples(setting, 16 if setting.small else 1024)
    states = _states(setting)
    for precision in dict.fromkeys([setting.precision, "float32"]):
        bare = f"{BARE}, {precision}"
        yield Case(bare, partial(_bare_rate, setting, precision, batches))
        yield Case(f"line, {precision}", partial(_line_rate, setting, precision, batches, states), against=(bare,))
    bare = f"{BARE}, float32"
    yield Case(USUAL, partial(_usual_line_rate, setting, batches, states), against=(bare, "line, float32"))


def _line_rate(setting: Setting, precision: str, batches: Batches, states: tuple[dict[str, Tensor], ...]) -> float:
    from transferscope.analysis.evaluator import Evaluator
    from transferscope.analysis.interpolation import walk

    model, evaluate = setting.network().eval(), Evaluator(batches, precision=precision)

    def work() -> int:
        walk(model, states[0], states[1], ALPHAS, evaluate)
        return len(ALPHAS) * sum(len(labels) for _, labels in batches)

    return setting.rate(work, warm_up=1)


def _usual_line_rate(setting: Setting, batches: Batches, states: tuple[dict[str, Tensor], ...]) -> float:
    """A state_dict is made and loaded at every point; each batch gives its numbers at once."""
    model = setting.network().eval()

    def work() -> int:
        count = 0
        for alpha in ALPHAS:
            model.load_state_dict({key: (1 - alpha) * states[0][key] + alpha * states[1][key] for key in states[0]})
            with torch.no_grad():
                for images, labels in batches:
                    logits = model(images)
                    (logits.argmax(1) == labels).sum().item()
                    F.cross_entropy(logits, labels, reduction="sum").item()
                    count += len(images)
        return count

    return setting.rate(work, warm_up=1)


def criticality(setting: Setting) -> Iterator[Case]:
    """Modules set back and disturbed: perturbed networks times images a second."""
    batches = _examples(setting, 8 if setting.small else 256)
    states = _states(setting)
    bare = f"{BARE}, {setting.precision}"
    yield Case(bare, partial(_bare_rate, setting, setting.precision, batches))
    whole, reused = "every network whole", "what lies before a module reused"
    for name, reuse in ((whole, False), (reused, True)):
        rate = partial(_criticality_rate, setting, batches, states, reuse)
        yield Case(name, rate, against=(bare, whole) if reuse else (bare,))
    yield Case(USUAL, partial(_usual_criticality_rate, setting, batches, states), against=(bare, reused))


def _criticality_rate(setting: Setting, batches: Batches, states: tuple[dict[str, Tensor], ...], reuse: bool) -> float:
    from transferscope.analysis.criticality import criticality as disturb
    from transferscope.models.modules import find_modules
    from transferscope.models.parts import split_at_modules

    model = setting.network().eval().to(getattr(torch, setting.precision))
    modules = find_modules(model)
    stages = split_at_modules(model) if reuse else None
    cases = len(modules) * 2 * 2

    def work() -> int:
        examples = {"train": batches}
        disturb(
            model, states[0], states[1], modules, examples, alphas=ALPHAS[:2], sigmas=(0.01, 0.1), num_draws=1,
            stages=stages,
        )  # fmt: skip
        return cases * sum(len(labels) for _, labels in batches)

    return setting.rate(work, warm_up=0)


def _usual_criticality_rate(setting: Setting, batches: Batches, states: tuple[dict[str, Tensor], ...]) -> float:
    """Each perturbed network is loaded as a whole and run as a whole, in float32."""
    from transferscope.models.modules import find_modules

    model = setting.network().eval()
    keys = list(find_modules(model).values())[-1]

    def work() -> int:
        noisy = {key: states[0][key] + 0.01 * torch.randn_like(states[0][key]) for key in keys}
        model.load_state_dict({**states[1], **noisy})
        with torch.no_grad():
            for images, labels in batches:
                logits = model(images)
                logits.argmax(1).ne(labels).sum().item()
                F.cross_entropy(logits, labels, reduction="sum").item()
        return sum(len(labels) for _, labels in batches)

    return setting.rate(work, warm_up=1)


def cka(setting: Setting) -> Iterator[Case]:
    """CKA of five layers of two models: pairs of images through both a second."""
    images = [images for images, _ in _examples(setting, 16 if setting.small else 512, 8 if setting.small else 64)]
    labelled = [(one, torch.zeros(len(one))) for one in images]
    yield Case(BARE, partial(_bare_rate, setting, "float32", labelled, 2))
    for features, name in (("pooled", "pooled, debiased"), ("flattened", "flattened, minibatch")):
        yield Case(name, partial(_cka_rate, setting, images, features), against=(BARE,))
    yield Case(USUAL, partial(_usual_cka_rate, setting, images), against=(BARE, "flattened, minibatch"))


def _cka_rate(setting: Setting, images: list[Tensor], features: str) -> float:
    from transferscope.analysis.cka_models import cka_between
    from transferscope.analysis.features import FeatureExtractor
    from transferscope.models.layers import feature_layers

    models = [setting.network(seed).eval() for seed in (0, 1)]
    layers = feature_layers(models[0])
    extractors = {
        f"model_{index}": FeatureExtractor(model, layers, features=features)  # type: ignore[arg-type]
        for index, model in enumerate(models)
    }

    def work() -> int:
        with torch.no_grad():
            cka_between(extractors, images)
        return sum(map(len, images))

    return setting.rate(work, warm_up=1)


def _usual_cka_rate(setting: Setting, images: list[Tensor]) -> float:
    """Features of all layers kept by hooks, a Gram matrix of each and of each pair of layers the unbiased HSIC anew."""
    from transferscope.models.layers import feature_layers

    models = [setting.network(seed).eval() for seed in (0, 1)]
    kept: list[dict[str, Tensor]] = [{}, {}]
    for model, kept_of in zip(models, kept, strict=True):
        for name, path in feature_layers(model).items():
            model.get_submodule(path).register_forward_hook(
                lambda _module, _inputs, output, name=name, kept_of=kept_of: kept_of.update({name: output.flatten(1)})
            )

    def work() -> int:
        with torch.no_grad():
            for batch in images:
                for model in models:
                    model(batch)
                for name, first in kept[0].items():
                    grams = [features @ features.T for features in (first, kept[1][name])]
                    for one, other in ((0, 1), (0, 0), (1, 1)):
                        _unbiased_hsic(grams[one], grams[other]).item()
        return sum(map(len, images))

    return setting.rate(work, warm_up=1)


def _unbiased_hsic(first: Tensor, second: Tensor) -> Tensor:
    """Of Song et al. (2012), as written there."""
    n = len(first)
    k, m = (gram - torch.diag(gram.diagonal()) for gram in (first, second))
    total = (k @ m).trace() + k.sum() * m.sum() / (n - 1) / (n - 2) - 2 * (k.sum(0) @ m.sum(1)) / (n - 2)
    return total / n / (n - 3)


def spectrum(setting: Setting) -> Iterator[Case]:
    """All singular values of one 3x3 convolution: layers a second."""
    channels, side = (4, 8) if setting.small else (64, 28)
    weight = torch.randn(channels, channels, 3, 3, generator=torch.Generator().manual_seed(0)) / channels
    usual = f"{USUAL}, NumPy on the CPU"
    yield Case(usual, partial(_numpy_spectrum_rate, setting, weight, side), "layers/s")
    bare = "its blocks by torch.linalg.svdvals"
    yield Case(bare, partial(_batched_rate, setting, weight, side), "layers/s", against=(usual,))
    for method in ("auto", "svd"):
        rate = partial(_spectrum_rate, setting, weight, side, method)
        yield Case(f"ours, {method}", rate, "layers/s", against=(usual, bare))


def _spectrum_rate(setting: Setting, weight: Tensor, side: int, method: str) -> float:
    from transferscope.analysis.spectrum import conv_singular_values

    moved = weight.to(setting.device)

    def work() -> int:
        conv_singular_values(moved, side, method=method)  # type: ignore[arg-type]
        return 1

    return setting.rate(work, warm_up=1)


def _batched_rate(setting: Setting, weight: Tensor, side: int) -> float:
    """The transforms and one batched decomposition, float64, of every frequency of a real kernel twice."""
    moved = weight.double().to(setting.device)

    def work() -> int:
        blocks = torch.fft.fft2(moved, (side, side)).permute(2, 3, 0, 1).reshape(-1, *weight.shape[:2])
        torch.linalg.svdvals(blocks)
        return 1

    return setting.rate(work, warm_up=1)


def _numpy_spectrum_rate(setting: Setting, weight: Tensor, side: int) -> float:
    """The two lines of Sedghi et al. (2019)."""
    import numpy as np

    kernel = weight.permute(2, 3, 1, 0).double().numpy()

    def work() -> int:
        np.linalg.svd(np.fft.fft2(kernel, (side, side), axes=[0, 1]), compute_uv=False)
        return 1

    return setting.rate(work, warm_up=0)


def matching(setting: Setting) -> Iterator[Case]:
    """Channels of two networks matched by their weights, one descent: networks a second."""
    usual, ours = _matching_ways(setting)
    yield Case(USUAL, lambda: setting.rate(usual, warm_up=0), "networks/s")
    yield Case("ours", lambda: setting.rate(ours, warm_up=0), "networks/s", against=(USUAL,))


def _matching_ways(setting: Setting) -> tuple[Callable[[], int], Callable[[], int]]:
    from transferscope.analysis.alignment import match_weights, permutation_groups
    from transferscope.benchmarks.published_ways import published_matching

    model = copy.deepcopy(setting.network()).cpu()
    groups = permutation_groups(model, torch.randn(1, 3, setting.side, setting.side))
    first, second = ({key: tensor.cpu() for key, tensor in state.items()} for state in _states(setting))

    def usual() -> int:
        published_matching(groups, first, second)
        return 1

    def ours() -> int:
        match_weights(groups, first, second, restarts=1)
        return 1

    return usual, ours
