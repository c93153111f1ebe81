"""The rule that decides a claim."""

from __future__ import annotations

import pytest

from transferscope.claims.evidence import Effect, against_bound, compare
from transferscope.claims.rules import decide, say_interval, say_ours


def effects(**values_of_place: list[float]) -> list[Effect]:
    return [
        Effect(place, f"{place}_{index}", value, 0.5 + value, 0.5)
        for place, values in values_of_place.items()
        for index, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        ({"real": [0.1, 0.2], "clipart": [0.3]}, "holds"),
        ({"real": [0.1, 0.2], "clipart": [-0.01, 0.3]}, "cannot tell"),
        ({"real": [0.1, 0.2], "clipart": [-0.3, 0.1]}, "cannot tell"),
        ({"real": [0.1, 0.2], "clipart": [-0.3, 0.1], "quickdraw": [-0.1]}, "does not hold"),
        ({"real": [0.1], "clipart": [0.1], "quickdraw": [-0.3]}, "cannot tell"),
        ({"real": [-0.1, -0.2]}, "does not hold"),
        ({"real": [0.0, 0.0]}, "cannot tell"),
        ({"real": [0.1, 0.0]}, "cannot tell"),
        ({"real": [0.1]}, "cannot tell"),
        ({"real": [-0.1]}, "cannot tell"),
        ({}, "cannot tell"),
    ],
)
def test_verdict(values: dict[str, list[float]], verdict: str) -> None:
    """All comparisons must agree for `holds`; more than half of the tasks against it are `does not hold`."""
    assert decide(effects(**values)) == verdict


def test_every_one_is_compared_with_every_other() -> None:
    """Two against two are four comparisons, positive where the first is larger, or smaller if that is claimed."""
    found = compare("real", {"a": 3.0, "b": 2.0}, {"c": 1.0, "d": 5.0})
    assert [effect.value for effect in found] == [2.0, -2.0, 1.0, -3.0]
    smaller = compare("real", {"a": 3.0, "b": 2.0}, {"c": 1.0, "d": 5.0}, larger=False)
    assert [effect.value for effect in smaller] == [-2.0, 2.0, -1.0, 3.0]


def test_missing_values_are_no_comparisons() -> None:
    """What is not a finite number is left out and not counted."""
    assert compare("real", {"a": float("nan"), "b": 1.0}, {"c": 0.5, "d": float("inf")}) == [
        Effect("real", "b : c", 0.5, 1.0, 0.5)
    ]
    assert against_bound("real", {"a": float("nan")}, 0.5, above=True) == []


def test_bound() -> None:
    """Against a bound the effect is the margin that is left."""
    assert against_bound("real", {"a": 0.25}, 0.5, above=False)[0].value == 0.25
    assert against_bound("real", {"a": 0.25}, 0.5, above=True)[0].value == -0.25


def test_words() -> None:
    """Means by task side by side, and the range of the differences with how many there are."""
    found = effects(real=[0.1, 0.3], clipart=[0.2])
    assert say_ours(found, "score", ("P-T", "RI-T")) == "P-T | RI-T: real 70.0 % | 50.0 %; clipart 70.0 % | 50.0 %"
    assert say_interval(found, "score") == "+10.0 to +30.0 points (3 comparisons, 2 tasks)"
    assert say_interval(found, "score", ["real.rit_1 (not learned)"]).endswith("; left out: real.rit_1 (not learned)")
    assert say_interval([], "score", ["a"], ["b"]) == "left out: a; diverged, counted as 0: b"


def test_places_are_called_what_they_are() -> None:
    """Tasks, figures of several tasks, or a task on another's images."""
    assert say_interval(effects(real=[0.1]), "score").endswith("(1 comparison, 1 task)")
    for places, text in ((["a on b"], "1 pair of domains"), (["a on b", "b on a"], "2 pairs of domains")):
        found = [Effect(place, "x", 0.1, 0.6, 0.5) for place in places]
        assert say_interval(found, "score").endswith(f", {text})")


def test_range_of_what_is_held_against_a_bound() -> None:
    """There the range is of the measured value itself, without a sign."""
    found = against_bound("real", {"a": 0.001, "b": 0.012}, 0.02, above=False)
    assert say_ours(found, "points", ("barrier",)) == "barrier: real 0.7 points"
    assert say_interval(found, "points") == "0.1 to 1.2 points (2 values, 1 task)"
