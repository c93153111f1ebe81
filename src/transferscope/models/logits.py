"""Check that a network puts out logits: a row for each image, that depends on this image alone."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from transferscope.models.layers import COLOUR, WEIGHT_LAYERS, evaluation_mode, image_channels, takes
from transferscope.system.errors import UserError

_IMAGES = 4
"""On which chance shows, also where it is dropout of two logits."""
_SUM_ERROR = 1e-4
"""By how much a row of probabilities may miss the sum 1."""
_SIGMOIDS = frozenset(
    (F.hardsigmoid, F.sigmoid, torch.sigmoid, torch.sigmoid_, torch.special.expit, Tensor.sigmoid, Tensor.sigmoid_)
)


class _LastSigmoid(TorchFunctionMode):
    """While active, remembers what a sigmoid put out last."""

    def __init__(self) -> None:
        super().__init__()
        self._last: Tensor | None = None

    def made(self, output: Tensor) -> bool:
        """True for the numbers that the last sigmoid put out, in any shape."""
        return self._last is not None and self._last.untyped_storage().data_ptr() == output.untyped_storage().data_ptr()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _SIGMOIDS:
            self._last = result
        return result


def as_logits(output: Any, network: nn.Module) -> Tensor:
    """The output of a network, which must be a row of logits for each image; UserError for anything else."""
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    shape = f"a tensor of {output.dim()} axes" if isinstance(output, Tensor) else f"a {type(output).__name__}"
    raise UserError(f"{type(network).__name__} puts out {shape}: return logits alone, of shape (images, classes)")


@torch.inference_mode()
def check_outputs(network: nn.Module, side: int) -> None:
    """Try a network in evaluation mode on a few images of noise, of `side` pixels: twice, and some beside blank images.

    Raises UserError for an output that is no row of logits, for probabilities, for an output that chance or the other
    images of the batch decide; also for a network that takes other channels than its first layer. Other errors of the
    network itself, as for images of a size that it does not take, are passed on.
    """
    channels = image_channels(network)
    images = torch.rand(_IMAGES, channels, side, side, generator=torch.Generator().manual_seed(0))
    with evaluation_mode(network), torch.random.fork_rng(devices=[]):
        try:
            with _LastSigmoid() as sigmoid:
                outputs = [network(images) for _ in range(2)]
        except (RuntimeError, ValueError, AssertionError, TypeError, IndexError):
            _check_channels(network, channels, side)
            raise
        first, second = (as_logits(output, network) for output in outputs)
        # As many images, so that the same kernels compute the same bits.
        own = len(images) // 2
        beside_blank = as_logits(network(torch.cat([images[:own], torch.zeros_like(images[own:])])), network)
    if not torch.allclose(first, second, rtol=1e-3, equal_nan=True):
        raise UserError(
            f"{type(network).__name__} puts out other values when the same image comes again, in evaluation mode: make "
            "what is random depend on self.training, as in F.dropout(x, training=self.training)"
        )
    scale = float(first.abs().max())
    if not torch.allclose(first[:own], beside_blank[:own], rtol=1e-3, atol=1e-5 * scale, equal_nan=True):
        raise UserError(
            f"{type(network).__name__} puts out other values for an image when other images are in its batch, in "
            "evaluation mode: let each output depend on its own image alone, without means over the batch "
            "(BatchNorm2d with track_running_stats=True)"
        )
    is_softmax = bool((first >= 0).all() and ((first.sum(dim=1) - 1).abs() < _SUM_ERROR).all())
    if is_softmax or sigmoid.made(second):
        raise UserError(
            f"{type(network).__name__} puts out probabilities, of which losses would be wrong: return logits, without "
            f"the {'softmax' if is_softmax else 'sigmoid'} at the end"
        )


def _check_channels(network: nn.Module, channels: int, side: int) -> None:
    """Raise UserError for a network that takes no images with the channels of its first layer, but others.

    Also for one that begins with a convolution of other than images.
    """
    other = next((number for number in (1, COLOUR) if number != channels and takes(network, number, side)), None)
    if other is not None:
        raise UserError(
            f"{type(network).__name__} takes images of {other} channels only, and its first layer, by which images are "
            f"shown, has {channels}: put a convolution of {other} input channels first, for example one of 1 by 1 "
            "pixels that changes nothing"
        )
    first = next((layer for layer in network.modules() if isinstance(layer, WEIGHT_LAYERS)), None)
    if isinstance(first, nn.Conv1d | nn.Conv3d):
        raise UserError(
            f"{type(network).__name__} begins with a {type(first).__name__}, which takes no images of shape (images, "
            "channels, side, side): reshape them in its forward, or compare without images"
        )
