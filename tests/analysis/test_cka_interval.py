"""Intervals of CKA over examples."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor

from transferscope.analysis.cka import linear_cka
from transferscope.analysis.cka_interval import MIN_EXAMPLES, UNSEEN_SKEWNESS, ExampleSpread
from transferscope.analysis.cka_models import LayerSimilarity, cka_between
from transferscope.analysis.hsic import centre_unbiased, gram_matrix
from transferscope.analysis.layer_pairs import LayerComparison

ESTIMATORS = ("debiased", "biased", "minibatch")


class Given:
    """Features that are columns of the batch itself."""

    layers, features, linear = {"x": "x"}, "pooled", frozenset()

    def __init__(self, columns: slice) -> None:
        self.columns = columns

    def __call__(self, batch, reduce):  # type: ignore[no-untyped-def]
        return {"x": reduce(batch[:, self.columns])}


def models(width: int) -> dict[str, Given]:
    return {"a": Given(slice(0, width)), "b": Given(slice(width, 2 * width))}


def features(number: int, mix: float, width: int = 8, seed: int = 0, *, heavy: bool = False) -> Tensor:
    """Those of two models, side by side; the second one mixes those of the first with others."""
    generator = torch.Generator().manual_seed(seed)
    scale = 1 / torch.arange(1, width + 1)
    ours, others = (torch.randn(number, width, generator=generator) * scale for _ in range(2))
    first = ours.relu() + 0.1 * ours**2 if heavy else ours
    return torch.cat([first, mix * ours + (1 - mix) * others], dim=1)


def table(both: Tensor, size: int) -> pd.DataFrame:
    """A row per estimator."""
    return cka_between(models(both.shape[1] // 2), both.split(size), estimators=ESTIMATORS).set_index("estimator")


def spread_of(both: Tensor, size: int, *, exact: bool):  # type: ignore[no-untyped-def]
    spread = ExampleSpread(2, np.array([0]), np.array([1]))
    for batch in both.double().split(size):
        grams = [gram_matrix(part) for part in batch.chunk(2, dim=1)]
        spread.update(torch.stack([centre_unbiased(g) for g in grams]), torch.stack([g.diagonal() for g in grams]))
    return spread.of(np.array([0]), exact=exact)


def test_the_variance_is_that_of_leaving_out_each_example() -> None:
    """The jackknife of linear_cka, recomputed without each example, less its double count of pairs of examples.

    The sums leave an example out of centred matrices, which differ from those centred without it by a part of 1/80.
    """
    both = features(80, 0.5).double()
    x, y = both.chunk(2, dim=1)
    rows = np.arange(80)
    without = np.array([linear_cka(x[rows != row], y[rows != row]) for row in rows])
    apart = without - without.mean()
    k, l = (centre_unbiased(gram_matrix(one)) for one in (x, y))  # noqa: E741
    c, a, b = ((one * other).sum() for one, other in ((k, l), (k, k), (l, l)))
    linear = (k * l - c / 2 * (k * k / a + l * l / b)) / (a * b).sqrt()
    spread = spread_of(both, 80, exact=True)
    assert spread.chance[0] == pytest.approx(float(2 * (linear**2).sum()), rel=1e-9)
    expected = 79 / 80 * (apart**2).sum() - spread.chance[0]
    assert spread.variance[0] == pytest.approx(expected, rel=0.05)
    kurtosis = stats.kurtosis(without, fisher=False)
    assert spread.df[0] == pytest.approx(160 / (kurtosis - 1), rel=0.1)


@pytest.mark.parametrize(("number", "size"), [(120, 40), (2100, 300)])
def test_batches_have_the_variance_of_their_estimate(number: int, size: int) -> None:
    """Over 150 samples the mean variance is that of the minibatch estimates, also where groups are left out."""
    generator = torch.Generator().manual_seed(3)
    values, variances = [], []
    for _ in range(150 if number < 500 else 60):
        both = features(number, 0.6, width=4, seed=int(torch.randint(2**31, (1,), generator=generator)))
        spread = spread_of(both, size, exact=False)
        values.append(table_value(both, size))
        variances.append(spread.variance[0])
    assert np.mean(variances) == pytest.approx(np.var(values), rel=0.35)


def table_value(both: Tensor, size: int) -> float:
    sums = np.zeros(3)
    for batch in both.double().split(size):
        k, l = (centre_unbiased(gram_matrix(part)) for part in batch.chunk(2, dim=1))  # noqa: E741
        sums += [float((one * other).sum()) / (len(batch) - 3) for one, other in ((k, l), (k, k), (l, l))]
    return float(sums[0] / np.sqrt(sums[1] * sums[2]))


@pytest.mark.parametrize(("mix", "truth"), [(0.0, 0.0), (0.5, None), (0.9, None)])
@pytest.mark.parametrize("heavy", [False, True])
def test_intervals_hold_the_truth_in_95_of_100(mix: float, truth: float | None, heavy: bool) -> None:
    """Of 200 samples of 100 examples in batches of 50, exact and by batches, also of unrelated and of near equal ones.

    19 misses are three standard errors more than 10; that the intervals are no longer than they need to be shows the
    same number of samples of which one in 100 at least misses.
    """
    everything = features(100_000, mix, seed=1, heavy=heavy)
    true = linear_cka(*everything.chunk(2, dim=1)) if truth is None else truth
    misses = dict.fromkeys(("debiased", "minibatch"), 0)
    for seed in range(200):
        rows = table(features(100, mix, seed=seed + 10, heavy=heavy), 50)
        for estimator in misses:
            misses[estimator] += not rows.at[estimator, "low"] <= true <= rows.at[estimator, "high"]
    assert max(misses.values()) <= 19
    assert min(misses.values()) >= 2


def test_ends_stay_where_a_cka_can_be() -> None:
    """Between 0 and 1, around the value; one above 0 says that the features are related."""
    for seed in range(20):
        for mix in (0.0, 0.2, 0.98):
            rows = table(features(60, mix, seed=seed), 30).drop("biased")
            assert (rows["low"] <= rows["cka"]).all()
            assert (rows["cka"] <= rows["high"]).all()
            assert (rows["low"] >= np.minimum(rows["cka"], 0)).all()
            assert (rows["high"] <= 1).all()
    assert (table(features(500, 0.5), 64).drop("biased")["low"] > 0).all()


def test_no_interval_where_none_is_right() -> None:
    """Of a biased estimate, of features that differ by rotation and scale alone, of few examples, of a heat map."""
    both = features(100, 0.5)
    rows = table(both, 50)
    assert rows.loc["biased", ["low", "high"]].isna().all()
    assert rows.drop("biased")[["low", "high"]].notna().all().all()
    turn = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(1))).Q
    same = torch.cat([both[:, :8], 3 * both[:, :8] @ turn], dim=1).double()
    assert table(same, 50)[["low", "high"]].isna().all().all()
    few = table(both[: MIN_EXAMPLES - 1], MIN_EXAMPLES)
    assert few[["low", "high"]].isna().all().all()
    assert few["cka"].notna().all()
    heat_map = LayerComparison((("a", "b"),), estimators=("minibatch",), intervals=False)
    similarity = LayerSimilarity(models(8), [heat_map])
    similarity.update_all(both.split(50))
    assert similarity.cka(heat_map)[["low", "high"]].isna().all().all()


def test_batches_of_four_and_features_that_do_not_vary() -> None:
    """The smallest batches give finite ends; constant features have none, and no warning."""
    both = features(100, 0.5)
    assert table(both, 4).drop("biased")[["low", "high"]].notna().all().all()
    both[:, 8:] = 1.0
    comparison = LayerComparison((("a", "b"),), estimators=("debiased", "minibatch"))
    similarity = LayerSimilarity(models(8), [comparison])
    similarity.update_all(both.split(50))
    assert similarity.cka(comparison, allow_undefined=True)[["cka", "low", "high"]].isna().all().all()


def test_memory_does_not_grow_with_examples() -> None:
    """After many batches the sums have the sizes that they began with."""
    spread = ExampleSpread(2, np.array([0]), np.array([1]))
    sizes = {name: value.shape for name, value in vars(spread).items() if isinstance(value, np.ndarray)}
    for seed in range(40):
        grams = [gram_matrix(part) for part in features(50, 0.5, seed=seed).chunk(2, dim=1)]
        spread.update(torch.stack([centre_unbiased(g) for g in grams]), torch.stack([g.diagonal() for g in grams]))
    assert {name: value.shape for name, value in vars(spread).items() if isinstance(value, np.ndarray)} == sizes


def test_the_end_towards_which_examples_lean_is_longer() -> None:
    """Skewness is that of what CKA lacks without each example; it lengthens one end and leaves the other."""
    both = features(120, 0.95, heavy=True, seed=3)
    spread = spread_of(both, 120, exact=False)
    without = [linear_cka(*torch.cat([both[:i], both[i + 1 :]]).double().chunk(2, dim=1)) for i in range(120)]
    lacks = np.mean(without) - np.array(without)
    assert spread.lean[0] / UNSEEN_SKEWNESS == pytest.approx((lacks**3).sum() / (lacks**2).sum() ** 1.5, rel=0.1)
    value = np.array([0.5])
    for lean in (-0.4, 0.4):
        even, leaning = (replace(spread, lean=np.array([one])).interval(value, 0.95) for one in (0.0, lean))
        assert (leaning[0] < even[0], leaning[1] > even[1]) == (lean < 0, lean > 0)
        assert (leaning[0] == even[0], leaning[1] == even[1]) == (lean > 0, lean < 0)
