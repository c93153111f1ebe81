"""Canonical correlations of two sets of features: a second opinion beside CKA.

Canonical correlations do not change under any invertible linear map of either side, so directions of hardly any
variance, which are mostly noise, count as much as the others. So each side is first cut to its principal components
that hold 99 % of its variance, as SVCCA does (Raghu et al. 2017). That is all the regularisation there is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferscope.analysis.hsic import FeatureSums
from transferscope.errors import UserError

VARIANCE = 0.99
"""The part of each side's variance that its principal components must hold."""


def mean_squared_cca(features_x: Tensor, features_y: Tensor, *, variance: float = VARIANCE) -> float:
    """Mean of the squared canonical correlations of the leading principal components, in [0, 1].

    features: (num_examples, num_features_x) and (num_examples, num_features_y), row i of both for example i. 1 where
    one side's components are a linear map of the other's. Not debiased: unrelated features come out near
    max(components) / num_examples, and at 1 where there are as many components as examples, so compare with permuted
    examples. Raises UserError for different numbers of examples and for constant features.

    Source: R^2_CCA of Kornblith et al. 2019, Table 1, on the components of Raghu et al. 2017.
    """
    moments = []
    for x, y in ((features_x, features_y), (features_x, features_x), (features_y, features_y)):
        sums = FeatureSums()
        sums.update(x, y)
        moments.append(sums.cross_moments())
    return cca_of_moments(*moments, variance=variance)


def cca_of_moments(cross: Tensor, own_x: Tensor, own_y: Tensor, *, variance: float = VARIANCE) -> float:
    """The same from the second moments of centred features: X^T Y, X^T X and Y^T Y."""
    white_x, white_y = _whitening("x", own_x, variance), _whitening("y", own_y, variance)
    correlations = white_x.T @ cross @ white_y
    return float(correlations.square().sum()) / min(correlations.shape)


def _whitening(name: str, moments: Tensor, variance: float) -> Tensor:
    """Principal directions, (num_features, num_components), each divided by the norm of the features along it."""
    eigenvalues, directions = torch.linalg.eigh(moments)
    eigenvalues, directions = eigenvalues.flip(0).clamp(min=0), directions.flip(1)
    total = eigenvalues.sum()
    if not total > 0:
        raise UserError(f"features_{name} are constant for all examples: there is nothing to correlate")
    # The last component is the one with which the share is reached.
    count = int((eigenvalues.cumsum(0) < variance * total).sum()) + 1
    return directions[:, :count] / eigenvalues[:count].sqrt()
