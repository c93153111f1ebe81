"""Canonical correlations of two sets of features: a second opinion beside CKA.

Canonical correlations do not change under any invertible linear map of either side, so directions of hardly any
variance, which are mostly noise, count as much as the others. So each side is first cut to its principal components
that hold 99 % of its variance, as SVCCA does (Raghu et al. 2017). That is all the regularisation there is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferscope.analysis.hsic import FeatureSums
from transferscope.system.errors import UserError

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
    cross, own_x, own_y = moments
    return cca_of_moments(cross, whitening(own_x, "features_x", variance), whitening(own_y, "features_y", variance))


def cca_of_moments(cross: Tensor, whitening_x: Tensor, whitening_y: Tensor) -> float:
    """The same from X^T Y of centred features and the `whitening` of either side."""
    correlations = whitening_x.T @ cross @ whitening_y
    return float(correlations.square().sum()) / min(correlations.shape)


def whitening(moments: Tensor, name: str, variance: float = VARIANCE) -> Tensor:
    """Leading principal directions (num_features, num_components), each over the norm of the features along it.

    moments: X^T X of centred features. Raises UserError that names features which are constant.
    """
    eigenvalues, directions = torch.linalg.eigh(moments)
    eigenvalues, directions = eigenvalues.flip(0).clamp(min=0), directions.flip(1)
    total = eigenvalues.sum()
    if not total > 0:
        raise UserError(f"{name} are constant for all examples: there is nothing to correlate")
    # The last component is the one with which the share is reached.
    count = int((eigenvalues.cumsum(0) < variance * total).sum()) + 1
    return directions[:, :count] / eigenvalues[:count].sqrt()
