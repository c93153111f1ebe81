from __future__ import annotations

import pytest
import torch

from transferscope.images.shuffled_images import Shuffle, block_sizes
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
    assert Shuffle((3, 8, 8), 8, seed=1).is_identity
    assert torch.equal(Shuffle((3, 8, 8), 8, seed=1)(BATCH), BATCH)
    assert not any(Shuffle((3, 8, 8), size, seed=1).is_identity for size in (1, 2, 4, "values"))


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
