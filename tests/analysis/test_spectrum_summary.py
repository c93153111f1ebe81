"""Norms, ranks, counts and histograms of spectra with multiplicities."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from transferscope.analysis.spectrum import conv_singular_values
from transferscope.analysis.spectrum_summary import count_below, probability_smaller, summarise
from transferscope.system.errors import UserError

VALUES, MULTIPLICITIES = np.array([4.0, 3.0, 0.05]), np.array([1, 2, 5])
REPEATED = np.repeat(VALUES, MULTIPLICITIES)


def test_norms_and_ranks_by_hand():
    """A spectrum of 4, 3, 3 and five times .05."""
    summary = summarise(VALUES, MULTIPLICITIES)
    assert summary["frobenius"] == pytest.approx(np.linalg.norm(REPEATED))
    assert summary["spectral_norm"] == 4
    assert summary["ratio"] == pytest.approx(np.linalg.norm(REPEATED) / 4)
    assert summary["stable_rank"] == pytest.approx((REPEATED**2).sum() / 16)
    assert summary["condition"] == 80
    assert summary["num_values"] == 8
    assert [summary[f"count_below_{t}"] for t in ("0.001", "0.01", "0.1")] == [0, 0, 5]


def test_equal_values_have_full_ranks():
    """For an orthogonal map both ranks are the number of values."""
    summary = summarise([2.0], [7])
    assert summary["effective_rank"] == pytest.approx(7)
    assert summary["stable_rank"] == pytest.approx(7)
    assert summary["condition"] == 1


def test_summary_is_that_of_the_repeated_values():
    """Multiplicities mean nothing but repetition."""
    once = summarise(REPEATED, np.ones(8, dtype=int))
    assert summarise(VALUES, MULTIPLICITIES) == pytest.approx(once)


def test_frobenius_from_weights_and_from_values_agree():
    """For a convolution: the kernel's norm times the root of the number of output pixels."""
    weight = torch.randn(5, 3, 3, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    summary = summarise(*conv_singular_values(weight, 10, stride=2))
    assert summary["frobenius"] == pytest.approx(5 * float(weight.norm()), rel=1e-12)


def test_zero_maps_have_no_ratio():
    """An all-zero layer has norm 0 and undefined ranks; a singular one an infinite condition."""
    zero = summarise([0.0], [3])
    assert zero["frobenius"] == zero["spectral_norm"] == 0
    assert np.isnan([zero["ratio"], zero["stable_rank"], zero["effective_rank"], zero["condition"]]).all()
    assert zero["count_below_0.001"] == 3
    assert summarise([1.0, 0.0], [1, 1])["condition"] == np.inf


def test_counts_are_strictly_below():
    """As many as numpy counts among the repeated values."""
    thresholds = [0.0, 0.05, 0.06, 3.0, 3.5, 9.0]
    expected = [int(np.count_nonzero(t > REPEATED)) for t in thresholds]
    assert count_below(VALUES, MULTIPLICITIES, thresholds).tolist() == expected


def test_probability_smaller_counts_pairs():
    """All pairs counted, ties half; 1/2 for a spectrum and itself; the two directions add up to 1."""
    other, other_multiplicities = np.array([3.0, 1.0]), np.array([2, 1])
    repeated = np.repeat(other, other_multiplicities)
    pairs = (REPEATED[:, None] < repeated).mean() + (REPEATED[:, None] == repeated).mean() / 2
    assert probability_smaller(VALUES, MULTIPLICITIES, other, other_multiplicities) == pytest.approx(pairs)
    assert probability_smaller(other, other_multiplicities, VALUES, MULTIPLICITIES) == pytest.approx(1 - pairs)
    assert probability_smaller(VALUES, MULTIPLICITIES, VALUES, MULTIPLICITIES) == 0.5


def test_bad_input_is_named():
    """Values and multiplicities go together."""
    with pytest.raises(UserError, match=r"values \(3,\) and multiplicities \(2,\)"):
        summarise(VALUES, [1, 2])
    with pytest.raises(UserError, match="expected"):
        summarise([], [])


def test_the_number_of_threads_does_not_matter():
    """To the last bit, on as many values as BLAS shares between threads."""
    generator = np.random.default_rng(0)
    values, counts = generator.random(100_003), generator.integers(1, 3, 100_003)
    by_threads = []
    for threads in (1, 2):
        with threadpool_limits(threads):
            by_threads.append((summarise(values, counts), probability_smaller(values, counts, values**2, counts)))
    assert by_threads[0] == by_threads[1]
