"""Procrustes similarity."""

from __future__ import annotations

import pytest
import torch
from scipy.spatial import procrustes

from transferscope.analysis.procrustes import procrustes_similarity
from transferscope.system.errors import UserError

X, Y = torch.randn(2, 40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_scipys_disparity_follows():
    """scipy also scales the rotated features, which leaves a disparity of 1 - similarity squared."""
    mixed = X + 0.5 * Y
    *_, disparity = procrustes(X.numpy(), mixed.numpy())
    assert disparity == pytest.approx(1 - procrustes_similarity(X, mixed) ** 2)


def test_invariances():
    """Rotation, scale, shift and order change nothing; a model is at 1 from itself."""
    value = procrustes_similarity(X, Y)
    rotation = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)).Q
    order = torch.randperm(40, generator=torch.Generator().manual_seed(2))
    for x, y in ((X @ rotation, Y), (3 * X, Y), (X + 9, Y), (X[order], Y[order]), (Y, X)):
        assert procrustes_similarity(x, y) == pytest.approx(value, abs=1e-12)
    assert procrustes_similarity(X, X @ rotation) == pytest.approx(1, abs=1e-12)
    assert procrustes_similarity(X, torch.nn.functional.pad(X, (0, 3))) == pytest.approx(1, abs=1e-12)


def test_bad_input_is_named():
    """Other examples and constant features are refused."""
    with pytest.raises(UserError, match="as many examples in both"):
        procrustes_similarity(X, Y[:5])
    with pytest.raises(UserError, match="features_y are constant"):
        procrustes_similarity(X, torch.full((40, 3), 0.1))
