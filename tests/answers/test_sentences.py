"""Verdicts and sentences on tables that are written by hand."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferscope.answers.answer import NO, UNKNOWN, YES, Answer, AnswerCard
from transferscope.answers.averaging import averaging
from transferscope.answers.card import answer_questions
from transferscope.answers.compared import Compared, Model
from transferscope.answers.one_basin import basin
from transferscope.answers.open_questions import open_questions
from transferscope.answers.rule import decide, images_that_decide
from transferscope.answers.shared_mistakes import replacing
from transferscope.system.errors import UserError


def names(a: str, b: str) -> dict[str, str]:
    return {
        "checkpoint_a": f"images.{a}_1@final",
        "checkpoint_b": f"images.{b}_1@final",
        "split": "test",
        "metric": "accuracy",
    }


def lines(pairs: dict[str, tuple[float, float, float]], ways: dict[str, tuple[float, ...]] | None = None) -> Compared:
    """Models whose ends have an accuracy of .9 where guessing has .1, so that the margin is 4 points."""
    barriers, points, connection = [], [], []
    for pair, (height, low, high) in pairs.items():
        both = names(*pair)
        barriers.append(both | {"barrier": height, "barrier_low": low, "barrier_high": high, "num_examples": 500})
        points += [both | {"alpha": alpha, "value": 0.9} for alpha in (0.0, 1.0)]
        for way, (left_height, left_low, left_high, share, share_low, share_high) in (ways or {}).items():
            row = {"way": way, "barrier": left_height, "barrier_low": left_low, "barrier_high": left_high}
            connection.append(both | row | {"left": share, "left_low": share_low, "left_high": share_high})
    tables = {"barriers": pd.DataFrame(barriers), "interpolation": pd.DataFrame(points)}
    tables |= {"connection": pd.DataFrame(connection)} if connection else {}
    kinds = sorted({one for pair in pairs for one in pair})
    return Compared("images", {f"images.{kind}_1": Model(kind.upper()) for kind in kinds}, tables, chance=0.1)


@pytest.mark.parametrize(
    ("barrier", "verdict", "words"),
    [
        ((0.01, -0.01, 0.03), YES, "Yes, the barrier .* is 1.0 points .* margin of 4.0 points .5 % of what"),
        ((0.10, 0.06, 0.14), NO, "Not as they are"),
        ((0.03, 0.01, 0.06), UNKNOWN, "cannot be told"),
        ((0.03, np.nan, np.nan), UNKNOWN, "no interval without resamples"),
        ((np.nan, np.nan, np.nan), UNKNOWN, "not finite"),
    ],
)
def test_a_barrier_is_held_against_the_margin(barrier: tuple[float, float, float], verdict: str, words: str) -> None:
    """The whole interval has to lie on one side of 5 % of what the ends have learned."""
    answer = basin(lines({"ab": barrier}))
    assert answer.verdict == verdict
    assert pd.Series([answer.answer]).str.contains(words).all(), answer.answer


def test_how_many_images_would_tell() -> None:
    """An interval that is halved by four times the images is cleared of the margin by that many."""
    compared = lines({"ab": (0.03, 0.01, 0.05)})
    answer = basin(compared)
    assert answer.would_tell == "about 2,000 test images"
    assert "about 2,000 test images would tell" in open_questions(compared, [answer]).answer
    assert images_that_decide(0.03, 0.01, 0.05, 0.04, 500) == pytest.approx(2000)
    assert np.isnan(images_that_decide(0.04, 0.01, 0.07, 0.04, 500))
    assert decide(0.1, 0.1, 0.1, (0, 1)) == UNKNOWN  # no spread, no interval


@pytest.mark.parametrize(
    ("ways", "words"),
    [
        ({"aligned": (0.01, -0.01, 0.02, 0.02, 0, 0.05)}, "the order of the channels alone explains it"),
        (
            {"aligned": (0.3, 0.2, 0.4, 0.6, 0.5, 0.7), "rescaled": (0.0, -0.02, 0.02, 0, 0, 0.1)},
            "the scale of the channels alone explains it",
        ),
        (
            {"aligned": (0.3, 0.2, 0.4, 0.6, 0.55, 0.7), "aligned_rescaled": (0.06, 0.03, 0.09, 0.12, 0.05, 0.2)},
            "together explain most of it: 12.0 % .5.0 % to 20.0 %. of it is left",
        ),
        ({"aligned_rescaled": (0.4, 0.3, 0.45, 0.8, 0.7, 0.9)}, "do not explain it"),
        ({"aligned_rescaled": (0.25, 0.2, 0.3, 0.5, 0.4, 0.6)}, "most of it cannot be told"),
        (
            {"rescaled": (0.25, 0.2, 0.3, 0.5, 0.4, 0.6)},
            "order and scale of the channels together explain it was not measured",
        ),
    ],
)
def test_the_simplest_way_that_explains_a_barrier_is_named(ways: dict[str, tuple[float, ...]], words: str) -> None:
    """Order alone, scale alone, both, neither, or open."""
    answer = basin(lines({"ab": (0.5, 0.45, 0.55)}, ways))
    assert answer.verdict == NO
    assert pd.Series([answer.answer]).str.contains(words).all(), answer.answer


def test_several_pairs_are_summed_up() -> None:
    """Pairs are counted by verdict, and the highest barrier is named."""
    heights = {"ab": (0.01, 0, 0.02), "ac": (0.5, 0.4, 0.6), "bc": (0.3, 0.2, 0.4)}
    answer = basin(lines(heights))
    assert answer.verdict == NO
    assert answer.models == ("A", "C")
    assert "1 pair (A & B)" in answer.answer
    assert "2 pairs (A & C and B & C)" in answer.answer
    assert "50.0 points (40.0 to 60.0)" in answer.answer


def test_one_barrier_is_enough_against_one_basin() -> None:
    """The pair with a barrier gives verdict and number, and the pair of which it cannot be told stays open."""
    compared = lines({"ab": (0.03, 0.01, 0.06), "ac": (0.1, 0.06, 0.14)})
    answer = basin(compared)
    assert (answer.verdict, answer.value, answer.models) == (NO, 0.1, ("A", "C"))
    left = open_questions(compared, [answer]).answer
    assert "for some of the pairs whether they lie in one basin" in left
    assert basin(lines({"ab": (0.03, 0.01, 0.06), "ac": (0.01, 0, 0.02)})).verdict == UNKNOWN


def test_more_images_do_not_tell_of_a_way_that_was_not_measured() -> None:
    """Where order and scale were not taken out together, the way is named that would tell."""
    answer = basin(lines({"ab": (0.5, 0.45, 0.55)}, {"rescaled": (0.25, 0.2, 0.3, 0.5, 0.4, 0.6)}))
    assert answer.would_tell == "the way aligned_rescaled of analyses.landscape.connection"


def test_twenty_models_make_one_card() -> None:
    """However many pairs there are, the sentences stay few and short."""
    kinds = "abcdefghijklmnopqrst"
    random = np.random.default_rng(0)
    heights = {
        a + b: (float(x), float(x) - 0.02, float(x) + 0.02)
        for (a, b), x in zip(combinations(kinds, 2), random.uniform(0, 0.6, 190), strict=True)
    }
    card = answer_questions(lines(heights))
    assert len(card.answers) <= 8
    assert max(len(answer.answer) for answer in card.answers) < 600


def flips(answer: str, gain: tuple[float, float, float]) -> Compared:
    row: dict[str, Any] = names("a", "b") | {"class_name": "all", "num_examples": 400, "answer": answer}
    row |= {"negative_flips": 8, "positive_flips": 4, "changed": 0.04, "changed_low": 0.02, "changed_high": 0.06}
    row |= dict(zip(("accuracy_gain", "accuracy_gain_low", "accuracy_gain_high"), gain, strict=True))
    for name, value in (("negative_flip_rate", 0.02), ("positive_flip_rate", 0.01)):
        row |= {name: value, f"{name}_low": value / 2, f"{name}_high": 2 * value}
    models = {"images.a_1": Model("old"), "images.b_1": Model("new")}
    return Compared("images", models, {"replacement": pd.DataFrame([row])})


def test_a_replacement_is_judged_by_the_accepted_loss() -> None:
    """The sentence says what turns wrong and whether the second model stays within the accepted loss."""
    yes = replacing(flips("yes", (-0.01, -0.015, 0.005)))
    assert yes.verdict == YES
    assert "2.0 % (1.0 % to 4.0 %) turn wrong" in yes.answer
    assert "new can replace old within the accepted loss of 2.0 points" in yes.answer
    assert "cannot replace" in replacing(flips("no", (-0.05, -0.06, -0.04))).answer
    unknown = replacing(flips("cannot tell", (-0.01, -0.03, 0.01)))
    assert (unknown.verdict, unknown.would_tell) == (UNKNOWN, "about 1,600 test images")


def test_the_finding_that_forbids_a_replacement_decides() -> None:
    """Of several findings the one that loses too much decides, though more images turn wrong in another one."""
    tables = [flips(*row).tables["replacement"] for row in (("yes", (0.0, -0.01, 0.01)), ("no", (-0.05, -0.06, -0.04)))]
    many, worse = (table.assign(class_name=name) for table, name in zip(tables, ("effusion", "edema"), strict=True))
    both = pd.concat([many.assign(negative_flip_rate=0.06, negative_flip_rate_high=0.1), worse])
    answer = replacing(Compared("images", flips("yes", (0, 0, 0)).models, {"replacement": both}))
    assert (answer.verdict, answer.value) == (NO, 0.02)
    assert "in the finding edema, which decides," in answer.answer


def test_of_several_replacements_one_that_loses_too_much_is_a_no() -> None:
    """A yes of one pair and a no of another are nothing that could not be told."""
    rows = [flips(*row).tables["replacement"] for row in (("yes", (0.0, -0.01, 0.01)), ("no", (-0.05, -0.06, -0.04)))]
    rows[1] = rows[1].assign(**names("a", "c"))
    models = {f"images.{kind}_1": Model(kind.upper()) for kind in "abc"}
    answer = replacing(Compared("images", models, {"replacement": pd.concat(rows)}))
    assert (answer.verdict, answer.models) == (NO, ("A", "C"))


def merges(
    verdict: str, gain: tuple[float, float, float], model: str = "uniform", setting: str = "2 candidates"
) -> Compared:
    shared = {"merge": "average", "task": "images", "metric": "accuracy", "num_examples": 280, "chosen": True}
    shared |= {"value": 0.9, "value_low": 0.87, "value_high": 0.93}
    rows = [shared | {"model": "images.b_1@final", "kind": "candidate", "verdict": "", "setting": ""}]
    numbers = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    rows.append(shared | numbers | {"model": model, "kind": "merge", "verdict": verdict, "setting": setting})
    models = {"images.a_1": Model("A"), "images.b_1": Model("B")}
    return Compared("images", models, {"merging": pd.DataFrame(rows)}, merged={"average": "out/merged.safetensors"})


def test_a_merge_says_where_its_file_is() -> None:
    """Of each verdict the sentence has the gain over the best single model, and the file."""
    pays = averaging(merges("pays", (0.02, 0.01, 0.03)))
    assert pays.verdict == YES
    assert "2.0 points (1.0 to 3.0) more than B, the best single model" in pays.answer
    assert pays.answer.endswith("the merged weights lie in out/merged.safetensors.")
    assert "2.0 points (1.0 to 3.0) less" in averaging(merges("does not pay", (-0.02, -0.03, -0.01))).answer
    unknown = averaging(merges("cannot tell", (0.01, -0.01, 0.03)))
    assert (unknown.verdict, unknown.would_tell) == (UNKNOWN, "about 1,200 test images that judge")
    alone = averaging(merges("cannot tell", (0.0, 0.0, 0.0), "greedy", "1 of 2: images.b_1@final"))
    assert alone.verdict == NO
    assert "kept one model alone" in alone.answer


def test_one_file_and_its_parent_have_a_card() -> None:
    """The merge with the parent is judged, and the last sentence says why nothing else is asked."""
    two = merges("pays", (0.02, 0.01, 0.03), "wise_ft")
    card = answer_questions(Compared("images", {"images.b_1": Model("B")}, two.tables))
    assert [one.id for one in card.answers] == ["averaging", "open"]
    assert card["averaging"].question == "Does merging B with its parent pay?"
    assert card["open"].answer.startswith("One model alone makes no pair")


def test_a_file_of_another_layout_is_refused() -> None:
    """A version that is not known, and text that is no card, are one line with the file's name."""
    card = AnswerCard("A", (), (Answer("open", "What?", "Nothing."),))
    with pytest.raises(UserError, match=r"mine\.json has version 7"):
        AnswerCard.from_json(card.to_json().replace('"version": 1', '"version": 7'), "mine.json")
    with pytest.raises(UserError, match="no file of answers"):
        AnswerCard.from_json("[]")
    with pytest.raises(UserError, match="no answer 'basin', only open"):
        _ = card["basin"]
