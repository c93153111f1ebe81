"""Calibration error: against a loop over bins, its bias named and removed, its interval; reliability."""

from __future__ import annotations

import numpy as np
import pytest

from transferscope.analysis.calibration import calibration_error, reliability


def drawn(num_examples: int, excess: float, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Confidences in [.3, 1] and outcomes that come true `excess` less often than these say."""
    confidence = 0.3 + 0.7 * generator.beta(4, 1.2, num_examples)
    return confidence, generator.random(num_examples) < confidence - excess * (confidence - 0.3) / 0.7


def test_the_expected_error_equals_a_loop_over_bins():
    """Share times |confidence - rate|, bin by bin; the debiased square by the same loop."""
    confidence, happened = drawn(200, 0.3, np.random.default_rng(0))
    ece = square = 0.0
    for low in np.arange(10) / 10:
        inside = [(c, y) for c, y in zip(confidence, happened, strict=True) if low <= c < low + 0.1]
        if inside:
            gaps = np.array([c - y for c, y in inside])
            ece += len(gaps) / 200 * abs(gaps.mean())
            if len(gaps) > 1:
                square += len(gaps) / 200 * (gaps.mean() ** 2 - gaps.var(ddof=1) / len(gaps))
    error = calibration_error(confidence, happened)
    assert error.ece == pytest.approx(ece)
    assert error.rms == pytest.approx(np.sqrt(max(square, 0)))


def test_the_named_bias_is_that_of_a_calibrated_model():
    """The mean of `ece` over 400 draws of a calibrated model is `ece_if_calibrated` within a tenth; the truth is 0."""
    generator = np.random.default_rng(1)
    errors = [calibration_error(*drawn(300, 0.0, generator)) for _ in range(400)]
    biased = np.mean([one.ece for one in errors])
    assert biased > 0.03
    assert np.mean([one.ece_if_calibrated for one in errors]) == pytest.approx(biased, rel=0.1)


def test_the_square_is_unbiased():
    """The mean debiased square over 400 test sets of 100 is the one of a million examples; the plain one is above it."""
    generator = np.random.default_rng(2)
    truth = calibration_error(*drawn(1_000_000, 0.3, generator)).rms ** 2
    errors = [calibration_error(*drawn(100, 0.3, generator)) for _ in range(400)]
    assert np.mean([one.rms**2 for one in errors]) == pytest.approx(truth, rel=0.06)


@pytest.mark.parametrize("excess", [0.0, 0.1, 0.3])
def test_the_interval_holds_the_truth(excess):
    """In 300 test sets of 200 examples it does in 91 to 99 %, also of a calibrated model, whose error is 0."""
    generator = np.random.default_rng(3)
    truth = calibration_error(*drawn(1_000_000, excess, generator)).rms if excess else 0.0
    errors = [calibration_error(*drawn(200, excess, generator)) for _ in range(300)]
    assert 0.91 <= np.mean([one.rms_low <= truth <= one.rms_high for one in errors]) <= 0.99
    assert all(one.rms_low <= one.rms <= one.rms_high for one in errors)


def test_constant_predictions():
    """One bin: the error is the difference of confidence and rate, and its interval that of a rate."""
    error = calibration_error(np.full(100, 0.95), np.arange(100) < 70)
    assert error.ece == pytest.approx(0.25)
    assert error.rms == pytest.approx(0.25, abs=0.005)
    assert 0.14 < error.rms_low < 0.18
    assert 0.32 < error.rms_high < 0.36


def test_nothing_to_measure():
    """No examples, one example, confidences that are not finite: NaN where nothing can be said, no error."""
    assert np.isnan(calibration_error([], []).ece)
    assert np.isnan(calibration_error([0.5, np.nan], [True, False]).rms)
    one = calibration_error([0.8], [True])
    assert one.ece == pytest.approx(0.2)
    assert np.isnan(one.rms)


def test_reliability_has_a_row_per_bin_that_is_used():
    """Means and rates within bins; the last bin holds 1; what is not finite is left out."""
    table = reliability([0.05, 0.95, 1.0, np.nan], [False, True, True, True])
    assert table["num_examples"].tolist() == [1, 2]
    assert table["confidence"].tolist() == pytest.approx([0.05, 0.975])
    assert table["rate"].tolist() == [0, 1]
    assert ((table["rate_low"] <= table["rate"]) & (table["rate"] <= table["rate_high"])).all()
