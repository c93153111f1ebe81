"""Stopping as soon as the examples are enough."""

from __future__ import annotations

import math

import numpy as np
import pytest

from simulated_lines import ALPHAS, resampled, right_or_wrong
from transferscope.analysis.sequential import decide_barrier, growing_sizes, reach_at_every_look
from transferscope.system.errors import UserError


def first_decision(correct: np.ndarray, generator: np.random.Generator) -> tuple[str | None, int]:
    """What is decided as the examples come in, and after how many."""
    decision, size = None, 0
    for size in growing_sizes(correct.shape[1]):
        curves = resampled(correct[:, :size], generator, 100)
        decision = decide_barrier(
            ALPHAS, curves, size, higher_is_better=True, no_barrier=0.02, barrier=0.05, is_share=True
        )
        if decision:
            break
    return decision, size


@pytest.mark.parametrize(
    ("shape", "height", "flips"),
    [("flat", 0.0, 0.01), ("bowl", 0.022, 0.01), ("bowl", 0.048, 0.02), ("peak", 0.4, 0.03)],
)
def test_stopping_early_is_wrong_in_less_than_one_of_20(shape: str, height: float, flips: float) -> None:
    """200 replays of 700 examples, also close to either margin: wrong stops are at most 5 %."""
    generator = np.random.default_rng(2)
    wrong = 0
    for _ in range(200):
        correct, truth = right_or_wrong(shape, height, 700, generator, flips)
        decision, _ = first_decision(correct, generator)
        wrong += (decision == "no barrier" and truth >= 0.02) or (decision == "barrier" and truth <= 0.05)
        wrong += decision == "neither" and not 0.02 < truth < 0.05
    assert wrong <= 10


def test_a_deep_barrier_needs_few_examples() -> None:
    """Accuracy falls by 38 points half-way: a tenth of 1,000 examples says so, in each of 20 replays."""
    generator = np.random.default_rng(3)
    found = [first_decision(right_or_wrong("bowl", 0.4, 1000, generator)[0], generator) for _ in range(20)]
    assert {decision for decision, _ in found} == {"barrier"}
    assert max(size for _, size in found) <= 120


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
    flat = {"higher_is_better": True, "no_barrier": 0.02, "barrier": 0.05}
    assert decide_barrier([0, 0.5, 1], [1.0, 0.5, 1.0], 100, **flat) is None
    assert decide_barrier([0, 0.5, 1], [[1.0, math.nan, 1.0]] * 9, 100, **flat) == "neither"
    assert decide_barrier([0, 1], [[1.0, 1.0]] * 9, 100, **flat) == "neither"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list(growing_sizes(10, 1)), "begin with 2 examples"),
        (lambda: reach_at_every_look(10, 1.5), "between 0 and 1"),
        (
            lambda: decide_barrier([0, 1], [1, 1], 9, higher_is_better=True, no_barrier=0.1, barrier=0.05),
            "give them in order",
        ),
    ],
)
def test_bad_input_is_one_clear_line(call, message: str) -> None:
    """The message says which number is wrong."""
    with pytest.raises(UserError, match=message):
        call()
