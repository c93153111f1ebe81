"""Augment batches of training images at random: crop, affine map and mirror, on the device of the batch.

`seen_images` does all that is not random, `mixup` blends examples.
Draws made on the CPU go to a GPU without waiting for it, since CUDA has taken its copy of ordinary memory on return.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from transferscope.experiment.options import AugmentationOptions, PictureOptions
from transferscope.images.seen_images import NETWORK_CHANNELS, EvaluationTransform
from transferscope.system.errors import UserError
from transferscope.system.renamed import renamed_object

CROP_ASPECT = (3 / 4, 4 / 3)
"""Range of width / height of a random crop, as in ImageNet practice."""
CROP_TRIALS = 10


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


def __getattr__(name: str) -> object:
    """Names that stood here in version 0.1."""
    if (known := renamed_object(__name__, name)) is None:
        raise AttributeError(f"module {__name__} has no attribute {name}")
    return known
