"""From stored uint8 batches to what a network sees, in batches and on the device of the batch.

Draws made on the CPU go to a GPU without waiting for it, since CUDA has taken its copy of ordinary memory on return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from transferscope.experiment.options import AugmentationOptions, PictureOptions
from transferscope.images.shuffled_images import Shuffle, ShuffleEach
from transferscope.images.split import PackedSplit
from transferscope.system.errors import UserError

NETWORK_CHANNELS = 3
GREY_WEIGHTS = (0.299, 0.587, 0.114)
"""Parts of red, green and blue in the grey that a network of one channel sees (ITU-R BT.601)."""
CROP_ASPECT = (3 / 4, 4 / 3)
"""Range of width / height of a random crop, as in ImageNet practice."""
CROP_TRIALS = 10
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


@dataclass(frozen=True)
class Draws:
    """All that is random about the images of a batch but mixup, on the CPU."""

    flipped: Tensor | None
    """bool (B,): mirrored or not, where nothing else moves."""
    theta: Tensor | None
    """float32 (B, 2, 3): output coordinates in [-1, 1] -> coordinates in the stored square, mirrored or not."""

    def of(self, rows: Tensor) -> Draws:
        """Those of some images of the batch."""
        return Draws(*(None if drawn is None else drawn[rows] for drawn in (self.flipped, self.theta)))

    @classmethod
    def joined(cls, several: Sequence[Draws]) -> Draws:
        """Those of several batches of one augmentation, as of one batch."""
        flipped = [draws.flipped for draws in several if draws.flipped is not None]
        theta = [draws.theta for draws in several if draws.theta is not None]
        return cls(torch.cat(flipped) if flipped else None, torch.cat(theta) if theta else None)


class TrainingTransform:
    """Random crop, affine map and mirror for each example of its own, then normalisation and shuffle.

    uint8 (B, 1 or 3, S, S) -> float32 (B, channels, crop, crop), as `EvaluationTransform`. All geometry is one
    bilinear sampling on the device of the batch; without geometry it is the evaluation transform, mirrored at random.
    Draws come from the given generator only, in a fixed order, so the same generator state gives the same batch.
    Departs from the authors' practice in two points: crops are cut from the stored square, not from the original, and
    are not antialiased; chest images are mapped after the equalising chain, not before.
    """

    def __init__(
        self, pictures: PictureOptions, augmentation: AugmentationOptions, channels: int = NETWORK_CHANNELS
    ) -> None:
        _check_range("random_resized_crop", augmentation.random_resized_crop, 1.0)
        _check_range("scale", augmentation.scale, math.inf)
        self.augmentation = augmentation
        self.crop_size = pictures.seen_size
        self._evaluation = EvaluationTransform(pictures, channels)

    @property
    def _moves(self) -> bool:
        options = self.augmentation
        return bool(options.rotate or options.shift or options.scale)

    def __call__(self, batch: Tensor, generator: torch.Generator, out: Tensor | None = None) -> Tensor:
        """Transform a batch; `out` as for the evaluation transform."""
        return self.apply(batch, self.draw(len(batch), batch.shape[-1], generator), out)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Draws:
        """Draw all that is random about `count` images stored with `side` pixels, in the order of the images."""
        options = self.augmentation
        flipped = _draw(generator, count, 0, 1) < 0.5 if options.flip else None
        if not self._moves and options.random_resized_crop is None:
            return Draws(flipped, None)
        return Draws(None, self._affine(count, side, flipped, generator))

    def apply(self, batch: Tensor, draws: Draws, out: Tensor | None = None) -> Tensor:
        """Transform a batch as was drawn; each image depends on its own draws alone."""
        if draws.theta is not None:
            return self._evaluation.finish(self._sample(batch, draws.theta.to(batch.device, non_blocking=True)), out)
        if draws.flipped is not None:
            flipped = draws.flipped.to(batch.device, non_blocking=True)[:, None, None, None]
            batch = torch.where(flipped, batch.flip(-1), batch)
        return self._evaluation(batch, out)

    def _affine(self, count: int, side: int, flipped: Tensor | None, generator: torch.Generator) -> Tensor:
        """float32 (B, 2, 3): output coordinates in [-1, 1] -> coordinates in the stored square."""
        if self.augmentation.random_resized_crop is None:
            window = torch.zeros(count, 4)
            window[:, :2] = self.crop_size / side
        else:
            window = _draw_windows(self.augmentation.random_resized_crop, count, generator)
        theta = _window_matrices(window)
        if self._moves:
            theta = _draw_motions(self.augmentation, count, generator) @ theta
        if flipped is not None:
            theta[:, :, 0] *= torch.where(flipped, -1.0, 1.0)[:, None]
        return theta[:, :2]

    def _sample(self, batch: Tensor, theta: Tensor) -> Tensor:
        """float32 (B, C, crop, crop) in 0..255; what lies outside the stored square is grey."""
        shape = [len(batch), batch.shape[1], self.crop_size, self.crop_size]
        grid = functional.affine_grid(theta, shape, align_corners=False)
        fill = float(self.augmentation.fill)
        if not self._moves:
            return functional.grid_sample(batch.float(), grid, padding_mode="border", align_corners=False)
        return functional.grid_sample(batch.float() - fill, grid, align_corners=False).add_(fill)


@dataclass(frozen=True)
class Mixing:
    """The draws of mixup for a batch."""

    weight: float | Tensor
    """Part of each example in its blend; the rest is its partner's. One for all, or float64 `(B,)`."""
    partners: Tensor
    """int64 (B,): the position of each example's partner."""

    @classmethod
    def draw(cls, count: int, alpha: float, generator: torch.Generator) -> Mixing:
        """Draw one weight ~ Beta(alpha, alpha) for the batch, and a permutation of its `count` examples."""
        weight = _draw_beta(alpha, generator)
        return cls(weight, torch.randperm(count, generator=generator, device=generator.device))

    @classmethod
    def joined(cls, several: Sequence[Mixing], count: int) -> Mixing:
        """The draws of several batches of `count` examples each, as of one batch."""
        weights = torch.tensor([mixing.weight for mixing in several], dtype=torch.float64).repeat_interleave(count)
        return cls(weights, torch.cat([mixing.partners + index * count for index, mixing in enumerate(several)]))

    def blend(self, batch: Tensor, others: Tensor) -> Tensor:
        """The blend of images (B, ...) with those of their partners."""
        weight = self.weight
        if isinstance(weight, Tensor):
            weight = weight.to(batch.device, batch.dtype, non_blocking=True).view(-1, *[1] * (batch.ndim - 1))
        return torch.lerp(others, batch, weight)

    def blend_targets(self, targets: Tensor) -> Tensor:
        """The blend of the targets (B, num_classes) of the batch; -1 (ignored) in either stays so."""
        other = self.partners.to(targets.device, non_blocking=True)
        ignored = (targets < 0) | (targets[other] < 0)
        return self.blend(targets, targets[other]).masked_fill_(ignored, -1.0)


def mixup(batch: Tensor, targets: Tensor, alpha: float, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Blend each example with another of the batch: lambda x + (1 - lambda) x', the same for the targets.

    One lambda ~ Beta(alpha, alpha) for the batch (Zhang et al. 2018, as in the authors' code). A target that is
    ignored (-1) in either example is ignored in the blend.

    Args:
        batch: float (B, ...).
        targets: float (B, num_classes): one-hot, or probabilities, or labels in {1, 0, -1}.
        alpha: 0 leaves everything as it is.
    """
    if alpha == 0:
        return batch, targets
    assert targets.is_floating_point()
    assert len(targets) == len(batch)
    mixing = Mixing.draw(len(batch), alpha, generator)
    others = batch[mixing.partners.to(batch.device, non_blocking=True)]
    return mixing.blend(batch, others), mixing.blend_targets(targets)


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


def _check_range(key: str, given: tuple[float, float] | None, largest: float) -> None:
    if given is not None and not 0 < given[0] <= given[1] <= largest:
        raise UserError(f"augmentation.{key} is {given}: give a lower and an upper end in (0, {largest}]")


def _draw(generator: torch.Generator, count: int, low: float, high: float) -> Tensor:
    """float32 (count,) uniform in [low, high), on the CPU."""
    drawn = torch.rand(count, generator=generator, device=generator.device)
    return drawn.cpu() * (high - low) + low


def _draw_windows(area: tuple[float, float], count: int, generator: torch.Generator) -> Tensor:
    """(count, 4): width, height, centre x and centre y of random crops, in coordinates where the square is [-1, 1].

    Area and log aspect are uniform; the first of ten trials that fits is taken, or else the whole square.
    """
    areas = _draw(generator, CROP_TRIALS * count, *area).view(CROP_TRIALS, count)
    aspects = _draw(generator, CROP_TRIALS * count, *map(math.log, CROP_ASPECT)).view(CROP_TRIALS, count).exp()
    sides = torch.stack([(areas * aspects).sqrt(), (areas / aspects).sqrt()], dim=-1)
    fits = (sides <= 1).all(dim=-1)
    first = fits.int().argmax(dim=0)
    chosen = torch.where(fits.any(dim=0)[:, None], sides[first, torch.arange(count)], torch.ones(2))
    places = torch.stack([_draw(generator, count, -1, 1), _draw(generator, count, -1, 1)], dim=-1)
    return torch.cat([chosen, places * (1 - chosen)], dim=1)


def _window_matrices(windows: Tensor) -> Tensor:
    matrices = torch.zeros(len(windows), 3, 3)
    matrices[:, 0, 0], matrices[:, 1, 1] = windows[:, 0], windows[:, 1]
    matrices[:, :2, 2] = windows[:, 2:]
    matrices[:, 2, 2] = 1
    return matrices


def _draw_motions(options: AugmentationOptions, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, 3): inverse of a zoom, a rotation about the centre and a shift."""
    angle = _draw(generator, count, -options.rotate, options.rotate).deg2rad()
    # A shift by a fraction f of the side is 2 f in coordinates from -1 to 1.
    shift = torch.stack([_draw(generator, count, -2 * options.shift, 2 * options.shift) for _ in range(2)], dim=-1)
    zoom = _draw(generator, count, *(options.scale or (1.0, 1.0)))
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    matrices = torch.zeros(count, 3, 3)
    matrices[:, 0, 0], matrices[:, 0, 1] = cos, sin
    matrices[:, 1, 0], matrices[:, 1, 1] = -sin, cos
    matrices[:, :2, 2] = -(matrices[:, :2, :2] @ shift[:, :, None])[:, :, 0]
    matrices[:, 2, 2] = 1
    return matrices


def _draw_beta(alpha: float, generator: torch.Generator) -> float:
    """One draw of Beta(alpha, alpha), by NumPy from a seed that the generator gives."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device).item()
    return float(np.random.default_rng(int(seed)).beta(alpha, alpha))
