"""The first source epoch with most of the gain: its definition, its intervals against SciPy, and how often they hold."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from transferscope.analysis.enough_pretraining import FirstEpoch, Scores, SourceEpochs


def alike(*means: float, scratch: float = 0.5, spread: float = 0.001, error: float = 0.0) -> SourceEpochs:
    """Two runs of each sort around these means."""
    starts = tuple(Scores((mean - spread, mean + spread), error) for mean in means)
    return SourceEpochs(starts, Scores((scratch - spread, scratch + spread), error))


def test_the_first_epoch_is_that_of_the_definition() -> None:
    """Smallest e with gain(e) >= .95 gain(last), at the bound itself too, whatever comes after it."""
    assert alike(0.3, 0.7, 0.88, 0.9).first().first == 2
    assert alike(0.3, 0.7, 0.879, 0.9).first().first == 3
    assert alike(0.89, 0.6, 0.9).first().first == 0
    assert alike(0.6, 0.9).first(most=0.25).first == 0


def test_the_interval_ends_where_the_gain_is_certain() -> None:
    """Nearly exact numbers: it is the epoch itself; with one that may have most of the gain before it, it begins there."""
    assert alike(0.3, 0.7, 0.89, 0.9, spread=1e-5).first() == FirstEpoch(2, 2, 2)
    assert alike(0.3, 0.879, 0.8, 0.9).first() == FirstEpoch(3, 1, 3)
    # An epoch that has it before one that has not cannot end the interval.
    assert alike(0.89, 0.6, 0.9, spread=1e-5).first() == FirstEpoch(0, 0, 2)


def test_an_error_over_images_widens_the_interval() -> None:
    """On few test images nothing is certain but that the last epoch has its own gain."""
    exact, few = alike(0.3, 0.895, 0.9), alike(0.3, 0.895, 0.9, error=0.05)
    assert (exact.first().low, exact.first().high) == (1, 1)
    assert (few.first().low, few.first().high) == (1, 2)
    assert few.gain(2).high - few.gain(2).low > 2 * 1.96 * np.hypot(0.05, 0.05)


def test_no_gain_no_epoch_and_one_run_no_interval() -> None:
    """Each with the reason."""
    assert alike(0.3, 0.5).first() == FirstEpoch(None, None, None, "no gain from the last epoch")
    once = SourceEpochs((Scores((0.7,)), Scores((0.9, 0.91))), Scores((0.5, 0.51)))
    enough = once.first()
    assert (enough.first, enough.low, enough.high) == (1, None, None)
    assert enough.note == "no interval: a single run does not show how much runs vary"
    assert np.isnan(once.gain(1).low)
    vague = alike(0.3, 0.51, spread=0.1).first()
    assert (vague.first, vague.low) == (1, None)
    assert vague.note == "no interval: the gain from the last epoch cannot be told from 0"


def test_the_interval_of_a_gain_is_that_of_welch() -> None:
    """With one start; and with several of equal spread that of their common variance."""
    rng = np.random.default_rng(0)
    tuned, scratch = rng.normal(0.8, 0.02, 4), rng.normal(0.6, 0.05, 3)
    one = SourceEpochs((Scores(tuple(tuned)),), Scores(tuple(scratch))).gain(0)
    expected = stats.ttest_ind(tuned, scratch, equal_var=False).confidence_interval(0.95)
    assert (one.low, one.high) == pytest.approx((expected.low, expected.high))
    several = SourceEpochs(
        tuple(Scores(tuple(tuned + step)) for step in (-0.3, -0.1, 0.0)), Scores(tuple(scratch))
    ).gain(2)
    parts, freedoms = np.array([tuned.var(ddof=1) / 4, scratch.var(ddof=1) / 3]), np.array([9, 2])
    freedom = parts.sum() ** 2 / (parts**2 / freedoms).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    assert (several.low, several.high) == pytest.approx((several.value - half, several.value + half))


@pytest.mark.parametrize("replicas", [2, 4])
@pytest.mark.parametrize(
    "means",
    [
        (0.2, 0.6, 0.84, 0.88, 0.895, 0.9),  # rises and flattens
        (0.7, 0.7, 0.87, 0.87, 0.87, 0.9),  # a plateau just below what is asked for
        (0.6, 0.885, 0.8, 0.885, 0.9, 0.9),  # rises, falls, rises
    ],
)
def test_intervals_hold_the_truth_in_95_percent_of_studies(means: tuple[float, ...], replicas: int) -> None:
    """Of 400 with other runs (sd 1 point) and other test images (500, each start judged on its own answers)."""
    rng, held, answered = np.random.default_rng(0), 0, 0
    scratch = 0.6
    truth = next(e for e, mean in enumerate(means) if mean - scratch >= 0.95 * (means[-1] - scratch) - 1e-9)
    for _ in range(400):
        made = []
        for mean in (*means, scratch):
            images = rng.normal(0, np.sqrt(mean * (1 - mean) / 500))  # the same images for all replicas of a start
            scores = rng.normal(mean + images, 0.01, replicas)
            made.append(Scores(tuple(scores), float(np.sqrt(mean * (1 - mean) / 500))))
        enough = SourceEpochs(tuple(made[:-1]), made[-1]).first()
        if enough.low is not None and enough.high is not None:
            answered += 1
            held += enough.low <= truth <= enough.high
    assert answered > 390
    assert held >= 0.94 * answered
