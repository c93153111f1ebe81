"""Options of images: how they are stored, what the network sees of them, and how training varies them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from transferscope.experiment.options.common import Fraction, Options, Pixels

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class ShuffleOptions(Options):
    """One permutation of all images of a task, train and test alike (feature reuse, Figure 3 of the main text)."""

    block_size: Pixels | Literal["values"]
    """Side in pixels of the blocks that move as wholes (1: pixels), or "values": all values, across channels."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    per_image: bool = False
    """A permutation of its own for each image, which follows from its pixels: no position means anything."""


class PictureOptions(Options):
    """Size and style of stored images, and the part of them that the network sees."""

    store_size: Pixels = 32
    """Side in pixels of the stored square, at most 8,192.

    In the study's `pictures` also auto: the median short side of the images, and at most 224."""
    crop_size: Pixels | None = None
    """Side that the network sees (centre crop in evaluation); None: all of the stored square."""
    style: Literal["photo", "chest"] = "photo"
    """`photo`: RGB, short side to store_size, centre square. `chest`: equalised, grey, padded with 128, blurred."""
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    """Per channel, or one for all, in units of [0, 1]."""
    shuffle: ShuffleOptions | None = None
    """The last thing that happens to an image, after crop and normalisation; None: nothing is shuffled."""

    @property
    def seen_size(self) -> int:
        """Side of what the network sees."""
        return self.crop_size or self.store_size

    @model_validator(mode="after")
    def _crop_fits(self) -> PictureOptions:
        if self.crop_size is not None and self.crop_size > self.store_size:
            raise ValueError(f"crop_size {self.crop_size} is larger than store_size {self.store_size}")
        return self

    @model_validator(mode="after")
    def _normalises(self) -> PictureOptions:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in (1, 3):
                raise ValueError(f"{name}: give one number for each of red, green and blue, or a single one")
            if max(values) > 1:
                raise ValueError(f"{name}: is in units of [0, 1]: divide what is in units of [0, 255] by 255")
        if min(self.std) <= 0 or min(self.mean) < 0:
            raise ValueError("std must be greater than 0, and mean not below 0")
        return self

    @model_validator(mode="after")
    def _blocks_tile(self) -> PictureOptions:
        block = self.shuffle.block_size if self.shuffle else "values"
        if block != "values" and self.seen_size % block:
            sizes = ", ".join(map(str, block_sizes(self.seen_size)))
            raise ValueError(f"shuffle.block_size {block} does not tile {self.seen_size} pixels: give one of {sizes}")
        return self


def block_sizes(side: int) -> tuple[int, ...]:
    """All sides of square blocks that tile a square of `side` pixels, the square itself last."""
    return tuple(size for size in range(1, side + 1) if side % size == 0)


class AugmentationOptions(Options):
    """Augmentation of a training batch; all off by default."""

    flip: bool = False
    """Mirror each example left to right with probability 1/2."""
    random_resized_crop: tuple[float, float] | None = None
    """Range of the area that is cut out and resized (ImageNet practice: [0.08, 1])."""
    rotate: Annotated[float, Field(ge=0)] = 0.0
    """Largest rotation in degrees."""
    shift: Fraction = 0.0
    """Largest shift as a fraction of the side."""
    scale: tuple[float, float] | None = None
    """Range of an isotropic zoom."""
    fill: Annotated[int, Field(ge=0, le=255)] = 128
    """Grey value of what an affine map uncovers."""
    mixup: Annotated[float, Field(ge=0)] = 0.0
    """Alpha of the Beta distribution of mixup; 0: off."""

    @property
    def moving(self) -> list[str]:
        """The options in use that move pixels."""
        return [key for key in ("flip", "random_resized_crop", "rotate", "shift", "scale") if getattr(self, key)]
