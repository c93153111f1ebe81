from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from transferscope.experiment.options import AugmentationOptions, PictureOptions
from transferscope.images.augment import TrainingTransform
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.shuffled_images import Shuffle, ShuffleEach, block_sizes
from transferscope.system.errors import UserError

BATCH = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 2, 4, 8, "values"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
def test_inverse_restores_the_image(size: int | str, dtype: torch.dtype) -> None:
    """Shuffling and undoing it gives the same bits, in either order."""
    batch = (BATCH * 255).to(dtype)
    shuffle = Shuffle((3, 8, 8), size, seed=1)
    assert torch.equal(shuffle.inverse(shuffle(batch)), batch)
    assert torch.equal(shuffle(shuffle.inverse(batch)), batch)


def test_whole_image_is_the_identity() -> None:
    """A block as large as the image leaves it; smaller ones do not."""
    assert torch.equal(Shuffle((3, 8, 8), 8, seed=1)(BATCH), BATCH)
    assert not any(torch.equal(Shuffle((3, 8, 8), size, seed=1)(BATCH), BATCH) for size in (1, 2, 4, "values"))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_blocks_move_as_wholes(size: int) -> None:
    """The blocks of the shuffled image are the blocks of the image, with all channels, in another order."""

    def blocks(image: torch.Tensor) -> list[tuple[float, ...]]:
        tiles = image.unfold(1, size, size).unfold(2, size, size).permute(1, 2, 0, 3, 4)
        return [tuple(tile.flatten().tolist()) for row in tiles for tile in row]

    shuffled = Shuffle((3, 8, 8), size, seed=3)(BATCH)
    assert blocks(shuffled[0]) != blocks(BATCH[0])
    assert sorted(blocks(shuffled[0])) == sorted(blocks(BATCH[0]))


def test_one_permutation_for_all_images() -> None:
    """Every image of every batch is permuted alike, and the seed decides how."""
    shuffle = Shuffle((3, 8, 8), 2, seed=3)
    assert torch.equal(shuffle(BATCH)[2:3], shuffle(BATCH[2:3]))
    assert torch.equal(shuffle(BATCH), Shuffle((3, 8, 8), 2, seed=3)(BATCH))
    assert not torch.equal(shuffle(BATCH), Shuffle((3, 8, 8), 2, seed=4)(BATCH))


def test_values_cross_channels() -> None:
    """ "values" keeps the values of an image but not which channel they are in; pixels keep their channels."""
    image = torch.arange(3).float()[None, :, None, None].expand(1, 3, 8, 8)
    mixed = Shuffle((3, 8, 8), "values", seed=0)(image)
    assert sorted(mixed.flatten().tolist()) == sorted(image.flatten().tolist())
    assert not torch.equal(mixed, image)
    assert torch.equal(Shuffle((3, 8, 8), 1, seed=0)(image), image)


def test_commutes_with_normalisation() -> None:
    """Blocks and pixels may be shuffled before or after normalisation, since channels stay together."""
    shuffle = Shuffle((3, 8, 8), 2, seed=0)
    scale = torch.tensor([1.0, 2.0, 3.0])[:, None, None]
    assert torch.equal(shuffle(BATCH * scale), shuffle(BATCH) * scale)


def test_the_studys_sizes() -> None:
    """Of 224 the study's block sizes all tile."""
    assert set(block_sizes(224)) >= {1, 2, 4, 7, 8, 14, 16, 28, 32, 56, 112, 224}


@pytest.mark.parametrize("size", [3, 0, 16, "pixels"])
def test_blocks_that_do_not_tile(size: int | str) -> None:
    """Other sizes are refused with those that are possible."""
    with pytest.raises(
        UserError, match=f"blocks of {size} do not tile images of 8x8: give one of 1, 2, 4, 8, or 'values'"
    ):
        Shuffle((3, 8, 8), size, seed=0)


def test_other_shape_is_refused() -> None:
    """A batch of another shape is not shuffled by guess."""
    with pytest.raises(ValueError, match=r"images of shape \(1, 8, 8\), but the shuffle is for \(3, 8, 8\)"):
        Shuffle((3, 8, 8), 2, seed=0)(BATCH[:, :1])


def by_numpy(image: np.ndarray, size: int, order: np.ndarray) -> np.ndarray:
    """Blocks copied one by one: the block at place k of the result is the block `order[k]` of the image."""
    columns = image.shape[2] // size
    result = np.empty_like(image)
    for place, source in enumerate(order):
        to, taken = (divmod(int(number), columns) for number in (place, source))
        rows, columns_to = (slice(size * part, size * (part + 1)) for part in to)
        rows_from, columns_from = (slice(size * part, size * (part + 1)) for part in taken)
        result[:, rows, columns_to] = image[:, rows_from, columns_from]
    return result


@pytest.mark.parametrize("size", [1, 2, 4])
def test_blocks_are_those_of_a_copy_block_by_block(size: int) -> None:
    """The same permutation of block numbers, drawn by NumPy, gives the same image; so does each image's own."""
    number = (8 // size) ** 2
    order = np.random.default_rng(3).permutation(number)
    expected = np.stack([by_numpy(image, size, order) for image in BATCH.numpy()])
    assert np.array_equal(Shuffle((3, 8, 8), size, seed=3)(BATCH).numpy(), expected)
    orders = [np.random.default_rng([3, zlib.crc32(image.numpy())]).permutation(number) for image in BATCH]
    own = np.stack([by_numpy(image, size, one) for image, one in zip(BATCH.numpy(), orders, strict=True)])
    assert np.array_equal(ShuffleEach((3, 8, 8), size, seed=3)(BATCH).numpy(), own)


@pytest.mark.parametrize("size", [1, 2, 4, 8, "values"])
def test_a_permutation_for_each_image(size: int | str) -> None:
    """Each image is permuted by itself: differently from the others, and alike in any batch and whenever it is shown.

    What is stored decides, not how it was normalised. The values of each image stay the same; a whole block moves none.
    """
    shuffle = ShuffleEach((3, 8, 8), size, seed=1)
    stored = (BATCH * 255).to(torch.uint8)
    shuffled = shuffle(BATCH, stored)
    assert torch.equal(shuffle(2 * BATCH, stored), 2 * shuffled)
    assert torch.equal(shuffle(BATCH[2:3], stored[2:3]), shuffled[2:3])
    assert torch.equal(shuffled.flatten(1).sort().values, BATCH.flatten(1).sort().values)
    assert torch.equal(shuffled, BATCH) == (size == 8)
    ramp = torch.arange(192.0).view(1, 3, 8, 8).expand(4, -1, -1, -1)
    places = shuffle(ramp, stored).flatten(1)
    several = len({tuple(row.tolist()) for row in places}) >= 3  # of four blocks, two may be permuted alike
    assert several == (size != 8)
    if size != "values":  # colours of a pixel stay together
        assert torch.equal(places.view(4, 3, 64)[:, 1], places.view(4, 3, 64)[:, 0] + 64)
    assert torch.equal(ShuffleEach((3, 8, 8), size, seed=2)(BATCH, stored), shuffled) == (size == 8)


def test_the_network_sees_each_image_shuffled_by_its_own_pixels() -> None:
    """In training without augmentation and in evaluation the same; what is drawn of it too."""
    pictures = PictureOptions(store_size=8, shuffle={"block_size": 2, "per_image": True})
    stored = (BATCH * 255).to(torch.uint8)
    seen = EvaluationTransform(pictures)(stored)
    trained = TrainingTransform(pictures, AugmentationOptions())(stored, torch.Generator().manual_seed(0))
    assert torch.equal(seen, trained)
    plain = EvaluationTransform(PictureOptions(store_size=8))(stored)
    assert torch.equal(seen, ShuffleEach((3, 8, 8), 2, 0)(plain, stored))
    assert not torch.equal(seen, plain)
