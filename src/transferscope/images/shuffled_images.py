"""Shuffled images: one fixed permutation of blocks, pixels or values for all images of a seed.

Source: the study's feature-reuse experiment. It is applied to normalised batches, to train and test alike.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import torch
from torch import Tensor

from transferscope.experiment.options import block_sizes
from transferscope.system.errors import UserError

BlockSize = int | Literal["values"]


class Shuffle:
    """Permutes square blocks of pixels of (B, C, H, W) tensors of any dtype; exact, and undone by `inverse`.

    Args:
        image_shape: (C, H, W) of one image; H and W must be multiples of the block size.
        block_size: Side b of the blocks, which move as wholes and keep their orientation; 1 permutes pixels; the side
            of a square image is the identity. "values" permutes all C*H*W
            values across positions and channels (the study's setting "*"); otherwise a pixel's channels stay together.
        seed: The same seed, shape and block size give the same permutation, never the identity by chance.

    Raises:
        UserError: When the blocks do not tile the image; the message lists the sizes that do.
    """

    def __init__(self, image_shape: tuple[int, int, int], block_size: BlockSize, seed: int) -> None:
        self.image_shape = tuple(image_shape)
        self.block_size = block_size
        if block_size == "values":
            order = _permutation(int(np.prod(image_shape)), seed)
        else:
            order = _pixel_order(*image_shape[1:], block_size, seed)
        self._order = torch.from_numpy(order)
        self._inverse_order = torch.from_numpy(np.argsort(order))

    @property
    def is_identity(self) -> bool:
        """Whether nothing moves."""
        return bool((self._order == torch.arange(len(self._order))).all())

    def __call__(self, batch: Tensor) -> Tensor:
        """Shuffle a batch."""
        return self._permute(batch, self._order)

    def inverse(self, batch: Tensor) -> Tensor:
        """Undo the shuffle of a batch."""
        return self._permute(batch, self._inverse_order)

    def _permute(self, batch: Tensor, order: Tensor) -> Tensor:
        if tuple(batch.shape[1:]) != self.image_shape:
            raise ValueError(f"images of shape {tuple(batch.shape[1:])}, but the shuffle is for {self.image_shape}")
        # Values move across channels, pixels within each: the last axis is what is permuted.
        flat = batch.flatten(1) if self.block_size == "values" else batch.flatten(2)
        return flat.index_select(-1, order.to(batch.device, non_blocking=True)).view(batch.shape)


def _pixel_order(height: int, width: int, block_size: int, seed: int) -> np.ndarray:
    """int64 (H*W,): position in the image from which each position of the shuffled image is taken."""
    if not isinstance(block_size, int) or block_size < 1 or height % block_size or width % block_size:
        sizes = [size for size in block_sizes(height) if width % size == 0]
        raise UserError(
            f"shuffle: blocks of {block_size} do not tile images of {height}x{width}: give one of "
            f"{', '.join(map(str, sizes))}, or 'values'"
        )
    rows, columns = height // block_size, width // block_size
    tiled = np.arange(height * width).reshape(rows, block_size, columns, block_size).swapaxes(1, 2)
    blocks = tiled.reshape(rows * columns, block_size, block_size)
    shuffled = blocks[_permutation(len(blocks), seed)]
    image = shuffled.reshape(rows, columns, block_size, block_size).swapaxes(1, 2)
    return image.reshape(-1).astype(np.int64)


def _permutation(count: int, seed: int) -> np.ndarray:
    """A random order that is not the given one: of four blocks, one draw in 24 would leave the image unshuffled."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    return order
