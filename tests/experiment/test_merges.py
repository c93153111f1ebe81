"""Merges of a study, spelled out, and those that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from transferscope.experiment.plan import Plan, make_plan
from transferscope.system.errors import UserError

RUNS: dict[str, Any] = {
    "p": {"label": "P", "tasks": ["shapes"]},
    "pt": {
        "label": "P-T", "tasks": ["real", "clipart"], "replicas": 3, "initialisation": "pretrained",
        "pretrained": "shapes.p_1", "pretrained_epoch": "best",
    },
    "rit": {"label": "RI-T", "tasks": ["real", "clipart"], "replicas": 2},
    "wide": {"label": "wide", "tasks": ["real"], "model": {"name": "fixup_resnet_small", "options": {"widths": [8, 8, 8]}}},
    "union": {"label": "P-T", "tasks": ["both"], "initialisation": "pretrained", "pretrained": "shapes.p_1", "replicas": 2},
    "old": {"label": "old", "tasks": ["blind"], "initialisation": "checkpoint", "checkpoint": "old.pth"},
    "tuned": {"label": "tuned", "tasks": ["real"], "replicas": 2, "initialisation": "pretrained", "pretrained": "models/p.pth"},
}  # fmt: skip


def planned(*merges: dict[str, Any], **merging: Any) -> Plan:
    tasks: dict[str, Any] = {name: {"format": "image_folder", "root": name} for name in ("shapes", "real", "clipart")}
    tasks |= {"both": {"union": ["real", "clipart"]}, "blind": {"format": "image_folder", "root": None}}
    tasks["chest"] = {"format": "chexpert", "root": "chest"}
    none = dict.fromkeys(("mistakes", "similarity", "landscape", "spectrum"))
    return make_plan({"tasks": tasks, "runs": RUNS, "analyses": none | {"merging": {"merges": merges, **merging}}})


def test_kinds_are_merged_replica_by_replica() -> None:
    """Runs of one number together, as often as every kind has it; the union with that number, else the first one."""
    merges = planned({"name": "soup", "candidates": ["real.pt", "clipart.pt"], "union": "both.union"}).merges()
    assert [one.name for one in merges] == ["soup_1", "soup_2", "soup_3"]
    assert [one.candidates for one in merges][1] == ("real.pt_2", "clipart.pt_2")
    assert [one.union for one in merges] == ["both.union_1", "both.union_2", "both.union_1"]
    assert {(one.parent, one.parent_epoch, one.scope, one.label) for one in merges} == {
        ("shapes.p_1", "best", "cross_domain", "P-T")
    }
    assert merges[0].tasks == ("real", "clipart")
    assert [one.name for one in planned({"name": "mixed", "candidates": ["real.pt", "clipart.rit"]}).merges()] == [
        "mixed_1",
        "mixed_2",
    ]


def test_runs_are_merged_as_they_are_named() -> None:
    """One merge, which belongs to its task; candidates without a common start have no parent."""
    (soup,) = planned({"name": "soup", "candidates": ["real.pt_1", "real.pt_3"]}, methods=["uniform"]).merges()
    assert (soup.name, soup.scope, soup.tasks, soup.methods) == ("soup", "real", ("real",), ("uniform",))
    (scratch,) = planned(
        {"name": "scratch", "candidates": ["real.rit_1", "clipart.rit_1"], "evaluated_on": ["clipart"]}
    ).merges()
    assert (scratch.parent, scratch.scope) == (None, "clipart")
    (alone,) = planned({"name": "alone", "candidates": ["real.pt_1"], "parent": "shapes.p_1"}).merges()
    assert (alone.parent, alone.parent_epoch) == ("shapes.p_1", "best")
    (none,) = planned({"name": "none", "candidates": ["real.tuned_1", "real.tuned_2"], "parent": None}).merges()
    assert none.parent is None


@pytest.mark.parametrize(
    ("merge", "message"),
    [
        (
            {"candidates": ["real.pt_9", "real.pt_1"]},
            r"\(x\).candidates: real.pt_9 is no run or kind of run; there are: real.rit_1",
        ),
        ({"candidates": ["real.pt", "real.pt_1"]}, "give either runs, as real.pt_1, or kinds of run"),
        ({"candidates": ["real.pt_1", "real.pt_1"]}, "candidates: one is there twice"),
        ({"candidates": []}, "at least 1 item"),
        ({"candidates": ["real"]}, "candidates"),
        ({"candidates": ["real.rit_1"]}, "one candidate has nothing to be merged with"),
        ({"candidates": ["real.pt_1"], "methods": ["uniform"]}, "can only be merged with its parent"),
        ({"candidates": ["real.rit_1", "real.rit_2"], "methods": ["ties"]}, "ties start from a parent"),
        ({"candidates": ["real.rit_1", "real.rit_2"], "parent": "real.p_1"}, "parent: real.p_1 is no run; there are"),
        ({"candidates": ["real.rit_1", "real.rit_2"], "union": "both.nix"}, "union: both.nix is no run or kind"),
        ({"candidates": ["real.rit_1", "real.rit_2"], "evaluated_on": ["nix"]}, "evaluated_on: 'nix' is unknown"),
        ({"candidates": ["real.rit_1", "real.wide_1"]}, "different networks: merge runs of one architecture"),
        ({"candidates": ["blind.old_1", "real.rit_1"]}, "blind has no images, by which a merge is judged"),
        (
            {"candidates": ["real.rit_1", "real.rit_2"], "evaluated_on": ["both", "chest"]},
            "images of both have one label each and those of chest several: give evaluated_on",
        ),
        (
            {"candidates": ["real.tuned_1", "real.tuned_2"]},
            "the parent models/p.pth is a file: name a run that takes it in",
        ),
        ({"candidates": ["real.rit_1", "real.rit_2"], "methods": ["soup"]}, "methods"),
    ],
)
def test_merges_that_cannot_be_are_one_line(merge: dict[str, Any], message: str) -> None:
    """Each names the key, the value and the fix."""
    with pytest.raises(UserError, match=message):
        planned({"name": "x"} | merge)


def test_names_are_given_once() -> None:
    """Two merges of one name would overwrite each other."""
    one = {"name": "x", "candidates": ["real.rit_1", "real.rit_2"]}
    with pytest.raises(UserError, match="the name x is there 2 times"):
        planned(one, one)
