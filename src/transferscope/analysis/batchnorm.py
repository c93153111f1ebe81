"""Statistics of BatchNorm layers for weights that no training has visited.

Averages of two networks' running statistics are not the statistics of the averaged network, so a barrier measured with
them is partly an artefact (Jordan et al., "REPAIR", ICLR 2023). The paper's networks have no BatchNorm.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from transferscope.analysis.evaluator import Batches, Evaluate, Metrics, iterate
from transferscope.system.errors import UserError


def batchnorm_layers(model: nn.Module) -> dict[str, _BatchNorm]:
    """The layers that normalise with stored statistics, by name."""
    return {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, _BatchNorm) and layer.running_mean is not None
    }


def recompute_statistics(model: nn.Module, batches: Batches) -> None:
    """Replace all running means and variances by those of one pass over `batches`, in place.

    Every layer sees inputs normalised by the batches' own statistics, as in training; a layer's mean and unbiased
    variance are pooled over the batches by the number of values, so unequal batches count as they should and one batch
    holding everything gives the exact statistics. Dropout and all else stay in eval mode; the model ends in eval mode.
    """
    layers = batchnorm_layers(model)
    if not layers:
        return
    pools = {name: _Pool() for name in layers}
    model.eval()
    with torch.no_grad(), _collecting(layers, pools):
        for inputs, _ in iterate(batches):
            model(inputs)
    model.eval()
    for name, layer in layers.items():
        mean, variance = pools[name].result(name)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        layer.running_mean.copy_(mean)
        layer.running_var.copy_(variance)


class _Pool:
    """Count, mean and sum of squared deviations per channel, merged batch by batch in float64 (Chan et al. 1979)."""

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, torch.zeros(()), torch.zeros(())

    def update(self, count: int, mean: Tensor, variance: Tensor) -> None:
        """A batch of `count` values a channel, with their mean and unbiased variance."""
        mean, squares = mean.double(), variance.double() * (count - 1)
        total = self.count + count
        shift = mean - self.mean
        self.squares = self.squares + squares + shift.square() * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    def result(self, name: str) -> tuple[Tensor, Tensor]:
        if self.count < 2:
            raise UserError(f"BatchNorm layer {name}: statistics need at least two values; give more examples")
        if (self.squares < 0).any():
            raise UserError(
                f"BatchNorm layer {name} does not keep statistics of the batches that it sees in training, and without"
                " them no point between two networks can be measured: it must update running_mean and running_var"
            )
        return self.mean, self.squares / (self.count - 1)


@contextmanager
def _collecting(layers: dict[str, _BatchNorm], pools: dict[str, _Pool]) -> Iterator[None]:
    """Layers normalise by the batch, leave their running statistics alone and report those of the batch.

    With momentum 1 running statistics are those of the last batch, which the layer has computed in any case; it
    writes them to buffers of this pass.
    """
    with ExitStack() as afterwards:
        for name, layer in layers.items():
            afterwards.callback(layer.register_forward_pre_hook(_check_count).remove)
            afterwards.callback(layer.register_forward_hook(partial(_report, pools[name])).remove)
            for key in ("momentum", "running_mean", "running_var", "num_batches_tracked"):
                afterwards.callback(setattr, layer, key, getattr(layer, key))
            counter = layer.num_batches_tracked  # SyncBatchNorm asks for one
            layer.momentum, layer.num_batches_tracked = 1.0, None if counter is None else counter.clone()
            assert layer.running_mean is not None
            assert layer.running_var is not None
            layer.running_mean = torch.zeros_like(layer.running_mean)
            layer.running_var = torch.full_like(layer.running_var, -1)  # a layer that writes none is seen by it
            layer.train()
        yield


def _values_a_channel(inputs: tuple[Tensor, ...]) -> int:
    return inputs[0].numel() // inputs[0].shape[1]


def _check_count(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    if _values_a_channel(inputs) < 2:
        raise UserError("BatchNorm: statistics of a batch need at least two values a channel; give more examples")


def _report(pool: _Pool, layer: nn.Module, inputs: tuple[Tensor, ...], _: Tensor) -> None:
    assert isinstance(layer, _BatchNorm)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    pool.update(_values_a_channel(inputs), layer.running_mean, layer.running_var)


def with_recomputed_statistics(evaluate: Evaluate, batches: Batches) -> Evaluate:
    """An `evaluate` that first recomputes the statistics on `batches` (training images).

    Metrics with the statistics that the model holds (stored at the checkpoints, interpolated between them) stand beside
    it under names that begin with "naive_". Used at the checkpoints as between them, so that both variants compare like
    with like. The model keeps the recomputed statistics.
    """

    def evaluate_both(model: nn.Module) -> Metrics:
        naive = evaluate(model)
        recompute_statistics(model, batches)
        return {**evaluate(model), **_naive(naive)}

    return evaluate_both


def _naive(metrics: Metrics) -> Metrics:
    """`test/loss` becomes `test/naive_loss`."""
    named = {name: name.rpartition("/") for name in metrics}
    return {f"{part}{slash}naive_{last}": metrics[name] for name, (part, slash, last) in named.items()}
