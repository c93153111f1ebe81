"""Mean squared canonical correlation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cross_decomposition import CCA

from transferscope.analysis.cca import mean_squared_cca
from transferscope.system.errors import UserError

GENERATOR = torch.Generator().manual_seed(0)
X = torch.randn(80, 4, generator=GENERATOR, dtype=torch.float64)
Y = X @ torch.randn(4, 5, generator=GENERATOR, dtype=torch.float64)
Y = Y + 2 * torch.randn(80, 5, generator=GENERATOR, dtype=torch.float64)


def test_scikit_learns_correlations():
    """With all components kept it is the mean of scikit-learn's squared canonical correlations."""
    first, second = CCA(n_components=4, max_iter=10000, tol=1e-12).fit_transform(X.numpy(), Y.numpy())
    correlations = [np.corrcoef(a, b)[0, 1] for a, b in zip(first.T, second.T, strict=True)]
    assert mean_squared_cca(X, Y, variance=1.0) == pytest.approx(np.mean(np.square(correlations)), abs=1e-6)


def test_orthonormal_bases_of_the_principal_components():
    """The textbook way: cut each side by a singular value decomposition, then |U_x^T U_y|_F^2 over the smaller number."""
    bases = []
    for features in (X * torch.tensor([10.0, 5, 1, 0.01]), Y):
        left, values, _ = np.linalg.svd((features - features.mean(dim=0)).numpy(), full_matrices=False)
        share = np.cumsum(values**2) / np.sum(values**2)
        bases.append(left[:, : np.searchsorted(share, 0.99) + 1])
    expected = np.linalg.norm(bases[0].T @ bases[1]) ** 2 / min(base.shape[1] for base in bases)
    assert bases[0].shape[1] < 4
    assert mean_squared_cca(X * torch.tensor([10.0, 5, 1, 0.01]), Y) == pytest.approx(expected, abs=1e-12)


def test_invariances():
    """Rotation, scale, shift, order and exchange change nothing; a model is at 1 from itself."""
    value = mean_squared_cca(X, Y)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=GENERATOR, dtype=torch.float64)).Q
    order = torch.randperm(80, generator=GENERATOR)
    for x, y in ((X @ rotation, Y), (3 * X, Y), (X + 9, Y), (X[order], Y[order]), (Y, X)):
        assert mean_squared_cca(x, y) == pytest.approx(value, abs=1e-10)
    assert mean_squared_cca(X, 5 * X @ rotation - 1) == pytest.approx(1, abs=1e-10)


def test_unrelated_features_are_near_the_larger_number_of_components_over_examples():
    """What the docstring says of the floor: 40 and 20 unrelated features of 1000 examples give about .04."""
    x, y = torch.randn(1000, 40, generator=GENERATOR), torch.randn(1000, 20, generator=GENERATOR)
    assert mean_squared_cca(x, y, variance=1.0) == pytest.approx(0.04, abs=0.005)


def test_bad_input_is_named():
    """Constant features hold nothing to correlate, and three examples are too few."""
    with pytest.raises(UserError, match="features_y are constant"):
        mean_squared_cca(X, torch.full((80, 3), 0.1))
    with pytest.raises(UserError, match="3 examples"):
        mean_squared_cca(X[:3], Y[:3])
