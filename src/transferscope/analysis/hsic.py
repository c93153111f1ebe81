"""The Hilbert-Schmidt independence criterion with linear kernels, in two formulations.

With K = X X^T and L = Y Y^T (n x n, n examples) and their diagonals set to 0, the unbiased estimator of Song et al.
(JMLR 2012, equation 5) is

    HSIC(K, L) = [tr(K L) + (1'K1)(1'L1) / ((n-1)(n-2)) - 2 (1'K L 1) / (n-2)] / (n (n-3)).

It does not change when X or Y is shifted by a constant vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from transferscope.system.errors import UserError

MIN_EXAMPLES = 4
WIDE = 16_384
"""More features than this are multiplied in float32, `CHUNK_FEATURES` at a time, and their sums added in float64."""
CHUNK_FEATURES = 8192
FLOAT32_SQUARES = (1e-25, 1e30)
"""Squared norms that are safe from underflow and overflow in float32."""
ROUNDING = 1e-13
"""Values below this part of the terms that they were computed from are rounding, and set to 0."""


def gram_matrix(features: Tensor) -> Tensor:
    """X X^T in float64 of features (num_examples, num_features) that are shifted by a vector; any floating type.

    Features are converted a few columns at a time, so that a layer of a million features needs no copy. Single products
    of wide features are rounded to float32, unless they are float64: that moves CKA by about 1e-8, as the forward pass
    does that made them. These are shifted by the median of three examples, near which others lie also where one of the
    three is far away; where two are, by r times the distances between the others, values move by about 1e-8 r^2.
    """
    if features.dtype == torch.float64 or features.shape[1] <= WIDE:
        return _exact_gram(features)
    gram = _zeros(features)
    for columns in features.split(CHUNK_FEATURES, dim=1):
        shifted = columns.to(torch.float32)
        shifted = shifted - _median_of_three(shifted)
        gram += shifted @ shifted.T
    low, high = FLOAT32_SQUARES
    return gram if low < gram.diagonal().max() < high else _exact_gram(features)


def _exact_gram(features: Tensor) -> Tensor:
    """The Gram matrix with products in float64, shifted by the mean."""
    gram = _zeros(features)
    for columns in features.split(WIDE, dim=1):
        shifted = columns.to(torch.float64)
        shifted = shifted - _mean(shifted)
        gram += shifted @ shifted.T
    return gram


def _zeros(features: Tensor) -> Tensor:
    return features.new_zeros(len(features), len(features), dtype=torch.float64)


def _mean(features: Tensor) -> Tensor:
    """The mean over examples, without rounding where all are equal: constant features shift to exactly 0."""
    return features[0] + (features - features[0]).mean(dim=0)


def _median_of_three(features: Tensor) -> Tensor:
    """The median of the first, the middle and the last example in each feature; constant features give their value."""
    first, middle, last = features[0], features[len(features) // 2], features[-1]
    return torch.maximum(torch.minimum(first, middle), torch.minimum(torch.maximum(first, middle), last))


def centre_biased(gram: Tensor) -> Tensor:
    """H K H with H = I - 1 1'/n, for which the biased HSIC is an inner product: <HKH, HLH> / (n-1)^2."""
    return gram - gram.mean(dim=0) - gram.mean(dim=1, keepdim=True) + gram.mean()


def centre_unbiased(gram: Tensor) -> Tensor:
    """The U-centred matrix (Szekely and Rizzo 2014), for which the unbiased HSIC is <U(K), U(L)> / (n (n-3)).

    Its diagonal is 0 and its rows and columns add up to 0. Needs 4 examples.
    """
    n = gram.shape[0]
    check_num_examples(n)
    hollow = gram.clone().fill_diagonal_(0)
    rows = hollow.sum(dim=1) / (n - 2)
    total = hollow.sum() / ((n - 1) * (n - 2))
    centred = (hollow - rows[:, None] - rows[None, :] + total).fill_diagonal_(0)
    return centred * (centred.abs().max() > ROUNDING * hollow.abs().max())


def check_num_examples(num_examples: int) -> None:
    """Raise a UserError below the 4 examples that the unbiased estimator needs."""
    if num_examples < MIN_EXAMPLES:
        raise UserError(f"{num_examples} examples: CKA needs at least {MIN_EXAMPLES} (in every mini-batch, too)")


class FeatureSums:
    """Sums over examples from which the HSIC of two sets of features follows exactly, however many examples there are.

    Memory is num_features_x * num_features_y float64, whatever the number of examples. With k_i = |x_i|^2 and
    l_i = |y_i|^2 the terms of the unbiased estimator are
    tr(K L) = |sum x_i y_i^T|_F^2 - sum k_i l_i,   1'K1 = |sum x_i|^2 - sum k_i,
    1'K L 1 = sum_i (x_i.s_x - k_i)(y_i.s_y - l_i), with s_x = sum x_i.
    All features are shifted by the mean of the first batch, which changes nothing but rounding.
    """

    def __init__(self) -> None:
        self.num_examples = 0

    def update(self, features_x: Tensor, features_y: Tensor) -> None:
        """Add a batch: (num_examples, num_features_x) and (num_examples, num_features_y)."""
        x, y = features_x.to(torch.float64), features_y.to(torch.float64)
        if self.num_examples == 0:
            self._start(x, y)
        x, y = x - self._shift_x, y - self._shift_y
        k, l = x.square().sum(dim=1), y.square().sum(dim=1)  # noqa: E741
        self.num_examples += len(x)
        self._cross.addmm_(x.T, y)
        self._x += x.sum(dim=0)
        self._y += y.sum(dim=0)
        self._l_x += l @ x
        self._k_y += k @ y
        self._k += k.sum()
        self._l += l.sum()
        self._kl += k @ l

    def _start(self, x: Tensor, y: Tensor) -> None:
        self._shift_x, self._shift_y = _mean(x), _mean(y)
        self._cross = x.new_zeros(x.shape[1], y.shape[1])
        self._x, self._l_x = torch.zeros_like(self._shift_x), torch.zeros_like(self._shift_x)
        self._y, self._k_y = torch.zeros_like(self._shift_y), torch.zeros_like(self._shift_y)
        self._k, self._l, self._kl = x.new_zeros(()), x.new_zeros(()), x.new_zeros(())

    def unbiased(self) -> float:
        """The unbiased HSIC of all examples so far."""
        n = self.num_examples
        check_num_examples(n)
        trace = self._cross.square().sum() - self._kl
        sum_k, sum_l = self._x @ self._x - self._k, self._y @ self._y - self._l
        product = self._x @ self._cross @ self._y - self._k_y @ self._y - self._l_x @ self._x + self._kl
        value = trace + sum_k * sum_l / ((n - 1) * (n - 2)) - 2 * product / (n - 2)
        is_rounding = value.abs() <= ROUNDING * self._cross.square().sum()
        return 0.0 if is_rounding else float(value) / (n * (n - 3))

    def biased(self) -> float:
        """The biased HSIC of all examples so far, |X^T Y|_F^2 / (n-1)^2 of centred features."""
        return float(self.cross_moments().square().sum()) / (self.num_examples - 1) ** 2

    def cross_moments(self) -> Tensor:
        """X^T Y of centred features, (num_features_x, num_features_y): (n-1) times their covariance."""
        check_num_examples(self.num_examples)
        return self._cross - torch.outer(self._x, self._y) / self.num_examples
