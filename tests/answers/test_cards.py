"""The cards of five pairs of networks, each number against one that is computed by torch alone."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from torch import Tensor

from compared_networks import CASES, NUM_TEST, Trained, comparison_of, fixup
from transferscope import compare
from transferscope.answers.answer import NO, UNKNOWN, YES, AnswerCard

SAME = ("permuted", "same_weights")
COMPARABLE = ("same_basin", "unrelated")


def right(trained: Trained, name: str) -> Tensor:
    """Test images that a network gets right."""
    return trained.logits(name).argmax(dim=1) == trained.images["test"][1]


def judged(trained: Trained, state: dict[str, Tensor]) -> float:
    """Test accuracy of weights, on all test images."""
    model = fixup(0)
    model.load_state_dict(state)
    images, labels = trained.images["test"]
    with torch.no_grad():
        return float((model.eval()(images).argmax(dim=1) == labels).double().mean())


def mixed(trained: Trained, names: tuple[str, str], alpha: float) -> dict[str, Tensor]:
    a, b = (trained.state(name) for name in names)
    return {key: (1 - alpha) * a[key] + alpha * b[key] for key in a}


@pytest.mark.parametrize("images", [True, False])
def test_at_most_eight_sentences_without_holes(case: str, images: bool) -> None:
    """Each answer is one sentence of the words and numbers that it needs, and the last says what is open."""
    card = comparison_of(case, images).card
    assert 2 <= len(card.answers) <= 8
    for answer in card.answers:
        assert answer.question.endswith("?")
        assert re.fullmatch(r"[A-Z0-9].*\.", answer.answer)
        assert not re.search(r"\bnan\b|(?!^)\bNone\b|\binf\b|  |\.\.|;\s*;|\(\)", answer.answer), answer.answer
        assert not np.isfinite(answer.low) or answer.low <= answer.value <= answer.high
    assert card.answers[-1].id == "open"


@pytest.mark.parametrize("images", [True, False])
def test_the_same_function_or_not(case: str, images: bool) -> None:
    """A permuted copy and equal weights are the same function with and without images, all others are not."""
    answer = comparison_of(case, images).card["same_function"]
    assert answer.verdict == (YES if case in SAME else NO)
    assert ("in another order" in answer.answer) == (case == "permuted")
    assert ("number by number" in answer.answer) == (case == "same_weights")


@pytest.mark.parametrize("short", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CASES["permuted"])
@pytest.mark.parametrize("images", [True, False])
def test_a_copy_in_half_precision_is_named(trained: Trained, short: torch.dtype, name: str, images: bool) -> None:
    """It gives other outputs, because its weights are rounded; also where channels are in another order."""
    of = CASES["permuted"][0]
    copy = {key: tensor.to(short) for key, tensor in trained.state(name).items()}
    given = trained.images if images else None
    few = {"similarity": {"max_examples": 64}, "landscape": None, "spectrum": None}
    card = compare(trained.state(of), copy, images=given, model=trained.models[of], analyses=few).card
    answer = card["same_function"]
    assert answer.verdict == NO
    assert f"rounded to {str(short).removeprefix('torch.')} their weights are equal" in answer.answer
    if images and name == of:
        assert card["averaging"].verdict == NO
        assert "gives the same weights again, but for rounding" in card["averaging"].answer
        assert card["changed_modules"].answer.startswith("No module differs by more than rounding")
        assert "whether they lie in one basin" in card["open"].answer  # left out here
        assert "critical" not in card["open"].answer


def test_rounding_is_no_cause_of_trained_differences() -> None:
    """Fine-tunings and unrelated networks differ by more than their last digits."""
    for case in COMPARABLE:
        assert "rounded" not in comparison_of(case).card["same_function"].answer


@pytest.mark.parametrize("case", ["same_basin", "unrelated", "other_architecture"])
def test_share_of_other_predictions(case: str, trained: Trained) -> None:
    """The share of images with another prediction is that of the networks' logits."""
    a, b = (trained.logits(name).argmax(dim=1) for name in CASES[case])
    answer = comparison_of(case).card["same_function"]
    share = float((a != b).double().mean())
    assert answer.value == pytest.approx(share)
    assert f"{100 * share:.1f} %" in answer.answer
    assert f"{NUM_TEST} test images" in answer.answer


@pytest.mark.parametrize(("case", "verdict"), [("same_basin", YES), ("unrelated", NO), ("permuted", NO)])
def test_one_basin_or_not(case: str, verdict: str, trained: Trained) -> None:
    """The verdict is that of the fall below the chord on all test images, against 5 % of what both have learned."""
    names = CASES[case]
    answer = comparison_of(case).card["basin"]
    alphas = np.linspace(0, 1, 5)
    line = np.array([judged(trained, mixed(trained, names, float(alpha))) for alpha in alphas])
    chord = (1 - alphas) * line[0] + alphas * line[-1]
    fall = float((chord - line).max())
    chance = np.bincount(trained.images["test"][1].numpy()).max() / NUM_TEST
    margin = 0.05 * ((line[0] + line[-1]) / 2 - chance)
    assert (fall < margin) == (verdict == YES)
    assert answer.verdict == verdict
    assert answer.low - 0.02 <= fall <= answer.high + 0.02  # the card measures a part of the images
    stated = float(re.search(r"margin of ([\d.]+) points", answer.answer)[1])
    assert stated == pytest.approx(100 * margin, abs=0.3)


def test_what_explains_a_barrier() -> None:
    """Between a network and its permuted copy the order of channels explains all of the barrier."""
    permuted = comparison_of("permuted").card["basin"].answer
    assert "the order of the channels explains all of it" in permuted
    ways = comparison_of("unrelated").tables["connection"].query("split == 'test' and metric == 'accuracy'")
    left = ways.set_index("way").loc[["aligned", "rescaled", "aligned_rescaled"], "left"].min()
    assert f"{100 * left:.1f} %" in comparison_of("unrelated").card["basin"].answer


@pytest.mark.parametrize("case", COMPARABLE)
def test_averaging(case: str, trained: Trained) -> None:
    """The verdict follows from the interval of the gain, and the merged weights score what the sentence says."""
    comparison = comparison_of(case)
    answer, merging = comparison.card["averaging"], comparison.merging
    assert answer.verdict == (YES if answer.low > 0 else NO if answer.high <= 0 else UNKNOWN)
    table = merging.table
    chosen = table[(table["kind"] == "merge") & table["chosen"]].iloc[0]
    best = table[(table["kind"] == "candidate") & table["chosen"]].iloc[0]
    assert answer.value == pytest.approx(chosen["value"] - best["value"])
    assert f"{100 * chosen['value']:.1f} %" in answer.answer
    assert judged(trained, merging.checkpoint.state_dict) == pytest.approx(chosen["value"], abs=0.05)
    if chosen["model"] == "uniform":
        for key, tensor in mixed(trained, CASES[case], 0.5).items():
            assert torch.allclose(merging.checkpoint.state_dict[key], tensor, atol=1e-6)


def test_no_average_of_one_function() -> None:
    """Equal and permuted weights have nothing to gain from an average."""
    for case in SAME:
        answer = comparison_of(case).card["averaging"]
        assert answer.verdict == NO
        words = "gives the same weights again" if case == "same_weights" else "gives the weights of A again"
        assert words in answer.answer


def test_the_figure_of_distances_is_not_named_where_channels_were_matched() -> None:
    """It shows them in the order of the files, where every module of a permuted copy lies far away."""
    answer = comparison_of("permuted").card["changed_modules"]
    assert answer.figure == ""
    assert answer.value < 1e-5
    assert "channels matched" in answer.measure
    assert "distance_per_module" in comparison_of("same_basin").card["changed_modules"].figure


def test_changed_modules(trained: Trained) -> None:
    """Distances are those of the weights, and the module named first is the one that differs most."""
    a, b = (trained.state(name) for name in CASES["same_basin"])
    answer = comparison_of("same_basin").card["changed_modules"]

    def apart(keys: list[str]) -> float:
        difference = sum(float((a[key] - b[key]).double().square().sum()) for key in keys)
        return (difference / sum(float(a[key].double().square().sum()) for key in keys)) ** 0.5

    assert answer.value == pytest.approx(apart(list(a)), rel=1e-6)
    blocks = {name: [key for key in a if key.startswith(f"{name}.")] for name in ("layer1.0", "layer2.0")}
    blocks["fc"] = [key for key in a if key.startswith("fc.") or key == "bias2"]
    blocks["stem"] = [key for key in a if not any(key in keys for keys in blocks.values())]
    shares = {name: apart(keys) for name, keys in blocks.items()}
    first = max(shares, key=shares.__getitem__)
    assert f"Relative to their norm in A, {first} ({100 * shares[first]:.1f} %)" in answer.answer


def test_no_module_is_named_where_that_would_mislead() -> None:
    """Of unrelated networks none can be singled out, and of one function none differs."""
    assert comparison_of("unrelated").card["changed_modules"].answer.startswith("None can be singled out")
    assert "no module differs" in comparison_of("permuted").card["changed_modules"].answer
    assert comparison_of("same_weights").card["changed_modules"].value == 0


def test_critical_modules(trained: Trained) -> None:
    """The module that costs most half-way to the other network does so by torch alone, and none does in one basin."""
    assert comparison_of("same_basin").card["critical_modules"].verdict == NO
    answer = comparison_of("unrelated").card["critical_modules"]
    assert answer.verdict == YES
    assert (
        "one at a time with channels in the order of the files, whose mismatch is part of the cost (mean over both models, "
        in answer.answer
    )
    assert "order of the files" not in comparison_of("same_basin").card["critical_modules"].answer
    first = re.search(r"largest for (\S+),", answer.answer)[1]
    names = CASES["unrelated"]
    half = mixed(trained, names, 0.5)
    falls = []
    for name in names:
        own = trained.state(name)
        moved = {
            key: half[key] if key.startswith(f"{first}.") or (first, key) == ("fc", "bias2") else own[key]
            for key in own
        }
        falls.append(judged(trained, own) - judged(trained, moved))
    assert answer.low - 0.03 <= np.mean(falls) <= answer.high + 0.03


@pytest.mark.parametrize("case", ["same_basin", "unrelated", "other_architecture"])
def test_shared_mistakes(case: str, trained: Trained) -> None:
    """Counts are those of the logits, and the overlap is kappa over the largest one with these accuracies."""
    a, b = (right(trained, name).double() for name in CASES[case])
    answer = comparison_of(case).card["shared_mistakes"]
    both = int(((1 - a) * (1 - b)).sum())
    assert f"A makes {int((1 - a).sum())} mistakes" in answer.answer
    assert f"B {int((1 - b).sum())}, {both} of them on the same images" in answer.answer
    p, q = float(a.mean()), float(b.mean())
    agree, by_chance = float((a == b).double().mean()), p * q + (1 - p) * (1 - q)
    kappa, largest = (agree - by_chance) / (1 - by_chance), (1 - abs(p - q) - by_chance) / (1 - by_chance)
    assert answer.value == pytest.approx(kappa / largest)


@pytest.mark.parametrize("case", ["same_basin", "unrelated", "other_architecture"])
def test_replacement(case: str, trained: Trained) -> None:
    """The images that turn wrong are those that the first network alone gets right, and the verdict holds the loss against two points."""
    a, b = (right(trained, name) for name in CASES[case])
    answer = comparison_of(case).card["replacement"]
    lost, won = float((a & ~b).double().mean()), float((b & ~a).double().mean())
    assert answer.value == pytest.approx(lost)
    assert f"{100 * lost:.1f} % (" in answer.answer
    assert f"{100 * won:.1f} % (" in answer.answer
    row = comparison_of(case).tables["replacement"].iloc[0]
    expected = YES if row["accuracy_gain_low"] > -0.02 else NO if row["accuracy_gain_high"] < -0.02 else UNKNOWN
    assert answer.verdict == expected


def test_nothing_breaks_where_both_are_one_function() -> None:
    """Replacing a network by its permuted copy changes no prediction."""
    for case in SAME:
        answer = comparison_of(case).card["replacement"]
        assert answer.answer.startswith("Nothing")
        assert answer.value == 0


def test_what_is_open() -> None:
    """Without images the questions that need them are named, and of two architectures what is not defined."""
    answer = comparison_of("same_basin", False).card["open"].answer
    for words in (
        "one basin",
        "averaging pays",
        "critical",
        "mistakes overlap",
        "replacement",
        "labelled ones would tell",
    ):
        assert words in answer
    answer = comparison_of("other_architecture").card["open"].answer
    assert "no line, no average and no distance" in answer
    assert "FixupResNet and OtherNetwork" in answer
    assert comparison_of("permuted", False).card["open"].answer.startswith("Every question has an answer")


def test_figures_of_answers_are_there(case: str) -> None:
    """Every figure that an answer names can be drawn."""
    comparison = comparison_of(case)
    for name in {answer.figure for answer in comparison.answers if answer.figure}:
        assert comparison.figures[name].axes


def test_json_keeps_everything(case: str) -> None:
    """A card read from its JSON is the same card; missing numbers are null, not NaN."""
    card = comparison_of(case).card
    text = card.to_json()
    assert "NaN" not in text
    again = AnswerCard.from_json(text)
    assert again.to_json() == text
    assert [one.answer for one in again.answers] == [one.answer for one in card.answers]
