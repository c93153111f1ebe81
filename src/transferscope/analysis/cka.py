"""Centred kernel alignment of two sets of features with linear kernels (Kornblith et al. 2019; Tables 1 and 7).

CKA = HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L)) with the Gram matrices K = X X' and L = Y Y', 1 for features that agree
up to rotation and scale. The biased HSIC(K, L) is tr(K H L H) / (n-1)^2, H subtracting the mean of n examples; the
unbiased one of Song et al. 2012 stands in `transferscope.analysis.hsic`. With the biased HSIC, CKA is far above 0 even
for unrelated features unless there are far more examples than features (.89 for 2048 Gaussian features of 256
examples), so the unbiased HSIC is the default; its CKA scatters around 0 there and may be negative. The paper does not
say which estimator, pooling or number of examples its tables used: compare orderings.

X and Y are the outputs of a layer on test images, channels averaged over positions (pooled) or all values (flattened),
as `transferscope.analysis.features` takes them. This is CKA of two matrices that fit into memory. The study takes the
same ratio for all pairs of models in one pass over the images, in `transferscope.analysis.cka_models`, which
`transferscope.measure.similarity` feeds.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from transferscope.analysis.hsic import (
    FeatureSums,
    centre_biased,
    centre_unbiased,
    check_num_examples,
    gram_matrix,
)
from transferscope.system.errors import UserError

Estimator = Literal["biased", "debiased", "minibatch"]
ESTIMATORS = ("biased", "debiased", "minibatch")
MAX_EXACT_FEATURES = 4096
"""Largest number of features for which sums over examples are kept: 134 MB for each of three matrices."""


def linear_cka(features_x: Tensor, features_y: Tensor, *, debiased: bool = True) -> float:
    """Exact linear CKA of features (num_examples, num_features_x) and (num_examples, num_features_y), in float64.

    Row i of both belongs to example i. Biased values lie in [0, 1], debiased ones at most at 1. Raises UserError below
    4 examples, for different numbers of examples and for features that are the same for all examples.
    """
    _check_features(features_x, features_y)
    check_num_examples(len(features_x))
    if max(features_x.shape[1], features_y.shape[1]) < len(features_x):
        streaming = StreamingCKA(estimator="debiased" if debiased else "biased")
        for x, y in zip(features_x.split(4096), features_y.split(4096), strict=True):
            streaming.update(x, y)
        return streaming.compute()
    centre = centre_unbiased if debiased else centre_biased
    x, y = centre(gram_matrix(features_x)), centre(gram_matrix(features_y))
    return cka_ratio(float((x * y).sum()), float((x * x).sum()), float((y * y).sum()))


class StreamingCKA:
    """CKA from batches of features; memory does not grow with the number of examples.

    estimator: "debiased" and "biased" keep sums in feature space and give the same value as `linear_cka` of all
    examples at once; their memory is the square of the number of features. "minibatch" averages the unbiased HSIC of
    the batches (weighted by their examples) before the ratio is taken; it suits flattened features, every batch needs
    4 examples or more, and the examples should come shuffled. Its expectation differs from the debiased value only by
    that of a ratio: about 1e-3 for batches of 64. None takes "debiased" up to 4096 features.
    """

    def __init__(self, *, estimator: Estimator | None = None) -> None:
        if estimator is not None:
            check_estimator(estimator)
        self.estimator = estimator
        self.num_examples = 0
        self._sums: dict[str, FeatureSums] = {}
        self._hsic = dict.fromkeys(("xy", "xx", "yy"), 0.0)
        self._num_features: tuple[int, int] | None = None

    def update(self, features_x: Tensor, features_y: Tensor) -> None:
        """Add a batch of both models' features for the same examples, (num_examples, num_features)."""
        _check_features(features_x, features_y)
        num_features = (features_x.shape[1], features_y.shape[1])
        if self._num_features not in (None, num_features):
            raise UserError(f"a batch has {num_features} features where the ones before had {self._num_features}")
        self._num_features = num_features
        if self.estimator is None:
            self.estimator = "debiased" if max(num_features) <= MAX_EXACT_FEATURES else "minibatch"
        if self.estimator == "minibatch":
            self._add_batch(features_x, features_y)
        else:
            self._add_to_sums(features_x, features_y)
        self.num_examples += len(features_x)

    def compute(self) -> float:
        """The CKA of all examples so far."""
        check_num_examples(self.num_examples)
        values = self._hsic
        if self.estimator == "debiased":
            values = {name: sums.unbiased() for name, sums in self._sums.items()}
        elif self.estimator == "biased":
            values = {name: sums.biased() for name, sums in self._sums.items()}
        return cka_ratio(values["xy"], values["xx"], values["yy"])

    def _add_to_sums(self, x: Tensor, y: Tensor) -> None:
        for name, a, b in (("xy", x, y), ("xx", x, x), ("yy", y, y)):
            self._sums.setdefault(name, FeatureSums()).update(a, b)

    def _add_batch(self, x: Tensor, y: Tensor) -> None:
        centred = {"x": centre_unbiased(gram_matrix(x)), "y": centre_unbiased(gram_matrix(y))}
        for name in self._hsic:
            product = float((centred[name[0]] * centred[name[1]]).sum())
            self._hsic[name] += product / (len(x) - 3)


def cka_ratio(hsic_xy: float, hsic_xx: float, hsic_yy: float) -> float:
    """HSIC(x, y) / sqrt(HSIC(x, x) HSIC(y, y)); all three may carry the same factor.

    Raises UserError where features do not vary: their own HSIC is 0.
    """
    for name, value in (("x", hsic_xx), ("y", hsic_yy)):
        if not value > 0:
            raise UserError(f"features_{name} are constant (or equally far apart) for all examples: CKA is undefined")
    return hsic_xy / (hsic_xx**0.5 * hsic_yy**0.5)


def check_estimator(name: str) -> None:
    """Raise a UserError for an estimator that does not exist."""
    if name not in ESTIMATORS:
        raise UserError(f"estimator {name!r}: expected one of {', '.join(ESTIMATORS)}")


def _check_features(x: Tensor, y: Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2:
        raise UserError(
            f"features of shapes {tuple(x.shape)} and {tuple(y.shape)}: expected (num_examples, num_features)"
        )
    if len(x) != len(y):
        raise UserError(f"{len(x)} examples in features_x but {len(y)} in features_y: give both models the same ones")
    for name, features in (("x", x), ("y", y)):
        if not torch.isfinite(features).all():
            raise UserError(f"features_{name} hold values that are not finite")
