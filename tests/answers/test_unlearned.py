"""A card says first which model has not learned the images, and gives no number that then means nothing."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binom, binomtest, norm
from torch.nn import functional

from answered_tables import AB, flips, lines, merges, names, on_tasks
from compared_networks import ANALYSES, CLASSES, NUM_TEST, fixup, trained_networks
from transferscope.answers.answer import NO, UNKNOWN, YES, AnswerCard
from transferscope.answers.averaging import averaging
from transferscope.answers.card import answer_questions
from transferscope.answers.changed_modules import critical_modules
from transferscope.answers.compared import Compared, TaskFacts, compared_models
from transferscope.answers.comparison import Comparison, compare
from transferscope.answers.learned import WOULD_TELL, learned
from transferscope.answers.one_basin import basin
from transferscope.answers.score import Score, score_of
from transferscope.answers.shared_mistakes import LONGEST, replacing, shared_mistakes
from transferscope.claims.evidence import TaskResults
from transferscope.experiment.plan import make_plan

GUESSING = Score("accuracy", 0.12, 0.09, 0.15, 0.1, 2.3, 2.3, 500)
GOOD = Score("accuracy", 0.9, 0.87, 0.93, 0.1, 0.3, 2.3, 500)
WITHHELD = {"basin", "shared_mistakes", "critical_modules"}


@cache
def with_noise() -> Comparison:
    """A trained network beside one whose weights are noise, as a file that was saved before training."""
    trained = trained_networks()
    torch.manual_seed(1)
    noise = {key: torch.randn_like(tensor) for key, tensor in trained.state("first").items()}
    model = trained.models["first"]
    return compare(trained.state("first"), noise, images=trained.images, model=model, analyses=ANALYSES)


def test_the_first_sentence_names_the_model_with_accuracy_interval_and_chance() -> None:
    """The numbers are those of torch and scipy alone; the model that has learned is not named."""
    trained, comparison = trained_networks(), with_noise()
    labels = trained.images["test"][1]
    network = fixup(0)
    network.load_state_dict(dict(comparison.checkpoints["B"].state_dict))
    with torch.no_grad():
        logits = network.eval()(trained.images["test"][0])
    right = int((logits.argmax(1) == labels).sum())
    ends = binomtest(right, NUM_TEST).proportion_ci(method="wilson")
    first = comparison.answers[0]
    assert (first.id, first.verdict, first.models) == ("learned", NO, ("B",))
    np.testing.assert_allclose([first.value, first.low, first.high], [right / NUM_TEST, ends.low, ends.high])
    chance = torch.bincount(labels).max().item() / NUM_TEST
    assert first.answer == (
        f"No, B has not learned these images: its accuracy is {100 * first.value:.1f} % ({100 * ends.low:.1f} % to "
        f"{100 * ends.high:.1f} %) on {NUM_TEST} test images, and always naming the most frequent class gives "
        f"{100 * chance:.1f} %."
    )
    score = comparison.compared.scores["images.b_1"]
    assert score.loss == pytest.approx(float(functional.cross_entropy(logits.double(), labels)))
    shares = torch.bincount(labels) / NUM_TEST
    assert score.loss_of_guessing == pytest.approx(float(-(shares * shares.log()).sum()), rel=1e-6)
    assert abs(score.loss_of_guessing - np.log(CLASSES)) < 0.01


def test_no_sentence_has_a_number_that_means_nothing() -> None:
    """Relative measures are withheld with the reason, in the card and in its JSON; what is absolute stays."""
    card = with_noise().card
    assert len(card.answers) <= 8
    for id in WITHHELD & {one.id for one in card.answers}:
        assert (card[id].verdict, card[id].would_tell) == (UNKNOWN, WOULD_TELL)
        assert "because B has not learned these images" in card[id].answer
    assert {"basin", "shared_mistakes"} <= {one.id for one in card.answers}
    for one in json.loads(card.to_json())["answers"]:
        if one["id"] in WITHHELD:
            assert [one["value"], one["low"], one["high"]] == [None] * 3
        assert not re.search(r"\de[+]|\d{4,}\.\d %|nan|–", one["answer"]), one["answer"]
    assert card["replacement"].verdict == NO
    assert "whether they lie in one basin and how far their mistakes overlap (weights that" in card["open"].answer
    assert AnswerCard.from_json(card.to_json()).to_json() == card.to_json()


def test_the_last_sentence_speaks_of_the_card_alone() -> None:
    """An answer for which a full card has no room is neither counted as open nor called unmeasured."""
    card = with_noise().card
    assert len(card.answers) == 8
    assert critical_modules(with_noise().compared).verdict == UNKNOWN
    assert "critical" not in card["open"].answer
    assert card["open"].value == len([one for one in card.answers[:-1] if one.verdict == UNKNOWN])


def test_models_that_have_learned_are_not_mentioned() -> None:
    """The card of two trained networks has no such sentence, nor has one whose accuracies are not known."""
    assert learned(replace(lines({"ab": (0.5, 0.4, 0.6)}), scores={"images.a_1": GOOD, "images.b_1": GOOD})) is None
    assert learned(lines({"ab": (0.5, 0.4, 0.6)})) is None


@pytest.mark.parametrize(
    ("value", "low", "high", "loss", "verdict"),
    [
        (0.12, 0.09, 0.15, 2.29, NO),  # guessing lies in the interval, and the loss is that of guessing
        (0.12, 0.09, 0.15, 1.0, UNKNOWN),  # the loss says that something was learned
        (0.20, 0.09, 0.35, 2.29, UNKNOWN),  # few images, and a metric that is far from guessing
        (0.02, 0.01, 0.05, 9.0, NO),  # below guessing, as with classes in another order
        (0.12, 0.11, 0.13, 2.29, NO),  # known to be hardly above guessing
        (0.12, 0.11, 0.15, 2.29, YES),  # above guessing, and perhaps not hardly
        (0.30, 0.27, 0.33, 9.0, YES),  # wrong normalisation spoils the loss first
        (np.nan, np.nan, np.nan, np.nan, YES),  # not known
    ],
)
def test_the_rule(value: float, low: float, high: float, loss: float, verdict: str) -> None:
    """A model has not learned if its interval says so, or where guessing lies in it and the loss is that of guessing."""
    assert Score("accuracy", value, low, high, 0.1, loss, 2.3, 500).has_learned == verdict


@pytest.mark.parametrize(("accuracy", "chance", "number"), [(0.65, 0.5, 50), (0.97, 0.95, 500)])
def test_a_model_that_has_learned_is_denied_it_in_few_samples(accuracy: float, chance: float, number: int) -> None:
    """Over all numbers of right answers `no` has a probability of less than 5 %.

    The loss is that of a calibrated model which is equally sure of every answer, the highest with this accuracy. Guessing lies in the interval more
    often, and a model that guesses is caught.
    """
    most = round(chance * number)
    sizes = pd.DataFrame({"part": "test", "count": [most, number - most], "negatives": [number - most, most]})

    def score(right: int, sure: float) -> Score:
        part = right / number
        loss = -part * np.log(sure) - (1 - part) * np.log(1 - sure)
        return score_of(part, loss, sizes, "accuracy", number)

    scores = [score(right, accuracy) for right in range(number + 1)]
    weights = binom.pmf(np.arange(number + 1), number, accuracy)
    assert weights[[one.has_learned == NO for one in scores]].sum() < 0.05
    assert weights[[one.is_like_guessing for one in scores]].sum() > 0.2
    assert score(most, chance).has_learned == NO


@pytest.mark.parametrize("counts", [[100], [5, 0, 0]])
def test_nothing_is_said_or_withheld_where_all_images_are_of_one_class(counts: list[int]) -> None:
    """Always naming it is as good as any model, which is no evidence against one."""
    number = sum(counts)
    sizes = pd.DataFrame({"part": "test", "count": counts, "negatives": [number - one for one in counts]})
    score = score_of(1.0, 0.0, sizes, "accuracy", number)
    assert (score.chance, score.loss_of_guessing) == (1.0, 0.0)
    compared = lines({"ab": (0.01, 0.0, 0.02)})
    tasks = {"images": TaskFacts(chance=1.0)}
    card = answer_questions(replace(compared, tasks=tasks, scores=dict.fromkeys(compared.models, score)))
    assert [one.id for one in card.answers] == ["basin", "open"]
    assert "all test images are of one class" in card["basin"].answer
    assert "learned these images" not in str(card)


def test_it_cannot_be_told_of_few_images() -> None:
    """An accuracy from which guessing cannot be told gives that answer with what would tell, and withholds nothing."""
    sizes = pd.DataFrame({"part": "test", "count": [25, 25], "negatives": [25, 25]})
    score = score_of(0.62, 0.6, sizes, "accuracy", 50)
    compared = replace(lines({"ab": (0.5, 0.4, 0.6)}), scores={"images.a_1": GOOD, "images.b_1": score})
    card = answer_questions(compared)
    ends = binomtest(31, 50).proportion_ci(method="wilson")
    assert card.answers[0].answer == (
        "It cannot be told from guessing whether B has learned these images: its accuracy is 62.0 % "
        f"({100 * ends.low:.1f} % to {100 * ends.high:.1f} %) on 50 test images, and always naming the most frequent "
        "class gives 50.0 %."
    )
    needed = 50 * ((0.62 - ends.low) / 0.12 * (1 + norm.ppf(0.8) / norm.isf(0.025))) ** 2
    assert (card.answers[0].verdict, card.answers[0].parts) == (UNKNOWN, ())
    assert card.answers[0].would_tell == f"about {np.ceil(needed / 10) * 10:.0f} test images"
    assert card["basin"].value == 0.5
    assert "whether the models have learned these images (about" in card["open"].answer
    both = learned(replace(compared, scores={"images.a_1": GUESSING, "images.b_1": score}))
    assert both.answer.startswith("No, A has not learned these images: its accuracy is 12.0 %")
    assert "; it cannot be told from guessing whether B has learned these images: its accuracy is 62.0 %" in both.answer
    assert [(part.verdict, bool(part.would_tell)) for part in both.parts] == [(NO, False), (UNKNOWN, True)]
    assert (both.verdict, both.value, both.would_tell) == (NO, 0.12, "")


def test_scores_of_several_findings() -> None:
    """Guessing has an AUC of 1/2 and the mean entropy of known labels; an AUC of 1/2 is not learned, .8 is."""
    sizes = pd.DataFrame({"part": "test", "count": [30, 10], "negatives": [70, 40]})
    entropies = [-p * np.log(p) - (1 - p) * np.log(1 - p) for p in (0.3, 0.2)]
    one = score_of(0.52, 0.6, sizes, "auc", 100)
    assert one.loss_of_guessing == pytest.approx((100 * entropies[0] + 50 * entropies[1]) / 150)
    assert (one.chance, one.has_learned, score_of(0.8, 0.3, sizes, "auc", 100).has_learned) == (0.5, NO, YES)


def test_pairs_without_the_model_are_answered() -> None:
    """Of three models of which one has not learned, the barrier between the others is the number."""
    compared = lines({"ab": (0.5, 0.4, 0.6), "ac": (0.9, 0.8, 1.0)})
    answer = basin(replace(compared, scores={"images.c_1": GUESSING, "images.a_1": GOOD, "images.b_1": GOOD}))
    alone = basin(lines({"ab": (0.5, 0.4, 0.6)}))
    assert (answer.value, answer.low, answer.high) == (0.5, alone.low, 0.6)  # no longer than of one pair
    assert answer.models == ("A", "B")
    assert [part.verdict for part in answer.parts] == [NO, UNKNOWN]
    assert "a line to a model that has not learned the images says nothing of basins" in answer.answer
    text = learned(replace(compared, scores=dict.fromkeys(compared.models, GUESSING))).answer
    assert "that of C is 12.0 % (9.0 % to 15.0 %), and always naming the most frequent class gives 10.0 %" in text
    assert text.startswith("No, none of the models has learned these images: the test accuracy of A is 12.0 % (9.0 %")


def test_nothing_breaks_and_nothing_pays_where_no_model_has_learned() -> None:
    """A replacement of one guess by another and their average have no verdict; with one trained model they have."""
    both, one = ({"images.a_1": GUESSING, "images.b_1": score} for score in (GUESSING, GOOD))
    replaced = flips("yes", (0.0, -0.01, 0.01))
    assert replacing(replace(replaced, scores=both)).verdict == UNKNOWN
    assert replacing(replace(replaced, scores=one)) == replacing(replaced)
    pays = merges("pays", (0.02, 0.01, 0.03))
    answer = averaging(replace(pays, scores=both))
    assert (answer.verdict, np.isnan(answer.value)) == (UNKNOWN, True)
    assert averaging(replace(pays, scores=one)) == averaging(pays)


def test_hardly_learned_on_one_of_two_tasks() -> None:
    """The sentence names the task, and the other task keeps its barrier."""
    hardly = replace(GUESSING, value=0.13, low=0.12, high=0.14)
    one = lines({"ab": (0.5, 0.4, 0.6)})
    models = {f"{task}.{kind}_1": one.models[f"images.{kind}_1"] for task in ("photos", "art") for kind in "ab"}
    tables = {
        name: pd.concat([table.replace("images.", f"{task}.", regex=True) for task in ("photos", "art")])
        for name, table in one.tables.items()
    }
    tasks = dict.fromkeys(("photos", "art"), TaskFacts(chance=0.1))
    scores = dict.fromkeys(models, GOOD) | {"art.b_1": hardly}
    card = answer_questions(Compared(tasks, models, tables, scores=scores))
    assert card.answers[0].answer.startswith("No, B has hardly learned the images of art: its accuracy is 13.0 %")
    assert [(part.task, part.verdict) for part in card["basin"].parts] == [("photos", NO), ("art", UNKNOWN)]


AUC = Score("auc", 0.51, 0.48, 0.54, 0.5, 0.7, 0.69, 500)
"""Of a model that guesses findings."""


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (
            {"photos.a": GUESSING, "photos.b": GUESSING, "art.a": GUESSING, "art.b": GUESSING},
            "No, none of the models has learned the images of any task: the test accuracy of A on photos is 12.0 % "
            "(9.0 % to 15.0 %), that of B on photos is 12.0 % (9.0 % to 15.0 %), that of A on art is 12.0 % (9.0 % to "
            "15.0 %), and 1 more; always naming the most frequent class gives 10.0 %.",
        ),
        (
            {"photos.a": GUESSING, "photos.b": GUESSING, "art.a": GOOD, "art.b": GOOD},
            "No, none of the models has learned the images of photos: the test",
        ),
        (
            {"photos.a": GUESSING, "photos.b": GOOD, "art.a": GOOD, "art.b": AUC},
            "No, 2 of the 2 models have not learned the images of photos or of art: the test accuracy of A on photos "
            "is 12.0 % (9.0 % to 15.0 %), the test AUC of B on art is 0.510 (0.480 to 0.540), and guessing does about as "
            "well.",
        ),
    ],
)
def test_models_that_miss_several_tasks(scores: dict[str, Score], words: str) -> None:
    """The sentence names the tasks that are missed, each number with its metric, and how many are left out."""
    one = lines({"ab": (0.5, 0.4, 0.6)})
    compared = replace(
        on_tasks({"photos": one, "art": one}), scores={f"{run}_1": score for run, score in scores.items()}
    )
    assert learned(compared).answer.startswith(words)


def test_far_accuracies_give_no_overlap() -> None:
    """An interval from -1696 % to 100 % is no answer."""
    row = {"kappa": 0.0, "excess_overlap": 1.0, "excess_overlap_low": -16.958, "excess_overlap_high": 1.0}
    compared = flips("no", (-0.5, -0.6, -0.4))
    both = {"class_name": "all", "common_mistakes": 2, "only_a_correct": 396, "only_b_correct": 0}
    ends = compared.tables["replacement"].iloc[0][["checkpoint_a", "checkpoint_b"]].to_dict()
    tables = {"replacement": compared.tables["replacement"].assign(**row), "mistakes": pd.DataFrame([ends | both])}
    answer = answer_questions(replace(compared, tables=tables))["shared_mistakes"]
    assert answer.answer.endswith("so far apart it cannot be told how far they overlap beyond chance.")
    assert np.isnan(answer.value)
    assert AB in compared.pairs


def test_the_number_of_pairs_withholds_no_overlap() -> None:
    """An interval of length 1.8 is shown alone and, longer than 2, beside that of another pair."""
    row = {"excess_overlap": 0.0, "excess_overlap_low": -0.9, "excess_overlap_high": 0.9, "same_wrong": np.nan}
    one = flips("yes", (0.0, -0.01, 0.01)).tables["replacement"].assign(**row)
    counts = {"class_name": "all", "common_mistakes": 2, "only_a_correct": 4, "only_b_correct": 6}
    pairs = [names(*pair) for pair in ("ab", "ac")]
    tables = {
        "replacement": pd.concat([one.assign(**ends) for ends in pairs]),
        "mistakes": pd.DataFrame([ends | counts for ends in pairs]),
    }
    answer = shared_mistakes(replace(lines({"ab": (0, 0, 0), "ac": (0, 0, 0)}), tables=tables))
    assert [part.value for part in answer.parts] == [0.0, 0.0]
    assert answer.high - answer.low > LONGEST
    assert "cannot be told" not in answer.answer


def test_the_command_reads_scores_from_the_tables_of_the_study() -> None:
    """Accuracy and loss of `runs` and the classes of `class_sizes` make the same scores; a run without has none."""
    study = {
        "tasks": {"images": {"format": "image_folder", "root": "photos"}},
        "runs": {kind: {"label": kind, "tasks": ["images"], "initialisation": "checkpoint", "checkpoint": f"{kind}.pth"}
                 for kind in "abc"},
        "analyses": {"mistakes": {"pairs": [("a", "b")]}, "similarity": None, "landscape": None, "spectrum": None},
    }  # fmt: skip
    runs = [
        {"run": f"{kind}_1", "metric": "accuracy", "final_test": value, "final_test_loss": loss, "chance": 0.25}
        for kind, value, loss in (("a", 0.9, 0.2), ("b", 0.25, 1.4), ("c", np.nan, np.nan))
    ]
    sizes = pd.DataFrame({"part": ["test"] * 4, "class_name": list("wxyz"), "count": 50, "negatives": 150})
    tables = {"runs": pd.DataFrame(runs), "class_sizes": sizes}
    results = {"images": TaskResults("images", {"num_test": 200}, tables)}
    scores = compared_models(make_plan(study), results).scores
    assert [score.has_learned for score in scores.values()] == [YES, NO]
    assert scores["images.b_1"].loss_of_guessing == pytest.approx(np.log(4))
    ends = binomtest(50, 200).proportion_ci(method="wilson")
    assert (scores["images.b_1"].low, scores["images.b_1"].high) == pytest.approx((ends.low, ends.high))
