"""The claims that are decided: each is one decorated function, here or in a module of the user."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from transferscope.claims.comparisons import Comparison, Place
from transferscope.claims.evidence import Evidence
from transferscope.system.errors import UserError
from transferscope.system.references import load_module

NumberUnit = Literal["score", "points", "share", "number", "coefficient"]
"""score: a test metric; points: hundredths of one; share: a fraction; number: any size; coefficient: at most 1."""

Measure = Callable[[Evidence], Iterable[Comparison]]

CHAPTERS = tuple(
    f"transferscope.claims.{name}"
    for name in (
        "training",
        "mistakes",
        "similarity",
        "landscape",
        "cross_domain",
        "connection",
        "criticality",
        "spectrum",
        "feature_reuse",
        "merging",
    )
)
"""Modules with the paper's claims, in the order of its appendix."""

BETWEEN_RUNS = "every P-T against every RI-T of a task"
BETWEEN_PAIRS = "every pair of the one kind against every pair of the other"
"""Words for how runs or pairs of two kinds are compared."""


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim and how it is measured; the keywords are those of `claim`."""

    id: str
    text: str
    measure: Measure
    source: str
    compares: str
    unit: NumberUnit
    sides: tuple[str, ...]
    needs: str
    place: Place = "task"
    paper: tuple[str, ...] = ()
    section: str = ""
    over: str = "test images"
    limits: tuple[float, float] = (-math.inf, math.inf)


_CLAIMS: dict[str, Claim] = {}


def claim(
    text: str,
    *,
    source: str,
    compares: str,
    unit: NumberUnit,
    sides: tuple[str, ...],
    needs: str,
    place: Place = "task",
    paper: tuple[str, ...] = (),
    section: str = "",
    over: str = "test images",
    limits: tuple[float, float] = (-math.inf, math.inf),
) -> Callable[[Measure], Measure]:
    """Register the function below as a claim; its name is the claim's id.

    The function gets the `Evidence` and gives every `Comparison`, made by `compare` and `against`.

    Args:
        text: the claim as one sentence.
        source: where it is made, e.g. "Section B.1, Figure 2".
        compares: what one comparison is, in words.
        unit: of the numbers that are compared.
        sides: what the first and the second number are; one of them where a number is held against a bound.
        needs: what the plan must run.
        place: what the places of the comparisons are.
        paper: the paper's figures, an item per task.
        section: id of the report's section that shows more.
        over: the things on which a number is measured, and over which its standard error is.
        limits: between which the effect lies whatever the study, such as 0 and 1 of a share; its interval ends there.

    Raises:
        UserError: another function of that name is registered.
    """

    def register(measure: Measure) -> Measure:
        name = measure.__name__
        known = _CLAIMS.get(name)
        if known and known.measure.__module__ != measure.__module__:
            raise UserError(f"claim {name} of {measure.__module__}: {known.measure.__module__} has one of that name")
        _CLAIMS[name] = Claim(
            id=name,
            text=text,
            measure=measure,
            source=source,
            compares=compares,
            unit=unit,
            sides=sides,
            needs=needs,
            place=place,
            paper=paper,
            section=section,
            over=over,
            limits=limits,
        )
        return measure

    return register


def registered(modules: Iterable[str] = ()) -> dict[str, Claim]:
    """All claims by id: the paper's in the order of the appendix, then others as they were registered.

    modules: imported first, for the claims in them; `report.claims` of the parameters.

    Raises:
        UserError: there is no module of that name.
    """
    for name in CHAPTERS:
        import_module(name)
    for name in modules:
        load_module(name, "report.claims")
    order = {name: rank for rank, name in enumerate(CHAPTERS)}
    claims = sorted(_CLAIMS.values(), key=lambda one: order.get(one.measure.__module__, len(order)))
    return {one.id: one for one in claims}
