from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torchvision.transforms import functional

from transferscope.experiment.options import AugmentationOptions, PictureOptions
from transferscope.images.augment import TrainingTransform
from transferscope.images.seen_images import EvaluationTransform
from transferscope.system.errors import UserError

PLAIN = {"mean": (0.0,), "std": (1 / 255,)}
"""Normalisation under which a value v in 0..255 stays v."""


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(count: int = 6, channels: int = 3, side: int = 8, seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, channels, side, side), dtype=torch.uint8, generator=generator(seed))


def transform_of(side: int = 8, crop: int | None = None, **options: object) -> TrainingTransform:
    return TrainingTransform(PictureOptions(store_size=side, crop_size=crop, **PLAIN), AugmentationOptions(**options))


def test_nothing_asked_nothing_done() -> None:
    """Without augmentation training sees what evaluation sees."""
    pictures = PictureOptions(store_size=8, crop_size=6)
    training = TrainingTransform(pictures, AugmentationOptions())
    assert torch.equal(training(batch_of(), generator()), EvaluationTransform(pictures)(batch_of()))


@pytest.mark.parametrize(
    "options",
    [
        {"flip": True},
        {"random_resized_crop": (0.3, 1.0), "flip": True},
        {"rotate": 15.0, "shift": 0.05, "scale": (0.95, 1.05)},
        {"rotate": 15.0, "random_resized_crop": (0.5, 0.9), "flip": True},
    ],
)
def test_deterministic_for_a_generator(options: dict[str, object]) -> None:
    """The same generator state gives the same batch, another one another; the global state is not touched."""
    transform = transform_of(crop=6, **options)
    state = torch.get_rng_state()
    first = transform(batch_of(16), generator(1))
    assert torch.equal(first, transform(batch_of(16), generator(1)))
    assert not torch.equal(first, transform(batch_of(16), generator(2)))
    assert torch.equal(state, torch.get_rng_state())
    assert first.shape == (16, 3, 6, 6)
    assert first.min() >= -0.01
    assert first.max() <= 255.01


def test_flip_mirrors_about_half() -> None:
    """Each example is itself or its mirror image, and both happen."""
    batch = batch_of(200)
    result = transform_of(flip=True)(batch, generator())
    same = (result == batch).flatten(1).all(1)
    mirrored = (result == batch.flip(-1)).flatten(1).all(1)
    assert (same ^ mirrored).all()
    assert 70 < mirrored.sum() < 130


def test_flip_within_a_map_is_the_same_mirror() -> None:
    """With a whole-image crop the sampled mirror equals the exact one."""
    batch = batch_of(50)
    exact = transform_of(flip=True)(batch, generator())
    sampled = transform_of(flip=True, random_resized_crop=(1.0, 1.0))(batch, generator())
    kept = (sampled - batch.float()).abs().flatten(1).amax(1) < 0.05
    mirrored = (sampled - batch.flip(-1).float()).abs().flatten(1).amax(1) < 0.05
    whole = kept | mirrored
    assert whole.sum() > 0
    assert torch.equal(mirrored[whole], ((exact == batch.flip(-1)).flatten(1).all(1))[whole])


def test_rotation_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter turn is exact, and the uncovered corners of an eighth are grey, as in torchvision's affine."""
    batch = batch_of(side=9)
    _fix_draws(monkeypatch, {(-90.0, 90.0): 90.0})
    result = transform_of(side=9, rotate=90.0)(batch, generator())
    assert torch.allclose(result, torch.rot90(batch, -1, (-2, -1)).float(), atol=0.01)
    _fix_draws(monkeypatch, {(-45.0, 45.0): 45.0})
    result = transform_of(side=9, rotate=45.0)(batch, generator())
    assert torch.allclose(result, _torchvision_affine(batch, 45.0, 1.0), atol=0.01)


def test_shift_and_scale_as_torchvision_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shift moves whole pixels to the right and down, a zoom enlarges, as in torchvision's affine."""
    batch = batch_of(side=10)
    _fix_draws(monkeypatch, {(-0.4, 0.4): 0.4})
    result = transform_of(shift=0.2, side=10)(batch, generator())
    assert torch.allclose(result[..., 2:, 2:], batch[..., :-2, :-2].float(), atol=0.01)
    assert torch.allclose(result[..., :2, :], torch.full((6, 3, 2, 10), 128.0), atol=0.01)
    _fix_draws(monkeypatch, {(1.5, 2.0): 1.75})
    result = transform_of(scale=(1.5, 2.0), side=10)(batch, generator())
    assert torch.allclose(result, _torchvision_affine(batch, 0.0, 1.75), atol=0.01)


def test_fill_is_grey() -> None:
    """A constant image of the fill colour stays so under every map."""
    batch = torch.full((8, 3, 8, 8), 77, dtype=torch.uint8)
    result = transform_of(rotate=40.0, shift=0.3, scale=(0.5, 0.9), fill=77)(batch, generator())
    assert torch.allclose(result, torch.full((8, 3, 8, 8), 77.0), atol=1e-3)


def test_random_crops_have_the_asked_area_and_stay_inside() -> None:
    """Windows lie in the square, their areas and aspects in their ranges."""
    from transferscope.images.augment import _draw_windows

    windows = _draw_windows((0.1, 0.6), 2000, generator())
    sides, centres = windows[:, :2], windows[:, 2:]
    assert (centres.abs() + sides <= 1 + 1e-6).all()
    areas, aspects = sides.prod(1), sides[:, 0] / sides[:, 1]
    assert (areas >= 0.1 - 1e-6).all()
    assert (areas <= 0.6 + 1e-6).all()
    assert math.isclose(float(areas.mean()), 0.35, abs_tol=0.02)
    assert (aspects >= 0.75 - 1e-6).all()
    assert (aspects <= 4 / 3 + 1e-6).all()


def test_crop_of_a_gradient() -> None:
    """On a linear gradient a random crop is a linear gradient of smaller slope."""
    ramp = (torch.arange(16, dtype=torch.uint8) * 16).expand(20, 3, 16, 16)
    result = transform_of(side=16, random_resized_crop=(0.2, 0.5))(ramp, generator())
    inner = result[:, 0, 8].diff(dim=1)[:, 2:-2]
    assert (inner > 0).all()
    assert (inner < 16).all()


@pytest.mark.parametrize(
    ("pictures", "augmentation", "message"),
    [
        ({}, {"scale": (1.2, 0.8)}, r"augmentation.scale is \(1.2, 0.8\): give a lower and an upper end"),
        ({}, {"random_resized_crop": (0.1, 1.5)}, r"augmentation.random_resized_crop is .* in \(0, 1.0\]"),
    ],
)
def test_bad_options(pictures: dict[str, object], augmentation: dict[str, object], message: str) -> None:
    """An impossible option is named."""
    with pytest.raises(UserError, match=message):
        TrainingTransform(PictureOptions(**pictures), AugmentationOptions(**augmentation))


def _torchvision_affine(batch: Tensor, angle: float, scale: float) -> Tensor:
    """With grey outside; by its fill of zeros, since a fill of its own is blended twice at the edge."""
    bilinear = functional.InterpolationMode.BILINEAR
    return functional.affine(batch.float() - 128, angle, [0, 0], scale, [0.0, 0.0], bilinear) + 128


def _fix_draws(monkeypatch: pytest.MonkeyPatch, values: dict[tuple[float, float], float]) -> None:
    """Every draw from a range named here gives the value named, others the middle of their range."""

    def draw(_: torch.Generator, count: int, low: float, high: float) -> Tensor:
        return torch.full((count,), values.get((low, high), (low + high) / 2))

    monkeypatch.setattr("transferscope.images.augment._draw", draw)
