"""Stopping as soon as the examples are enough."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulated_lines import ALPHAS, rare_losses, resampled, right_or_wrong
from transferscope.analysis.flips import answer
from transferscope.analysis.intervals import paired_difference_interval
from transferscope.analysis.sequential import (
    decide_barrier,
    gain_at_every_look,
    growing_sizes,
    reach_at_every_look,
    unseen_share,
)
from transferscope.system.errors import UserError

MARGIN = 0.05
"""Of what the ends have learned: about 80 % right less 10 % by chance, so 3.4 points."""


def first_decision(correct: np.ndarray, generator: np.random.Generator) -> tuple[str | None, int]:
    """What is decided as the examples come in, and after how many."""
    decision, size = None, 0
    for size in growing_sizes(correct.shape[1]):
        curves = resampled(correct[:, :size], generator, 100)
        decision = decide_barrier(
            ALPHAS, curves, size, higher_is_better=True, margin=MARGIN, guessing=0.1, is_share=True
        )
        if decision:
            break
    return decision, size


@pytest.mark.parametrize(
    ("shape", "height", "flips"),
    [("flat", 0.0, 0.01), ("bowl", 0.037, 0.01), ("bowl", 0.033, 0.02), ("peak", 0.4, 0.03)],
)
def test_stopping_early_is_wrong_in_less_than_one_of_20(shape: str, height: float, flips: float) -> None:
    """200 replays of 700 examples, also close to the margin on either side: wrong stops are at most 5 %."""
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        correct, truth = right_or_wrong(shape, height, 700, generator, flips)
        decision, _ = first_decision(correct, generator)
        limit = MARGIN * (0.8 * (1 - flips) + 0.2 * flips - 0.1)
        wrong += (decision == "no barrier" and truth >= limit) or (decision == "barrier" and truth <= limit)
    assert wrong <= 10


@pytest.mark.parametrize(
    ("share", "part", "common"),
    [(0.02, 1.1, 0.0), (0.02, 1.1, 0.6), (0.05, 0.9, 0.0)],
)
def test_stopping_early_by_the_loss_is_wrong_in_less_than_one_of_20(share: float, part: float, common: float) -> None:
    """200 replays of 600 examples of a barrier a tenth beside the margin that 2 or 5 % of the examples make.

    In one of them all examples share a part of it, to which a few add the rest.
    """
    generator, limit, wrong = np.random.default_rng(7), MARGIN * (LOSS_OF_GUESSING - 0.02), 0
    for _ in range(200):
        values, truth = rare_losses(share, part * limit, 600, generator, common * limit)
        decision, _ = first_decision_by_loss(values, generator)
        wrong += (decision == "no barrier" and truth >= limit) or (decision == "barrier" and truth <= limit)
    assert wrong <= 10


def test_a_flat_loss_is_decided_by_some_hundred_examples() -> None:
    """As many as rule out that 1.8 % of them were missed whose loss rises by 6.3 nats, 203, and not many more.

    Without a rise 1,000 examples decide at the first look from there on, in each of 8 replays; with 20 % of the margin
    on 5 % of the examples they still decide, later.
    """
    generator, limit = np.random.default_rng(11), MARGIN * (LOSS_OF_GUESSING - 0.02)
    sizes = {}
    for part in (0.0, 0.2):
        decided = [
            first_decision_by_loss(rare_losses(0.05, part * limit, 1000, generator)[0], generator) for _ in range(8)
        ]
        assert {decision for decision, _ in decided} == {"no barrier"}
        sizes[part] = [size for _, size in decided]
    assert set(sizes[0.0]) == {next(size for size in growing_sizes(1000, FIRST) if size > 203)}
    assert np.mean(sizes[0.2]) > np.mean(sizes[0.0])


def test_the_unseen_share_is_that_which_is_just_missed() -> None:
    """A kind of example with this share is missed by all of the examples with the stated probability."""
    for num, error in ((10, 0.05), (300, 0.025)):
        assert (1 - unseen_share(num, error)) ** num == pytest.approx(error)
    assert unseen_share(1000, 0.05) == pytest.approx(3 / 1000, rel=0.01)


LOSS_OF_GUESSING = float(np.log(10))
FIRST = 162
"""Examples of the first look at losses, of which fewer decide nothing here."""


def first_decision_by_loss(values: np.ndarray, generator: np.random.Generator) -> tuple[str | None, int]:
    """What is decided as the examples come in, and after how many."""
    how = {"higher_is_better": False, "margin": MARGIN, "guessing": LOSS_OF_GUESSING}
    decisions = (
        (decide_barrier(ALPHAS, resampled(values[:, :size], generator, 60), size, **how), size)
        for size in growing_sizes(values.shape[1], FIRST)
    )
    return next((one for one in decisions if one[0]), (None, values.shape[1]))


def test_ends_worse_than_guessing_have_no_margin() -> None:
    """A loss of 4 where guessing has 2.3 is undecidable once that is beyond doubt, one of 2.3 stays open."""
    generator = np.random.default_rng(8)
    for level, expected in ((4.0, "undecidable"), (LOSS_OF_GUESSING, None)):
        losses = level * generator.exponential(1.0, 300) * np.ones((11, 1))
        assert first_decision_by_loss(losses, generator)[0] == expected


def test_a_gap_between_ends_that_may_be_worse_than_guessing_is_no_barrier_yet() -> None:
    """Half-way the loss is higher beyond doubt, but of ends a little worse than guessing by noise no part is a margin."""
    generator = np.random.default_rng(10)
    losses = generator.exponential(LOSS_OF_GUESSING, 100) * np.ones((11, 1))
    losses[:, 0] += 100 * (LOSS_OF_GUESSING + 0.05) - losses[0].sum()
    losses[5] += 1.0
    how = {"higher_is_better": False, "margin": MARGIN, "guessing": LOSS_OF_GUESSING}
    assert decide_barrier(ALPHAS, resampled(losses, generator, 60), 100, **how) is None
    better = losses - 0.5
    assert decide_barrier(ALPHAS, resampled(better, generator, 60), 100, **how) == "barrier"


def test_ends_without_a_right_answer_are_not_below_guessing_beyond_doubt() -> None:
    """With 5 % right and 1 % by guessing the first 32 examples have none right in 19 %; no replay calls it undecidable."""
    generator = np.random.default_rng(9)
    decisions = []
    for _ in range(60):
        correct = np.broadcast_to(generator.random(32) < 0.05, (11, 32))
        curves = resampled(correct, generator, 20)
        how = {"higher_is_better": True, "margin": MARGIN, "guessing": 0.01, "is_share": True}
        decisions.append(decide_barrier(ALPHAS, curves, 32, **how))
    assert "undecidable" not in decisions


def test_a_deep_barrier_needs_few_examples() -> None:
    """Accuracy falls by 38 points half-way: a tenth of 1,000 examples says so, in each of 20 replays."""
    generator = np.random.default_rng(3)
    decisions = [first_decision(right_or_wrong("bowl", 0.4, 1000, generator)[0], generator) for _ in range(20)]
    assert {decision for decision, _ in decisions} == {"barrier"}
    assert max(size for _, size in decisions) <= 120


def test_the_margin_is_a_part_of_what_the_ends_have_learned() -> None:
    """A fall of 4 points is a barrier between ends 9 points above chance, and none between ends 85 points above it.

    A loss that rises by 4 hundredths likewise, counted from that of guessing.
    """
    generator = np.random.default_rng(0)
    curve = np.array([0.9, 0.86, 0.9]) + 1e-4 * generator.standard_normal((50, 3))
    keys = {"margin": 0.05, "num_examples": 10_000}
    for chance, expected in ((0.81, "barrier"), (0.05, "no barrier")):
        assert decide_barrier([0, 0.5, 1], curve, higher_is_better=True, guessing=chance, **keys) == expected
        assert decide_barrier([0, 0.5, 1], 1 - curve, higher_is_better=False, guessing=1 - chance, **keys) == expected


def test_the_reach_holds_at_every_look() -> None:
    """Means of normal numbers leave it at any of 2,000 looks in less than 5 %; 1.96 errors are left in over half."""
    generator = np.random.default_rng(0)
    numbers = np.arange(1, 2001)
    scores = np.abs(generator.standard_normal((1000, 2000)).cumsum(axis=1)) / np.sqrt(numbers)
    reach = np.array([reach_at_every_look(int(num), 0.05) for num in numbers])
    assert (scores > reach).any(axis=1).mean() < 0.05
    assert (scores > 1.96).any(axis=1).mean() > 0.5


def test_the_reach_is_smallest_where_it_is_tuned() -> None:
    """At 100 examples, and wider where less error is allowed."""
    reach = [reach_at_every_look(num, 0.05) for num in (20, 100, 2000)]
    assert min(reach) == reach[1]
    assert 2.5 < reach[1] < 3.2
    assert reach_at_every_look(100, 0.01) > reach[1]


def test_sizes_grow_and_end_with_all() -> None:
    """Every look sees more, the last one everything; few examples are looked at once."""
    assert list(growing_sizes(400, 50, 2)) == [50, 100, 200, 400]
    assert list(growing_sizes(30, 50)) == [30]
    assert list(growing_sizes(7, 2, 1.01)) == [2, 3, 4, 5, 6, 7]


def test_what_cannot_be_decided_ends() -> None:
    """Without resamples nothing is decided; a NaN stays one; a line without an inner place has no barrier to decide."""
    flat = {"higher_is_better": True, "margin": 0.05, "guessing": 0.1}
    assert decide_barrier([0, 0.5, 1], [1.0, 0.5, 1.0], 100, **flat) is None
    assert decide_barrier([0, 0.5, 1], [[1.0, math.nan, 1.0]] * 9, 100, **flat) == "undecidable"
    assert decide_barrier([0, 1], [[1.0, 1.0]] * 9, 100, **flat) == "undecidable"


def replayed(
    lost_rate: float, gained_rate: float, num: int, generator: np.random.Generator
) -> tuple[str, int, str, bool]:
    """The answer as images come in, after how many, that of all images at once, whether the interval ever missed."""
    looks = list(growing_sizes(num))
    drawn = generator.random(num)
    lost = (drawn < lost_rate).cumsum()
    gained = ((drawn >= lost_rate) & (drawn < lost_rate + gained_rate)).cumsum()
    verdict, size, missed = "cannot tell", num, False
    for index in range(len(looks)):
        at = np.array(looks[: index + 1])
        low, high = gain_at_every_look(gained[at - 1], lost[at - 1], at, len(looks))
        missed = missed or not low <= gained_rate - lost_rate <= high
        if verdict == "cannot tell":
            verdict, size = answer(low, high, 0.02), looks[index]
    return verdict, size, answer(*paired_difference_interval(gained[-1], lost[-1], num), 0.02), missed


@pytest.mark.parametrize(
    ("lost", "gained"), [(0.01, 0.01), (0.05, 0.05), (0.1, 0.04), (0.06, 0.04), (0.055, 0.04), (0.2, 0.04), (0.04, 0.2)]
)
def test_an_answer_before_all_images_is_that_of_all(lost: float, gained: float) -> None:
    """200 replays of 500 images: the same answer in 95 %, wrong in at most 5 %, also at the margin; intervals hold."""
    generator = np.random.default_rng(4)
    replays = [replayed(lost, gained, 500, generator) for _ in range(200)]
    wrong = "no" if gained - lost >= -0.02 else "yes"
    assert np.mean([early == whole for early, _, whole, _ in replays]) >= 0.95
    assert np.mean([early == wrong for early, *_ in replays]) <= 0.05
    assert np.mean([missed for *_, missed in replays]) <= 0.075  # 5 % less three errors of 200 replays
    if abs(gained - lost) > 0.1:
        assert np.mean([size for _, size, *_ in replays]) < 200


def test_one_look_is_the_plain_interval() -> None:
    """With one look nothing is spent early; a look without examples says nothing."""
    plain = paired_difference_interval(12, 20, 400)
    assert gain_at_every_look([12], [20], [400], 1) == pytest.approx(plain)
    assert gain_at_every_look([0], [0], [0], 3) == (-1, 1)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(growing_sizes(10, 1)), "begin with 2 examples"),
        (lambda: reach_at_every_look(10, 1.5), "between 0 and 1"),
        (
            lambda: decide_barrier([0, 1], [1, 1], 9, higher_is_better=True, margin=2, guessing=0.1),
            "between 0 and 1",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call, message: str) -> None:
    """The message says which number is wrong."""
    with pytest.raises(UserError, match=message):
        call()
