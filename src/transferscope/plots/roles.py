"""Roles of the kinds of run whose labels a figure prints: roles decide looks and order, labels are only shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from transferscope.experiment.pairs import labels_in


@dataclass(frozen=True)
class Labels:
    """Labels of a study: the role of each, the first label of a role first, and the label of each run by full name.

    other_rates: for a label whose runs differ in their learning rate alone from others, the label of these.
    """

    roles: Mapping[str, str]
    runs: Mapping[str, str] = field(default_factory=dict)
    other_rates: Mapping[str, str] = field(default_factory=dict)

    def first(self, role: str) -> str:
        """The label of a role that some label has; others of the same role are its variants."""
        return next(label for label, other in self.roles.items() if other == role)


DEFAULT = Labels({})
"""Without those of a study each label is a kind of run by itself."""

_present: ContextVar[Labels] = ContextVar("labels", default=DEFAULT)


def present_labels() -> Labels:
    """Those of the study whose figure is drawn."""
    return _present.get()


@contextmanager
def labelled(
    roles: Mapping[str, str], runs: Mapping[str, str], other_rates: Mapping[str, str] | None = None
) -> Iterator[None]:
    """Draw figures of a study with these labels, which a notebook loads as `params:plan.labels.<task>`."""
    token = _present.set(Labels(roles, runs, other_rates or {}))
    try:
        yield
    finally:
        _present.reset(token)


@dataclass(frozen=True)
class Kind:
    """The roles of a kind of run, or of the two of a pair; `variant` where a label is not the first of its role.

    A label that the study does not know has no role.
    """

    roles: tuple[str | None, ...]
    variant: bool

    def is_plain(self, *roles: str) -> bool:
        """True if this is a kind of run with one of these roles, and no variant."""
        return len(self.roles) == 1 and self.roles[0] in roles and not self.variant


def kind_of(text: str) -> Kind:
    """The roles of a kind of run, by its label, or else of a kind of pair."""
    return _kind_of([text]) if text in present_labels().roles else kind_of_pair(text)


def kind_of_pair(text: str) -> Kind:
    """`P-T & RI-T` as roles; the name of a control, as `two untrained`, has none, whatever the labels are."""
    sides = labels_in(text)
    return _kind_of(sides) if len(sides) == 2 else Kind((None,), variant=False)


def _kind_of(sides: Sequence[str]) -> Kind:
    labels = present_labels()
    roles = tuple(labels.roles.get(side) for side in sides)
    variants = (role is not None and labels.first(role) != side for role, side in zip(roles, sides, strict=True))
    return Kind(roles, any(variants))
