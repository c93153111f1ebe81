"""Orthogonal Procrustes similarity of two sets of features: a second opinion beside CKA."""

from __future__ import annotations

import torch
from torch import Tensor

from transferscope.system.errors import UserError


def procrustes_similarity(features_x: Tensor, features_y: Tensor) -> float:
    """Fit of two sets of features under a rotation: |X^T Y|_* of centred X, Y of Frobenius norm 1.

    features: (num_examples, num_features_x) and (num_examples, num_features_y), row i of both for example i. In [0, 1],
    1 where the features agree up to rotation, shift and scale; the squared Procrustes distance is 2 - 2 times it (Ding,
    Denain and Steinhardt 2021). Not debiased: unrelated features come out above 0 unless there are far more examples
    than features. Raises UserError for different numbers of examples and for constant features.
    """
    if features_x.ndim != 2 or features_y.ndim != 2 or len(features_x) != len(features_y):
        shapes = f"{tuple(features_x.shape)} and {tuple(features_y.shape)}"
        raise UserError(f"features of shapes {shapes}: expected (num_examples, num_features), as many examples in both")
    x, y = _centred(features_x), _centred(features_y)
    return procrustes_of_moments(x.T @ y, x.square().sum(), y.square().sum())


def procrustes_of_moments(cross: Tensor, squares_x: Tensor, squares_y: Tensor) -> float:
    """The same from the second moments of centred features: X^T Y, |X|_F^2 and |Y|_F^2."""
    for name, squares in (("x", squares_x), ("y", squares_y)):
        if not squares > 0:
            raise UserError(f"features_{name} are constant for all examples: there is nothing to align")
    return float(torch.linalg.matrix_norm(cross, ord="nuc") / (squares_x * squares_y).sqrt())


def _centred(features: Tensor) -> Tensor:
    # Shifting by the first example makes constant features exactly 0.
    shifted = features.to(torch.float64) - features[:1].to(torch.float64)
    return shifted - shifted.mean(dim=0)
