"""Turn stored images into what a network sees: centre crop, normalisation, shuffle, grey for one channel."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from transferscope.experiment.options import PictureOptions
from transferscope.images.shuffled_images import Shuffle, ShuffleEach
from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError

NETWORK_CHANNELS = 3
GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Parts of red, green and blue in the grey that a network of one channel sees (ITU-R BT.601)."""

CACHED_VALUES = 3 * 224 * 224


class EvaluationTransform:
    """Centre crop, normalisation, shuffle: uint8 (B, 1 or 3, S, S) -> float32 (B, channels, crop, crop).

    A value v of channel c becomes (v / 255 - mean_c) / std_c. One stored channel is shown to all three inputs. A
    network that takes one channel sees the weighted sum of these three, .299 red + .587 green + .114 blue. Raises
    UserError for networks of other numbers of channels.
    """

    def __init__(self, pictures: PictureOptions, channels: int = NETWORK_CHANNELS) -> None:
        check_channels(channels)
        self.pictures, self.channels = pictures, channels
        self.crop_size = pictures.seen_size
        self._scale, self._offset = _normalisation(pictures)
        self._shuffle = shuffle_of(pictures)

    def __call__(self, batch: Tensor, out: Tensor | None = None) -> Tensor:
        """Transform a batch; `out` may give a float32 tensor of the result's shape to be filled and returned.

        At 224 pixels, filling one buffer again and again is about five times as fast on a CPU as new memory each time.
        """
        return self.finish(_centre(batch, self.crop_size), out)

    def finish(self, batch: Tensor, out: Tensor | None = None) -> Tensor:
        """Turn uint8 or float32 values in 0..255 (B, 1 or 3, crop, crop) after the geometry into the result."""
        if self._shuffle is None and self.channels == NETWORK_CHANNELS:
            return _normalise(batch, self._scale, self._offset, out)
        images = _normalise(batch, self._scale, self._offset, None)
        if self._shuffle is not None:
            images = self._shuffle(images, batch)
        if self.channels == 1:
            images = to_grey(images)
        return images if out is None else out.copy_(images)


def check_channels(channels: int) -> None:
    """Raise a UserError for networks whose input no stored image can be turned into."""
    if channels not in (1, NETWORK_CHANNELS):
        raise UserError(
            f"the model takes images of {channels} channels, but images have 1 (grey) or 3 (colour): take a model of "
            "1 or 3 input channels"
        )


def to_grey(images: Tensor) -> Tensor:
    """(B, 3, H, W) -> (B, 1, H, W), the weighted sum of the three channels; one channel stays as it is."""
    if images.shape[1] == 1:
        return images
    return (images * images.new_tensor(GREY_WEIGHTS)[:, None, None]).sum(dim=1, keepdim=True)


def shuffle_of(pictures: PictureOptions) -> Shuffle | ShuffleEach | None:
    """The shuffle of all images that are shown with these settings, if there is one."""
    options = pictures.shuffle
    if options is None:
        return None
    shape = (NETWORK_CHANNELS, pictures.seen_size, pictures.seen_size)
    made = ShuffleEach if options.per_image else Shuffle
    return made(shape, options.block_size, options.seed)


class SeenImages:
    """Images of a split as a network sees them before normalisation, one at a time, cropped and shuffled.

    Indexed by a number, it gives uint8 (1 or 3, crop, crop); nothing is read before.
    """

    def __init__(self, split: PackedSplit) -> None:
        self._split = split
        self._shuffle = shuffle_of(split.pictures)

    def __getitem__(self, index: int) -> np.ndarray:
        image = _centre(self._split.gather([index]), self._split.pictures.seen_size)
        if self._shuffle is not None:
            image = self._shuffle(image.expand(-1, NETWORK_CHANNELS, -1, -1), image)
        return image[0].numpy()


def _normalisation(pictures: PictureOptions) -> tuple[Tensor, Tensor]:
    """Factor and offset of each channel for values in 0..255: float32 (3, 1, 1)."""
    mean = torch.tensor(pictures.mean, dtype=torch.float64).expand(NETWORK_CHANNELS)
    std = torch.tensor(pictures.std, dtype=torch.float64).expand(NETWORK_CHANNELS)
    return (1 / (255 * std)).float()[:, None, None], (-mean / std).float()[:, None, None]


def _centre(batch: Tensor, size: int) -> Tensor:
    top, left = round((batch.shape[-2] - size) / 2), round((batch.shape[-1] - size) / 2)
    return batch[..., top : top + size, left : left + size]


def _normalise(batch: Tensor, scale: Tensor, offset: Tensor, out: Tensor | None) -> Tensor:
    shape = (len(batch), NETWORK_CHANNELS, *batch.shape[-2:])
    out = torch.empty(shape, dtype=torch.float32, device=batch.device) if out is None else out
    assert out.shape == shape
    if out.is_cpu:
        _normalise_in_pieces(batch.numpy(), scale.numpy(), offset.numpy(), out.numpy())
        return out
    scale, offset = (values.to(batch.device, non_blocking=True) for values in (scale, offset))
    return out.copy_(batch).mul_(scale).add_(offset)


def _normalise_in_pieces(batch: np.ndarray, scale: np.ndarray, offset: np.ndarray, out: np.ndarray) -> None:
    """Three passes over a piece that stays in the cache cost half of three passes over the batch.

    By NumPy, in one thread: starting torch's threads for every piece costs more than they save.
    """
    step = max(1, CACHED_VALUES // max(1, out[:1].size))
    for start in range(0, len(out), step):
        piece = out[start : start + step]
        piece[...] = batch[start : start + step]
        piece *= scale
        piece += offset
