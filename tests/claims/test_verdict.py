"""Comparisons, and the rule by which they decide a claim."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transferscope.claims.comparisons import Comparison, Measured, Unit, against, compare, paired
from transferscope.claims.decide import remarks
from transferscope.claims.verdict import decide
from transferscope.experiment.names import PairName, RunName


def run(name: str) -> RunName:
    return RunName("real", name)


def measured(**values: float) -> Measured:
    return Measured({run(name): value for name, value in values.items()})


def differences(**values_of_place: list[float]) -> list[Comparison]:
    return [
        Comparison(place=place, unit=f"{place}_{index}", value=value, first=0.5 + value, second=0.5)
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
    found = decide(differences(**values))
    assert found.verdict == verdict
    assert found.reason


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=20))
def test_the_effect_lies_in_its_range(values: list[float]) -> None:
    """The mean is between the smallest and the largest comparison, each of which is one of the values."""
    found = decide(differences(real=values))
    assert found.smallest == min(values)
    assert found.largest == max(values)
    assert found.smallest - 1e-12 <= found.effect <= found.largest + 1e-12


def test_what_was_left_out_does_not_count() -> None:
    """Neither to the number of comparisons nor to their range; alone it is nothing to compare."""
    out = Comparison(place="real", unit="real.rit_1", counted=False, note="not learned")
    assert decide([out]).reason == "nothing to compare"
    assert decide([*differences(real=[0.1]), out]) == decide(differences(real=[0.1]))


def test_every_one_is_compared_with_every_other() -> None:
    """Two against two are four comparisons, positive where the first is larger, or smaller if that is claimed."""
    sides = measured(a=3.0, b=2.0), measured(c=1.0, d=5.0)
    assert [one.value for one in compare("real", *sides)] == [2.0, -2.0, 1.0, -3.0]
    assert [one.value for one in compare("real", *sides, larger=False)] == [-2.0, 2.0, -1.0, 3.0]


def test_two_numbers_of_one_unit_are_paired() -> None:
    """Each unit with itself, where it has both numbers."""
    found = paired("real", measured(a=3.0, b=2.0, c=9.0), measured(b=5.0, a=1.0))
    assert [(one.unit, one.value) for one in found] == [("real.a", 2.0), ("real.b", -3.0)]


def test_missing_values_are_named() -> None:
    """A number that is not finite is no comparison, and a row says that it was left out."""
    found = compare("real", measured(a=math.nan, b=1.0), measured(c=0.5, d=math.inf))
    assert [(one.unit, one.value) for one in found if one.counted] == [("real.b : real.c", 0.5)]
    assert [(one.unit, one.note) for one in found if not one.counted] == [
        ("real.a", "no finite value"),
        ("real.d", "no finite value"),
    ]


def test_bound() -> None:
    """Against a bound the value is the margin that is left, and the effect is the measured number."""
    assert against("real", measured(a=0.25), 0.5, above=False)[0].value == 0.25
    assert against("real", measured(a=0.25), 0.5, above=True)[0].value == -0.25
    found = decide(against("real", measured(a=0.001, b=0.012), 0.02, above=False))
    assert (found.verdict, found.smallest, found.largest) == ("holds", 0.001, 0.012)


def test_what_stands_for_something_is_noted_in_each_comparison() -> None:
    """A run that diverged counts as 0 and says so wherever it is compared."""
    diverged: dict[Unit, str] = {run("b"): "diverged, counted as 0: real.b"}
    second = Measured({run("b"): 0.0, run("c"): 0.4}, notes=diverged)
    assert [one.note for one in compare("real", measured(a=0.5), second)] == ["diverged, counted as 0: real.b", ""]


def test_runs_of_pairs_are_counted_once_each() -> None:
    """A comparison knows all runs in it, whatever its units."""
    pair = PairName(run("a").at("final"), run("b").at("final"))
    (found,) = compare("real", Measured({pair: 1.0}), measured(a=0.5))
    assert found.runs == {run("a"), run("b")}


def test_remarks() -> None:
    """Left out with the reason, once each, before what others stand for."""
    rows = [("a", False, "not learned"), ("b : c", True, "diverged: c"), ("a", False, "not learned"), ("d", True, "")]
    assert remarks(rows) == ["left out: a (not learned)", "diverged: c"]
