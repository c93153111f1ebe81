"""Gram matrices in strips, against whole matrices and NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from transferscope.analysis.merging.gram_strips import GramStrip, factor, in_a_file, solve_factored, strips_of

CPU = torch.device("cpu")


def summed(inputs: Tensor, height: int) -> list[GramStrip]:
    """The strips of X^T X, added in two pieces."""
    groups, size, examples = inputs.shape
    strips = strips_of(size, groups, 8 * groups * size * height)
    for strip in strips:
        strip.begin(CPU)
        strip.add(inputs[:, :, : examples // 3])
        strip.add(inputs[:, :, examples // 3 :])
    return strips


def whole(strips: list[GramStrip]) -> Tensor:
    """The upper triangle that they hold."""
    full = torch.zeros(strips[0].groups, strips[0].size, strips[0].size, dtype=torch.float64)
    for strip in strips:
        full[:, strip.rows, strip.start :] = strip.values
    return full.triu()


@pytest.mark.parametrize("height", [1, 4, 7, 30])
@pytest.mark.parametrize("aside", [False, True])
def test_strips_are_the_matrix(height: int, aside: bool) -> None:
    """Sum, product, factor and solution are NumPy's of the whole matrix, in memory and in files, whatever their height."""
    generator = torch.Generator().manual_seed(height)
    inputs = torch.randn(2, 23, 60, generator=generator, dtype=torch.float64)
    right = torch.randn(2, 23, 5, generator=generator, dtype=torch.float64)
    strips = summed(inputs, height)
    assert {strip.stop - strip.start for strip in strips[:-1]} <= {height}
    if aside:
        for strip in strips[:-1]:
            strip.set_aside()
    gram = inputs.numpy() @ inputs.numpy().transpose(0, 2, 1)
    np.testing.assert_allclose(whole(strips), np.triu(gram), rtol=1e-13, atol=1e-12)
    total = in_a_file(torch.ones_like(right))
    for strip in strips:
        strip.add_product(right, 0.6, total)
    scaled = 0.6 * gram + 0.4 * gram * np.eye(23)
    np.testing.assert_allclose(total, 1 + scaled @ right.numpy(), rtol=1e-12, atol=1e-11)
    for strip in strips:
        strip.scale_off_diagonal(0.6)
    factor(strips, CPU)
    np.testing.assert_allclose(whole(strips), np.linalg.cholesky(scaled).transpose(0, 2, 1), rtol=1e-11, atol=1e-11)
    np.testing.assert_allclose(solve_factored(strips, right.clone()), np.linalg.solve(scaled, right), rtol=1e-10)


def test_matrices_that_have_no_factor_are_nan() -> None:
    """An overflowed group is NaN and leaves the others alone, and so is one that is not positive definite."""
    inputs = torch.randn(3, 9, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    inputs[1, 2, 3] = torch.inf
    strips = summed(inputs, 4)
    strips[1].values[2, 0, 0] = -1.0
    factor(strips, CPU)
    solved = solve_factored(strips, torch.ones(3, 9, 2, dtype=torch.float64))
    gram = inputs[0].numpy() @ inputs[0].numpy().T
    np.testing.assert_allclose(solved[0], np.linalg.solve(gram, np.ones((9, 2))), rtol=1e-10)
    assert solved[1].isnan().all()
    assert solved[2].isnan().all()


def test_strips_take_half_the_matrix() -> None:
    """Strips of the largest layer of a ResNet-50 take less than its network, and no strip more than is allowed."""
    strips = strips_of(4608, 1, 94_000_000 // 4)
    assert sum(strip.num_bytes for strip in strips) < 94_000_000 < 8 * 4608**2
    assert max(strip.num_bytes for strip in strips_of(25088, 1, 10_000_000)) <= 10_000_000
    assert strips_of(7, 1, 1)[0].stop == 1
