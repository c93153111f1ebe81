"""Shuffled images: a permutation of blocks, pixels or values, the same for all images of a seed or one for each.

Source: the study's feature-reuse experiment. It is applied to normalised batches, to train and test alike.
"""

from __future__ import annotations

import zlib
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

    def __call__(self, batch: Tensor, stored: Tensor | None = None) -> Tensor:
        """Shuffle a batch; `stored`, its images before normalisation, changes nothing here."""
        return self._permute(batch, self._order)

    def inverse(self, batch: Tensor) -> Tensor:
        """Undo the shuffle of a batch."""
        return self._permute(batch, self._inverse_order)

    def _permute(self, batch: Tensor, order: Tensor) -> Tensor:
        _check_shape(batch, self.image_shape)
        # Values move across channels, pixels within each; of two axes torch selects 17 times as fast as of three.
        flat = batch.reshape(-1, len(order))
        return flat.index_select(1, order.to(batch.device, non_blocking=True)).view(batch.shape)


class ShuffleEach:
    """As `Shuffle`, with another permutation for each image, which its pixels and the seed decide.

    So it is the same whenever the image is shown, and tells nothing to a network that learns positions: a control of
    the study's experiment, of which every image has the same permutation. Equal images share theirs.
    """

    def __init__(self, image_shape: tuple[int, int, int], block_size: BlockSize, seed: int) -> None:
        self.image_shape, self.block_size, self.seed = tuple(image_shape), block_size, seed
        values = block_size == "values"
        self._tiles = None if values else _tiles(*image_shape[1:], block_size)

    def __call__(self, batch: Tensor, stored: Tensor | None = None) -> Tensor:
        """Shuffle a batch of (B, C, H, W); `stored` holds the same images before normalisation, (B, 1 or 3, H, W)."""
        _check_shape(batch, self.image_shape)
        keys = batch if stored is None else stored
        seeds = [zlib.crc32(np.ascontiguousarray(image).data) for image in keys.cpu().numpy()]
        order = torch.from_numpy(np.stack([self._order(seed) for seed in seeds])).to(batch.device)
        flat = batch.flatten(1)[:, None] if self._tiles is None else batch.flatten(2)
        return flat.gather(-1, order[:, None].expand_as(flat)).view(batch.shape)

    def _order(self, key: int) -> np.ndarray:
        rng = np.random.default_rng([self.seed, key])
        if self._tiles is None:
            return rng.permutation(int(np.prod(self.image_shape)))
        return _untile(self._tiles[rng.permutation(len(self._tiles))], self.image_shape[-1])


def _check_shape(batch: Tensor, image_shape: tuple[int, ...]) -> None:
    if tuple(batch.shape[1:]) != image_shape:
        raise ValueError(f"images of shape {tuple(batch.shape[1:])}, but the shuffle is for {image_shape}")


def _pixel_order(height: int, width: int, block_size: int, seed: int) -> np.ndarray:
    """int64 (H*W,): position in the image from which each position of the shuffled image is taken."""
    tiles = _tiles(height, width, block_size)
    return _untile(tiles[_permutation(len(tiles), seed)], width)


def _tiles(height: int, width: int, block_size: BlockSize) -> np.ndarray:
    """int64 (blocks, b, b): the positions in the image of each of its blocks, row by row."""
    if not isinstance(block_size, int) or block_size < 1 or height % block_size or width % block_size:
        sizes = [size for size in block_sizes(height) if width % size == 0]
        raise UserError(
            f"shuffle: blocks of {block_size} do not tile images of {height}x{width}: give one of "
            f"{', '.join(map(str, sizes))}, or 'values'"
        )
    rows, columns = height // block_size, width // block_size
    tiled = np.arange(height * width).reshape(rows, block_size, columns, block_size).swapaxes(1, 2)
    return tiled.reshape(rows * columns, block_size, block_size).astype(np.int64)


def _untile(tiles: np.ndarray, width: int) -> np.ndarray:
    """int64 (H*W,): blocks (blocks, b, b) laid side by side to an image of `width` pixels, row by row."""
    size = tiles.shape[-1]
    return tiles.reshape(-1, width // size, size, size).swapaxes(1, 2).reshape(-1)


def _permutation(count: int, seed: int) -> np.ndarray:
    """A random order that is not the given one: of four blocks, one draw in 24 would leave the image unshuffled."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(count)
    while count > 1 and (order == np.arange(count)).all():
        order = rng.permutation(count)
    return order
