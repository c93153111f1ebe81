"""Looks follow from roles, whatever the labels are."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator

import pandas as pd
import pytest

from drawn_study import OTHER_LABELS, change_study, relabelled
from transferscope.experiment.pairs import pair_kind
from transferscope.experiment.plan import make_plan
from transferscope.framework.plan_parameters import label_parameters
from transferscope.pipelines.wiring import Drawing, Labelled, Pages
from transferscope.plots import reuse
from transferscope.plots.planes import point_name
from transferscope.plots.rates import by_kind_and_rate
from transferscope.plots.roles import kind_of, kind_of_pair, labelled, present_labels
from transferscope.plots.rows import kind_of_run, with_named_pairs
from transferscope.plots.style import LOOKS, empty_figure, in_usual_order, looks_for

MORE = {"runs__more": {"label": "More", "tasks": ["clipart"]}}
NO_PAIRS = {"mistakes": None, "similarity": None, "landscape": None}
KINDS = ("P-T", "P-T large lr", "RI-T", "RI-T small lr", "RI-T same init", "P")
PAIRS = ("P-T & P", "P-T & P-T", "P-T & RI-T", "RI-T & RI-T", "RI-T & RI-T same init", "P-T & RI-T small lr")


def other(kind: str) -> str:
    return " & ".join(OTHER_LABELS[side] for side in kind.split(" & "))


@pytest.mark.parametrize("kinds", [KINDS, PAIRS])
def test_other_labels_look_the_same(kinds: tuple[str, ...]) -> None:
    """Colours, markers, dashes and order of a study with other labels are those of the default."""
    looks, order = looks_for(kinds), in_usual_order(kinds)
    with labelled(**label_parameters(relabelled())["clipart"]):
        assert looks_for([other(kind) for kind in kinds]) == {other(kind): look for kind, look in looks.items()}
        assert in_usual_order([other(kind) for kind in kinds]) == [other(kind) for kind in order]


def test_a_label_alone_gives_a_file_no_look_of_a_role() -> None:
    """Two files that a user calls P-T and RI-T have looks of their own, apart from each other."""
    file = {"tasks": ["photos"], "initialisation": "checkpoint"}
    plan = make_plan(
        {
            "tasks": {"photos": {"format": "image_folder", "root": "photos"}},
            "runs": {
                "a": {"label": "P-T", "checkpoint": "a.pth", **file},
                "b": {"label": "RI-T", "checkpoint": "b.pth", **file},
            },
            "analyses": {"mistakes": None, "similarity": None, "landscape": None, "spectrum": None},
        }
    )
    usual = looks_for(["P-T", "RI-T"])
    with labelled(**label_parameters(plan)["photos"]):
        looks = looks_for(["P-T", "RI-T"])
    assert looks["P-T"] != looks["RI-T"]
    assert not set(looks.values()) & set(usual.values())


def test_a_run_is_printed_by_its_label() -> None:
    """The study's label counts; of a run that it has not, the kind in the name."""
    assert kind_of_run("clipart.pt_later_1@final") == "pt later"
    with labelled(**label_parameters(relabelled())["clipart"]):
        assert kind_of_run("clipart.pt_1@final") == "Fine-tuned"
        assert kind_of_run("clipart.pt_large_lr_2") == "RI-T"
        assert point_name("clipart.pt_1@0") == "pre-trained, with the new classifier of Fine-tuned 1"


def test_rates_are_grouped_by_role() -> None:
    """A variant at another rate stands under the kind's label with its rate; at the same rate it keeps its own."""
    table = pd.DataFrame(
        {"run": ["a", "b", "c"], "label": ["P-T", "P-T large lr", "P-T long"], "lr": [0.01, 0.05, 0.01]}
    )
    assert list(map(str, by_kind_and_rate(table))) == ["P-T, lr 0.01", "P-T, lr 0.05", "P-T long, lr 0.01"]
    named = table.iloc[:2].assign(label=["Fine-tuned", "RI-T"])
    with labelled(**label_parameters(relabelled())["clipart"]):
        assert list(map(str, by_kind_and_rate(named))) == ["Fine-tuned, lr 0.01", "Fine-tuned, lr 0.05"]


def test_only_kinds_that_differ_in_the_rate_alone_stand_under_one_label() -> None:
    """Copies of P-T and of RI-T have one role and two rates; a kind at another rate with more epochs is another kind."""
    long = {"label": "Long", "tasks": ["clipart"], "initialisation": "pretrained", "pretrained": "shapes.p_1"}
    plan = change_study(runs__long=long | {"training": {"lr": 0.05, "epochs": 7}})
    labels = label_parameters(plan)["clipart"]
    assert labels["other_rates"] == {"P-T large lr": "P-T", "RI-T small lr": "RI-T"}
    table = pd.DataFrame({"run": ["a", "b"], "label": ["P-T copy", "RI-T copy"], "lr": [0.01, 0.05]})
    with labelled(**labels):
        assert list(map(str, by_kind_and_rate(table))) == ["P-T copy, lr 0.01", "RI-T copy, lr 0.05"]


def test_the_kind_that_is_compared_has_the_look_of_its_role() -> None:
    """And the kind in whose place it stands the look of a variant."""
    plan = change_study(analyses=NO_PAIRS, runs__pt_large_lr__compared=True)
    usual = looks_for(["P-T"])["P-T"]
    with labelled(**label_parameters(plan)["clipart"]):
        looks = looks_for(["P-T", "P-T large lr"])
    assert looks["P-T large lr"] == usual != looks["P-T"]


def test_labels_reach_the_drawing_and_not_the_function() -> None:
    """As the last input, of a function of nodes and of one that is imported when it draws; afterwards all is as before."""
    labels, before = {"roles": {"Mine": "fine_tuned"}, "runs": {}}, present_labels()
    assert pickle.loads(pickle.dumps(Labelled(_looks)))("Mine", labels).axes
    drawing = pickle.loads(pickle.dumps(Drawing("curves:learning_curves", {"title": "mine"}, joined=True)))
    assert drawing.__name__ == "learning_curves"
    table = pd.DataFrame({"run": ["a"], "label": ["Mine"], "epoch": [0], "lr": [0.1], "test_accuracy": [1.0]})
    table["train_accuracy"] = table["test_accuracy"]
    figure = drawing(table, table.assign(run="b"), "drawn", labels)
    assert any("Mine" in text.get_text() for text in figure.legends[0].get_texts())
    with pytest.raises(AssertionError):
        _looks("Mine")
    assert present_labels() is before


def test_pages_that_are_drawn_when_they_are_saved_have_the_labels() -> None:
    """Each page is drawn with them, and between two pages all is as before."""
    table = pd.DataFrame({"value": [1.0, 2.0]})
    before, number = present_labels(), 0
    for _ in TwoPages("none", {}, joined=True)(table, None, {"roles": {"Mine": "fine_tuned"}, "runs": {}})():
        assert present_labels() is before
        number += 1
    assert number == 2


class TwoPages(Pages):
    """Two figures of a kind."""

    def function(self) -> Callable[..., object]:
        return _two_pages


def _two_pages(table: pd.DataFrame, note: str | None) -> Iterator[object]:
    for _ in table["value"]:
        yield _looks("Mine")


def _looks(kind: str) -> object:
    assert kind_of(kind).is_plain("fine_tuned")
    return empty_figure(kind)


def test_labels_of_a_task_do_not_hang_on_other_tasks() -> None:
    """A run more on one task leaves the figures of another as they are; across tasks all runs are there."""
    before, after = (label_parameters(change_study(**changes)) for changes in ({}, MORE))
    assert before["real"] == after["real"]
    assert before["clipart"] != after["clipart"]
    assert before["real"]["runs"]["shapes.p_1"] == "P"
    assert "chest.pt_1" in before["cross_domain"]["runs"]


def test_a_label_that_reads_like_a_part_or_a_rate_is_no_such(drawn) -> None:
    """Runs from scratch called `features frozen` have their own row, and a file called `P-T, lr 0.01` its own line."""
    table = drawn.reuse().replace({"label": {"RI-T": "features frozen"}})
    axes = reuse.controls(table).axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [
        "P-T", "statistics alone", "features frozen", "up to stem", "up to layer2.1", "features frozen",
    ]  # fmt: skip
    rates = pd.DataFrame({"run": ["a", "b"], "label": ["P-T", "P-T, lr 0.01"], "lr": [0.01, float("nan")]})
    assert [len(rows) for rows in by_kind_and_rate(rates).values()] == [1, 1]


def test_a_label_of_which_another_is_the_beginning_has_its_own_look() -> None:
    """The control `two untrained` is no variant of runs called `two`, nor a label with " & " a pair."""
    roles = {"two": "fine_tuned", "scratch & long": "from_scratch"}
    with labelled(roles, {}):
        looks = looks_for(["two & two", "two untrained", "scratch & long"])
    with labelled({"two untrained": "from_scratch", "P-T": "fine_tuned", "P": "source", "P-T & P": "shared_init"}, {}):
        assert kind_of_pair("two untrained").roles == (None,)
        assert kind_of_pair("P-T & P").roles == ("fine_tuned", "source")
        assert kind_of_pair(pair_kind("P-T", "“P”")).roles == ("fine_tuned", None)
    with labelled(roles, {}):
        assert kind_of("source").roles == (None,)
    assert looks["two & two"] == LOOKS["fine_tuned", "fine_tuned"]
    assert looks["two untrained"] not in LOOKS.values()
    assert looks["scratch & long"] == LOOKS["from_scratch",]


def test_names_of_files_with_the_sign_of_a_pair_make_pairs_of_their_own() -> None:
    """`a & b` with `c` is not `a` with `b & c`."""
    ends = [("t.x_1@final", "t.x_2@final"), ("t.x_3@final", "t.x_4@final")]
    pairs = pd.DataFrame(ends, columns=["checkpoint_a", "checkpoint_b"]).assign(pair_kind="m & m")
    names = {"t.x_1": "a & b", "t.x_2": "c", "t.x_3": "a", "t.x_4": "b & c"}
    assert with_named_pairs(pairs, names, 9)[0]["pair_kind"].nunique() == 2
