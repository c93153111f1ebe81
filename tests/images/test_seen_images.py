from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from transferscope.experiment.options import IMAGENET_MEAN, IMAGENET_STD, AugmentationOptions, PictureOptions
from transferscope.images.augment import TrainingTransform
from transferscope.images.seen_images import EvaluationTransform
from transferscope.images.shuffled_images import Shuffle
from transferscope.system.errors import UserError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(count: int = 6, channels: int = 3, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator(seed))


def test_normalised_as_torchvision_does() -> None:
    """Centre crop, scaling to [0, 1] and normalisation equal torchvision's."""
    batch = batch_of(side=10)
    result = EvaluationTransform(PictureOptions(store_size=10, crop_size=7))(batch)
    expected = functional.normalize(functional.center_crop(batch, 7).float() / 255, IMAGENET_MEAN, IMAGENET_STD)
    assert torch.allclose(result, expected, atol=1e-5)
    assert result.shape == (6, 3, 7, 7)


@pytest.mark.parametrize("size", [1, 2, 4, "values"])
def test_shuffled_last(size: int | str) -> None:
    """Evaluation and training shuffle the cropped, normalised batch, into a buffer as well."""
    shown = {"store_size": 10, "crop_size": 8}
    plain, shuffled = PictureOptions(**shown), PictureOptions(**shown, shuffle={"block_size": size, "seed": 5})
    batch, shuffle = batch_of(side=10), Shuffle((3, 8, 8), size, seed=5)
    expected = shuffle(EvaluationTransform(plain)(batch))
    assert torch.equal(EvaluationTransform(shuffled)(batch), expected)
    assert torch.equal(EvaluationTransform(shuffled)(batch, out=torch.empty(6, 3, 8, 8)), expected)
    options = AugmentationOptions(flip=True, random_resized_crop=(0.3, 1.0), rotate=10)
    trained = [TrainingTransform(pictures, options)(batch, generator(3)) for pictures in (plain, shuffled)]
    assert torch.equal(shuffle(trained[0]), trained[1])


def test_one_channel_is_shown_to_three() -> None:
    """(v - 128) / 64 of the one stored channel, three times."""
    pictures = PictureOptions(store_size=8, style="chest", mean=(128 / 255,), std=(64 / 255,))
    batch = batch_of(channels=1)
    expected = ((batch.float() - 128) / 64).expand(-1, 3, -1, -1)
    assert torch.allclose(EvaluationTransform(pictures)(batch), expected, atol=1e-5)


def test_out_is_filled() -> None:
    """A given buffer holds the result, equal to that without one."""
    transform = EvaluationTransform(PictureOptions(store_size=8))
    buffer = torch.empty(6, 3, 8, 8)
    assert transform(batch_of(), out=buffer) is buffer
    assert torch.equal(buffer, transform(batch_of()))


@pytest.mark.parametrize("stored", [1, 3])
@pytest.mark.parametrize("shuffle", [None, {"block_size": 4}])
def test_a_network_of_one_channel_sees_the_weighted_sum_of_colours(stored: int, shuffle: dict[str, int] | None) -> None:
    """.299 red + .587 green + .114 blue of what a network of three channels sees, grey images and shuffles included."""
    batch = batch_of()[:, :stored]
    pictures = PictureOptions(store_size=8, mean=[0.4, 0.5, 0.6], std=[0.2, 0.3, 0.25], shuffle=shuffle)
    red, green, blue = EvaluationTransform(pictures)(batch).unbind(1)
    expected = (0.299 * red + 0.587 * green + 0.114 * blue)[:, None]
    seen = EvaluationTransform(pictures, 1)(batch)
    torch.testing.assert_close(seen, expected, rtol=1e-5, atol=1e-6)
    assert torch.equal(EvaluationTransform(pictures, 1)(batch, out=torch.empty_like(seen)), seen)
    assert torch.equal(TrainingTransform(pictures, AugmentationOptions(), 1)(batch, generator()), seen)


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_networks_of_other_numbers_of_channels_are_refused(channels: int) -> None:
    """One line says how many channels there are and how many there should be."""
    with pytest.raises(UserError, match=rf"takes images of {channels} channels, but images have 1 \(grey\) or 3"):
        EvaluationTransform(PictureOptions(store_size=8), channels)
