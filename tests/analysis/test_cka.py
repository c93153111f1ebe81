"""Linear CKA: independent formulations, invariances, streaming, bad input."""

from __future__ import annotations

from itertools import permutations

import numpy as np
import pytest
import torch
from torch import Tensor

from transferscope.analysis.cka import ESTIMATORS, StreamingCKA, cka_ratio, linear_cka
from transferscope.analysis.hsic import FeatureSums, centre_unbiased, gram_matrix
from transferscope.system.errors import UserError


def related_features(num_examples: int = 60, num_x: int = 8, num_y: int = 11, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(num_examples, num_x, generator=generator) + 3
    mixing = torch.randn(num_x, num_y, generator=generator)
    return x, x @ mixing + 2 * torch.randn(num_examples, num_y, generator=generator)


def wide(features: Tensor, num_features: int = 100) -> Tensor:
    """The same Gram matrix from more features than examples, so that the other formulation is taken."""
    return torch.nn.functional.pad(features, (0, num_features - features.shape[1]))


def naive_unbiased_hsic(x: Tensor, y: Tensor) -> float:
    """Equation 5 of Song et al. 2012, written out."""
    n = len(x)
    k, l = ((f.double() @ f.double().T).fill_diagonal_(0).numpy() for f in (x, y))  # noqa: E741
    one = np.ones(n)
    total = np.trace(k @ l) + (one @ k @ one) * (one @ l @ one) / ((n - 1) * (n - 2)) - 2 / (n - 2) * one @ k @ l @ one
    return total / (n * (n - 3))


def test_unbiased_hsic_is_the_mean_over_all_quadruples():
    """The definition as a U-statistic: the mean of K_ij (L_ij + L_qr - 2 L_iq) over distinct i, j, q, r."""
    x, y = related_features(7)
    k, l = x.double() @ x.double().T, y.double() @ y.double().T  # noqa: E741
    terms = [k[i, j] * (l[i, j] + l[q, r] - 2 * l[i, q]) for i, j, q, r in permutations(range(7), 4)]
    expected = float(torch.stack(terms).mean())
    sums = FeatureSums()
    sums.update(x, y)
    assert sums.unbiased() == pytest.approx(expected, rel=1e-9)
    centred = centre_unbiased(gram_matrix(x)) * centre_unbiased(gram_matrix(y))
    assert float(centred.sum()) / (7 * 4) == pytest.approx(expected, rel=1e-9)


def test_debiased_cka_is_the_written_out_formula():
    """CKA is the ratio of three unbiased HSICs."""
    x, y = related_features()
    ratio = naive_unbiased_hsic(x, y) / (naive_unbiased_hsic(x, x) * naive_unbiased_hsic(y, y)) ** 0.5
    assert linear_cka(x, y) == pytest.approx(ratio, abs=1e-10)


def test_biased_cka_is_the_ratio_of_norms():
    """Equation of Kornblith et al.: |Y'X|^2 / (|X'X| |Y'Y|) of centred features."""
    x, y = (f.double() - f.double().mean(dim=0) for f in related_features())
    expected = (y.T @ x).norm() ** 2 / ((x.T @ x).norm() * (y.T @ y).norm())
    assert linear_cka(x, y, debiased=False) == pytest.approx(float(expected), abs=1e-12)


@pytest.mark.parametrize("debiased", [True, False])
def test_gram_and_feature_space_agree(debiased):
    """Fewer features than examples or more: the two formulations agree to 1e-10."""
    x, y = related_features()
    assert linear_cka(x, y, debiased=debiased) == pytest.approx(
        linear_cka(wide(x), wide(y), debiased=debiased), abs=1e-10
    )


@pytest.mark.parametrize("debiased", [True, False])
def test_invariances(debiased):
    """Rotation, isotropic scale, shift, order of examples and exchange of the models change nothing."""
    x, y = (f.double() for f in related_features())
    value = linear_cka(x, y, debiased=debiased)
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)).Q
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(4))
    for other_x, other_y in ((x @ rotation, y), (7 * x, y), (x + 100, y), (x[order], y[order]), (y, x)):
        assert linear_cka(other_x, other_y, debiased=debiased) == pytest.approx(value, abs=1e-10)


@pytest.mark.parametrize("debiased", [True, False])
def test_a_model_is_alike_to_itself(debiased):
    """CKA of features with themselves is 1."""
    x, _ = related_features()
    assert linear_cka(x, x, debiased=debiased) == pytest.approx(1, abs=1e-12)


def test_only_the_debiased_value_of_unrelated_features_is_near_zero():
    """2048 Gaussian features of 256 examples: biased near .89, debiased near 0."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 256, 2048, generator=generator)
    assert linear_cka(x, y, debiased=False) == pytest.approx(0.89, abs=0.01)
    assert abs(linear_cka(x, y)) < 0.01


@pytest.mark.parametrize("scale", [1.0, 1e-17, 1e17])
def test_rounded_products_of_wide_features_move_cka_by_less_than_a_millionth(scale):
    """40,000 float32 features of large means against float64, where squares fit into float32 and where they do not."""
    generator = torch.Generator().manual_seed(0)
    common, *own = torch.randn(3, 24, 64, generator=generator)
    x, y = ((common + one) @ torch.randn(64, 40_000, generator=generator) + 5 for one in own)
    x, y = scale * x, scale * y
    exact = linear_cka(x.double(), y.double())
    assert 0.1 < exact < 0.9
    assert linear_cka(x, y) == pytest.approx(exact, abs=1e-7)
    assert torch.equal(gram_matrix(torch.full((5, 40_000), 0.1)), torch.zeros(5, 5, dtype=torch.float64))


@pytest.mark.parametrize("place", [0, 5, 12, 23])
def test_an_outlier_does_not_round_the_other_examples(place):
    """Of 40,000 float32 features with an example of 1000 times the norm, CKA of all and of the others is exact to 1e-6."""
    generator = torch.Generator().manual_seed(0)
    common, *own = torch.randn(3, 24, 64, generator=generator)
    features = [(common + one) @ torch.randn(64, 40_000, generator=generator) + 5 for one in own]
    for one in features:
        one[place] *= 1000
    assert linear_cka(*features) == pytest.approx(linear_cka(*(one.double() for one in features)), abs=1e-6)
    others = [index for index in range(24) if index != place]
    x, y = (centre_unbiased(gram_matrix(one)[others][:, others]) for one in features)
    value = cka_ratio(float((x * y).sum()), float((x * x).sum()), float((y * y).sum()))
    assert value == pytest.approx(linear_cka(*(one[others].double() for one in features)), abs=1e-6)


@pytest.mark.parametrize("sizes", [(60,), (4, 56), (1, 2, 57), (20, 20, 20)])
def test_exact_streaming_equals_all_at_once(sizes):
    """Batches of any size, even of one example, give the value of all examples at once."""
    x, y = related_features()
    for debiased in (True, False):
        streaming = StreamingCKA(estimator="debiased" if debiased else "biased")
        for batch_x, batch_y in zip(x.split(sizes), y.split(sizes), strict=True):
            streaming.update(batch_x, batch_y)
        assert streaming.compute() == pytest.approx(linear_cka(x, y, debiased=debiased), abs=1e-12)
        assert streaming.num_examples == 60


def test_one_minibatch_is_exact():
    """With all examples in one batch the mini-batch estimator is the exact one."""
    x, y = related_features()
    streaming = StreamingCKA(estimator="minibatch")
    streaming.update(x, y)
    assert streaming.compute() == pytest.approx(linear_cka(x, y), abs=1e-12)


def test_minibatches_converge_to_the_exact_value():
    """2048 examples in batches of 64 come within 5e-3 of the exact value, where biased batches are .1 off."""
    x, y = related_features(2048, 50, 60)
    streaming = StreamingCKA(estimator="minibatch")
    biased = []
    for batch_x, batch_y in zip(x.split(64), y.split(64), strict=True):
        streaming.update(batch_x, batch_y)
        biased.append(linear_cka(batch_x, batch_y, debiased=False))
    exact = linear_cka(x, y)
    assert streaming.compute() == pytest.approx(exact, abs=5e-3)
    assert abs(np.mean(biased) - exact) > 0.05


def test_the_estimator_follows_the_number_of_features():
    """Sums in feature space up to 4096 features, mini-batches above; the choice can be read."""
    for num_features, expected in ((10, "debiased"), (5000, "minibatch")):
        streaming = StreamingCKA()
        streaming.update(*torch.randn(2, 8, num_features, generator=torch.Generator().manual_seed(0)))
        assert streaming.estimator == expected


def test_minibatch_memory_does_not_grow():
    """After many batches the object holds three numbers, not features or matrices."""
    streaming = StreamingCKA(estimator="minibatch")
    for seed in range(5):
        streaming.update(*related_features(10, seed=seed))
    assert not [value for value in vars(streaming).values() if isinstance(value, Tensor)]


@pytest.mark.parametrize("num_examples", [4, 5, 6])
def test_few_examples_give_a_number(num_examples):
    """From 4 examples on there is a finite value for any estimator."""
    x, y = related_features(num_examples)
    for estimator in ESTIMATORS:
        streaming = StreamingCKA(estimator=estimator)
        streaming.update(x, y)
        assert np.isfinite(streaming.compute())
    assert linear_cka(x, y) <= 1


def test_bfloat16_features_are_summed_in_float64():
    """Half-precision features give the value of the same numbers in float64."""
    x, y = (f.bfloat16() for f in related_features())
    assert linear_cka(x, y) == pytest.approx(linear_cka(x.double(), y.double()), abs=1e-12)


@pytest.mark.parametrize("constant", [torch.full((20, 3), 0.1), torch.eye(20)[:, :1] + 0.3, torch.eye(20)])
def test_features_without_variation_are_refused(constant):
    """Constant features, a single outlier, or examples equally far apart hold no similarity to compare."""
    _, y = related_features(20)
    for estimator in ("debiased", "minibatch"):
        streaming = StreamingCKA(estimator=estimator)
        streaming.update(constant, y)
        with pytest.raises(UserError, match="features_x are constant"):
            streaming.compute()
    with pytest.raises(UserError, match="features_y are constant"):
        linear_cka(y, constant)


def test_constant_features_are_refused_by_the_biased_estimator():
    """Its HSIC of a single outlier is above 0, that of constant features is not."""
    _, y = related_features(20)
    assert linear_cka(torch.eye(20)[:, :1], y, debiased=False) > 0
    with pytest.raises(UserError, match="features_x are constant"):
        linear_cka(torch.full((20, 3), 0.1), y, debiased=False)


def test_bad_input_is_named():
    """Too few or different examples, wrong shapes, NaN and impossible options: one-line errors."""
    x, y = related_features(20)
    for function in (linear_cka, StreamingCKA(estimator="minibatch").update):
        with pytest.raises(UserError, match="3 examples: CKA needs at least 4"):
            function(x[:3], y[:3])
        with pytest.raises(UserError, match="20 examples in features_x but 19 in features_y"):
            function(x, y[:19])
        with pytest.raises(UserError, match="expected \\(num_examples, num_features\\)"):
            function(x[:, 0], y)
        with pytest.raises(UserError, match="features_y hold values that are not finite"):
            function(x, y * float("nan"))
    streaming = StreamingCKA()
    streaming.update(x, y)
    with pytest.raises(UserError, match=r"\(8, 5\) features where the ones before had \(8, 11\)"):
        streaming.update(x, y[:, :5])
    with pytest.raises(UserError, match="expected one of biased, debiased, minibatch"):
        StreamingCKA(estimator="fast")
    with pytest.raises(UserError, match="0 examples"):
        StreamingCKA().compute()
