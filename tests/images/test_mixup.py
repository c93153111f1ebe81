from __future__ import annotations

import math

import torch

from transferscope.images.mixup import mixup


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_mixup_blends_images_and_targets_alike() -> None:
    """With one-hot images the blend of the images is the blend of the targets, and weights sum to one."""
    targets = torch.eye(6)
    images, blended = mixup(torch.eye(6)[:, None, :, None], targets, 0.7, generator())
    assert torch.allclose(images.squeeze(), blended)
    assert torch.allclose(blended.sum(1), torch.ones(6))
    assert len({round(float(v), 6) for v in blended.unique()}) <= 4
    assert torch.equal(mixup(targets, targets, 0.7, generator())[0], mixup(targets, targets, 0.7, generator())[0])


def test_mixup_keeps_ignored_labels() -> None:
    """A label ignored in either example is ignored in the blend; nothing else is."""
    targets = torch.tensor([[-1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    _, blended = mixup(torch.zeros(3, 1), targets, 0.7, generator(1))
    assert blended[0, 0] == -1
    assert ((blended == -1) | ((blended >= 0) & (blended <= 1))).all()
    assert (blended[:, 1] >= 0).all()


def test_mixup_weights_follow_the_beta_distribution() -> None:
    """Over many draws the mean is 1/2 and the variance that of Beta(0.7, 0.7)."""
    from transferscope.images.mixup import _draw_beta

    source = generator()
    drawn = torch.tensor([_draw_beta(0.7, source) for _ in range(3000)])
    assert math.isclose(float(drawn.mean()), 0.5, abs_tol=0.03)
    assert math.isclose(float(drawn.var()), 1 / (4 * (2 * 0.7 + 1)), abs_tol=0.01)


def test_mixup_off() -> None:
    """Alpha 0 changes nothing and draws nothing."""
    source = generator()
    state = source.get_state()
    batch, targets = torch.rand(3, 2, generator=generator(5)), torch.eye(3)
    assert mixup(batch, targets, 0.0, source) == (batch, targets)
    assert torch.equal(source.get_state(), state)
