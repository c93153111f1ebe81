"""Merges on a bench: what they score, on which images, what is kept of them, and what cannot be merged."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.analysis.intervals import paired_difference_interval
from transferscope.analysis.refitting import fit_classifier
from transferscope.claims.merging import with_verdicts
from transferscope.experiment.options import MERGE_METHODS, MergingOptions, PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure.bench import Bench, batches
from transferscope.measure.judging import mean_interval_of_tasks
from transferscope.measure.merging import COLUMNS, merge
from transferscope.models import build_model
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata, load_checkpoint, save_checkpoint
from transferscope.models.merged import MergedModel
from transferscope.models.stored_state import stored_state
from transferscope.system.errors import UserError
from transferscope.system.stored import DamagedError

LAYOUT = {"blocks": [1, 1], "widths": [6, 8], "stem_kernel": 3, "stem_stride": 1}
OPTIONS = MergingOptions(statistics=24, fisher_examples=4, alphas=(0.3, 0.6), scales=(0.4, 0.8), resamples=40)


def checkpoint(
    seed: int, name: str = "fixup_resnet_small", options: dict[str, Any] = LAYOUT, **about: Any
) -> Checkpoint:
    """A network with random weights of which none is zero."""
    model = build_model(name, 3, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        size = tensor[0].numel() ** 0.5 if tensor.dim() > 1 else 10
        state[key] = (noise / size + (tensor.dim() == 1 and not key.endswith("bias"))).to(tensor.dtype)
        if "running_var" in key or "tracked" in key:
            state[key] = tensor.clone()
    return Checkpoint(state, CheckpointMetadata(architecture=name, model_options=options, num_classes=3, **about))


def near(given: Checkpoint, seed: int, spread: float = 0.5) -> Checkpoint:
    """Weights near others, as fine-tuning leaves them."""
    generator = torch.Generator().manual_seed(seed)
    state = {
        key: tensor + spread * torch.randn(tensor.shape, generator=generator) * tensor.std(correction=0)
        if tensor.dim() > 1
        else tensor.clone()
        for key, tensor in given.state_dict.items()
    }
    return replace(given, state_dict=state)


P = checkpoint(0)
A, B = near(P, 1), near(P, 2)


def logits_of(given: Checkpoint, of: PackedSplit) -> tuple[Tensor, Tensor]:
    """By torch alone."""
    model = given.build()
    images = batches(of)
    assert isinstance(images, list)
    with torch.no_grad():
        return torch.cat([model(inputs) for inputs, _ in images]), torch.cat([labels for _, labels in images])


def split(
    task: str, part: str, count: int, *, multi_label: bool = False, classes: tuple[str, ...] = ("a", "b", "c")
) -> PackedSplit:
    """Noise, labelled by A for the first task and by B for the other, with some labels at random."""
    generator = np.random.default_rng([count, len(task), len(part)])
    images = generator.integers(0, 255, (count, 3, 8, 8), dtype=np.uint8)
    info = SplitInfo(task, part, classes, multi_label, True, PictureOptions(store_size=8), f"{task}{part}{count}")
    sizes = np.full((count, 2), 8, dtype=np.int32)
    names = [f"{part}/{index}" for index in range(count)]
    unlabelled = PackedSplit(info, images, np.zeros(count, dtype=np.int64), names, sizes)
    scores = logits_of(A if task == "one" else B, unlabelled)[0]
    scores = (scores - scores.mean(0)) / scores.std(0)
    if multi_label:
        labels = (scores + 0.5 * torch.from_numpy(generator.normal(size=tuple(scores.shape))) > 0).long()
        labels[::7, 0] = -1
        return PackedSplit(info, images, labels.numpy().astype(np.int8), names, sizes)
    labels = torch.from_numpy(
        np.where(generator.random(count) < 0.2, generator.integers(0, 3, count), scores.argmax(1))
    )
    return PackedSplit(info, images, labels.numpy(), names, sizes)


def bench(task: str = "one", parts: Mapping[str, int] = {"train": 30, "test": 60}, **options: Any) -> Bench:
    return Bench({part: split(task, part, count, **options) for part, count in parts.items()})


BENCHES = [bench(), bench("other")]
CANDIDATES = {"one.pt_1@final": A, "other.pt_1@final": B}


@pytest.fixture(scope="module")
def merging():
    """All methods on two tasks, with a parent and a model trained on both."""
    return merge(BENCHES, CANDIDATES, OPTIONS, parent=P, union=near(A, 5, 0.2))


def rows(table: pd.DataFrame, **values: Any) -> pd.DataFrame:
    for column, value in values.items():
        table = table[table[column] == value]
    return table


def judged(images: Bench) -> PackedSplit:
    """The images that judge, from those that choose: the first part of one permutation of the test images."""
    from transferscope.experiment.seeds import derive_seed

    test = images.split("test")
    order = np.random.default_rng(derive_seed(test.name, "merging", "choice")).permutation(len(test))
    return test.subset(np.sort(order[18:]))


def right(given: Checkpoint, images: Bench) -> np.ndarray:
    logits, labels = logits_of(given, judged(images))
    return (logits.argmax(1) == labels).numpy()


def test_table(merging: Any) -> None:
    """A row per model and task and one for their mean; all methods; one candidate and one merge are chosen."""
    table = merging.table
    assert tuple(table.columns) == COLUMNS
    assert list(rows(table, kind="merge", task="all")["model"]) == list(MERGE_METHODS)
    assert len(table) == 3 * (len(MERGE_METHODS) + 4)
    assert len(rows(table, task="all", chosen=True)) == 2
    best = rows(table, kind="merge", task="all").sort_values("choice_value", ascending=False, kind="stable").iloc[0]
    assert best["chosen"]
    assert best["model"] == merging.card["method"]
    assert (rows(table, task="one")[["num_choice", "num_examples"]] == [18, 42]).all().all()
    assert (rows(table, task="all")[["num_choice", "num_examples"]] == [36, 84]).all().all()


def test_scores_are_those_of_the_judging_images(merging: Any) -> None:
    """Value, gain and its interval of the uniform soup are those of torch alone on the images that do not choose."""
    soup = replace(A, state_dict={key: (A.state_dict[key] + B.state_dict[key]) / 2 for key in A.state_dict})
    best = rows(merging.table, kind="candidate", task="all", chosen=True)["model"].iloc[0]
    gains = []
    for images in BENCHES:
        row = rows(merging.table, task=images.task, model="uniform").iloc[0]
        own, other = right(soup, images), right(CANDIDATES[best], images)
        assert row["value"] == pytest.approx(own.mean())
        low, high = paired_difference_interval((own & ~other).sum(), (other & ~own).sum(), len(own))
        assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx((own.mean() - other.mean(), low, high))
        gains.append((row["gain"], row["gain_low"], row["gain_high"]))
        sum_of_logits = sum(logits_of(one, judged(images))[0] for one in (A, B))
        ensemble = (sum_of_logits.argmax(1) == logits_of(A, judged(images))[1]).double().mean()
        assert rows(merging.table, task=images.task, model="ensemble")["value"].iloc[0] == pytest.approx(
            float(ensemble)
        )
    row = rows(merging.table, task="all", model="uniform").iloc[0]
    assert (row["gain"], row["gain_low"], row["gain_high"]) == pytest.approx(mean_interval_of_tasks(gains))
    union = rows(merging.table, task="all", model="union")["value"].iloc[0]
    assert row["behind_union"] == pytest.approx(union - row["value"])


def test_mean_interval_of_tasks() -> None:
    """For normal intervals it is that of the mean of independent numbers: widths add up in squares."""
    value, low, high = mean_interval_of_tasks([(0.3, 0.3 - 0.03, 0.3 + 0.03), (0.5, 0.5 - 0.04, 0.5 + 0.04)])
    assert (value, low, high) == pytest.approx((0.4, 0.4 - 0.025, 0.4 + 0.025))
    assert mean_interval_of_tasks([(0.1, 0.0, 0.3)]) == pytest.approx((0.1, 0.0, 0.3))


def test_choice_and_judgement_use_different_images() -> None:
    """Other labels of the judging images change scores alone, and other labels of the choosing images what is chosen."""
    options = OPTIONS.model_copy(update={"methods": ("greedy", "wise_ft", "task_arithmetic", "ties")})
    given = bench()
    whole = given.split("test")
    judging = {name: place for place, name in enumerate(whole.example_ids)}
    places = [judging[name] for name in judged(given).example_ids]

    def relabelled(chosen: list[int]) -> Bench:
        labels = np.array(whole.labels)
        labels[chosen] = (labels[chosen] + 1) % 3
        return Bench(
            {
                "train": given.split("train"),
                "test": PackedSplit(whole.info, whole.images, labels, whole.example_ids, whole.source_sizes),
            }
        )

    first = merge([given], CANDIDATES, options, parent=P).table
    scores = merge([relabelled(places)], CANDIDATES, options, parent=P).table
    assert scores["setting"].tolist() == first["setting"].tolist()
    assert scores["chosen"].tolist() == first["chosen"].tolist()
    assert scores["choice_value"].tolist() == first["choice_value"].tolist()
    assert scores["value"].tolist() != first["value"].tolist()
    others = [place for place in range(len(whole)) if place not in places]
    choices = merge([relabelled(others)], CANDIDATES, options, parent=P).table
    assert choices["choice_value"].tolist() != first["choice_value"].tolist()
    kept = choices["kind"] == "candidate"
    assert choices[kept]["value"].tolist() == first[kept]["value"].tolist()


def test_validation_images_choose() -> None:
    """Where there are validation images they choose, and every test image judges."""
    given = bench(parts={"train": 30, "test": 40, "validation": 20})
    table = merge([given], CANDIDATES, OPTIONS, methods=["uniform"]).table
    assert (table["num_choice"] == 20).all()
    assert (table["num_examples"] == 40).all()
    logits, labels = logits_of(A, given.split("validation"))
    assert table["choice_value"].iloc[0] == pytest.approx(float((logits.argmax(1) == labels).double().mean()))


def test_equal_candidates_stay_themselves() -> None:
    """Merging a network with itself gives its very scores, a gain of 0, and no verdict that it pays."""
    table = with_verdicts(
        merge([bench()], {"a": A, "b": A}, OPTIONS, methods=["uniform", "greedy", "fisher", "regmean", "aligned"]).table
    )
    assert table["value"].nunique() == 1
    assert (table["gain"].dropna() == 0).all()
    assert set(rows(table, kind="merge")["verdict"]) == {"cannot tell"}


def test_verdicts() -> None:
    """A merge pays where its interval lies above 0, does not where it lies at or below 0, and else one cannot tell."""
    bounds = [(0.01, 0.05), (-0.05, -0.01), (-0.05, 0.0), (-0.01, 0.02), (np.nan, np.nan), (0.01, 0.05)]
    kinds = ["merge"] * 5 + ["ensemble"]
    table = pd.DataFrame(
        [
            {"kind": kind, "gain": (low + high) / 2, "gain_low": low, "gain_high": high}
            for kind, (low, high) in zip(kinds, bounds, strict=True)
        ]
    )
    expected = ["pays", "does not pay", "does not pay", "cannot tell", "cannot tell", ""]
    assert with_verdicts(table)["verdict"].tolist() == expected
    assert with_verdicts(table.iloc[:0]).columns.tolist() == ["kind", "gain", "gain_low", "gain_high", "verdict"]


def test_a_parents_classifier_of_other_classes_takes_no_part() -> None:
    """Where the parent names as many other classes its classifier has the right shape; the merge has the candidates'."""
    options = OPTIONS.model_copy(update={"alphas": (0.5,)})
    mean = (A.state_dict["fc.weight"] + B.state_dict["fc.weight"]) / 2
    for names, own in (("a", "b", "c"), False), (("x", "y", "z"), True):
        parent = replace(P, metadata=replace(P.metadata, class_names=names))
        merged = merge([bench()], CANDIDATES, options, methods=["wise_ft"], parent=parent).checkpoint.state_dict
        assert torch.allclose(merged["fc.weight"], mean) == own
        expected = (
            P.state_dict["conv1.weight"] + (A.state_dict["conv1.weight"] + B.state_dict["conv1.weight"]) / 2
        ) / 2
        assert torch.allclose(merged["conv1.weight"], expected, atol=1e-6)


def test_findings_are_judged_by_auc() -> None:
    """With several labels an image the metric is the mean AUC, with intervals from resamples; unknown labels do not count."""
    from sklearn.metrics import roc_auc_score

    given = bench(multi_label=True)
    table = merge([given], CANDIDATES, OPTIONS, methods=["uniform", "fisher"]).table
    assert set(table["metric"]) == {"auc"}
    logits, labels = logits_of(A, judged(given))
    known = labels != -1
    expected = np.mean([roc_auc_score(labels[known[:, k], k], logits[known[:, k], k]) for k in range(3)])
    row = table.iloc[0]
    assert row["value"] == pytest.approx(expected)
    assert row["value_low"] < row["value"] < row["value_high"]
    assert 0 <= table["refitted"].dropna().min() <= table["refitted"].dropna().max() <= 1


def test_statistics_of_batchnorm_are_recomputed() -> None:
    """A merge is measured, and kept, with the statistics of training images, as one pass over them gives them."""
    one = checkpoint(3, "shufflenet_v2_x0_5", {})
    two = near(one, 4, 0.1)
    given = bench()
    merging = merge([given], {"a": one, "b": two}, OPTIONS.model_copy(update={"statistics": 30}), methods=["uniform"])
    mean = {
        key: (tensor + two.state_dict[key]) / 2 if tensor.is_floating_point() else tensor
        for key, tensor in one.state_dict.items()
    }
    model = replace(one, state_dict=mean).build()
    recompute_statistics(model, batches(given.split("train")))
    state = merging.checkpoint.state_dict
    for key, tensor in model.state_dict().items():
        assert torch.allclose(state[key].float(), tensor.float(), atol=1e-4), key
    assert merging.card["batchnorm"] == "recomputed on training images"


class Watched(Mapping[str, Checkpoint]):
    """Checkpoints that are read when they are asked for; counts how often, and how many of them live at once."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files, self.read, self.most = files, list[str](), 0
        self.alive: list[weakref.ref[Tensor]] = []

    def __getitem__(self, name: str) -> Checkpoint:
        gc.collect()
        checkpoint = load_checkpoint(self.files[name])
        self.read.append(name)
        self.alive.append(weakref.ref(checkpoint.state_dict["conv1.weight"]))
        self.most = max(self.most, sum(one() is not None for one in self.alive))
        return checkpoint

    def __iter__(self) -> Iterator[str]:
        return iter(self.files)

    def __len__(self) -> int:
        return len(self.files)


def test_candidates_in_files_are_read_one_at_a_time(tmp_path: Path) -> None:
    """Each checkpoint is asked for once, none lives when the next one is read, and the result is that of all in memory."""
    files = {}
    for place in range(4):
        files[f"soup_{place}"] = tmp_path / f"{place}.safetensors"
        save_checkpoint(near(P, place, 0.3), files[f"soup_{place}"])
    watched = Watched(files)
    methods = ["uniform", "greedy", "ties", "fisher", "regmean"]
    lazy = merge([bench()], watched, OPTIONS, methods=methods, parent=P)
    assert watched.read == list(files)
    assert watched.most == 1
    whole = merge(
        [bench()], {name: near(P, place, 0.3) for place, name in enumerate(files)}, OPTIONS, methods=methods, parent=P
    )
    pd.testing.assert_frame_equal(lazy.table, whole.table)
    assert all(
        torch.equal(lazy.checkpoint.state_dict[key], value) for key, value in whole.checkpoint.state_dict.items()
    )


def test_stored_state_is_what_analyses_see(tmp_path: Path) -> None:
    """A file with these very tensors is read in place; one in half precision, or whose weights were changed, is copied."""
    save_checkpoint(A, tmp_path / "a.safetensors")
    given = load_checkpoint(tmp_path / "a.safetensors")
    scratch = tmp_path / "scratch.pt"
    state = stored_state(given, scratch)
    assert not scratch.exists()
    assert list(state) == list(A.state_dict)
    assert all(torch.equal(state[key], value) for key, value in A.state_dict.items())
    changed = stored_state(replace(given, state_dict=B.state_dict), scratch)
    assert all(torch.equal(changed[key], value) for key, value in B.state_dict.items())
    half = replace(A, state_dict={key: value.half() for key, value in A.state_dict.items()})
    save_checkpoint(half, tmp_path / "half.safetensors")
    wide = stored_state(load_checkpoint(tmp_path / "half.safetensors"), tmp_path / "wide.pt")
    assert {value.dtype for value in wide.values()} == {torch.float32}


def test_kept_model_can_be_used_again(merging: Any, tmp_path: Path) -> None:
    """The chosen merge and its card are read as they were written, score what the card says, and are merged once more."""
    MergedModel(merging.card, merging.checkpoint).save(tmp_path / "merged")
    assert MergedModel.is_whole(tmp_path / "merged")
    again = MergedModel.open(tmp_path / "merged")
    assert again.checkpoint is not None
    assert again.card == merging.card
    score = again.card["scores"]["one"]["value"]
    assert right(again.checkpoint, BENCHES[0]).mean() == pytest.approx(score, abs=1e-9)
    assert {one["name"] for one in again.card["candidates"]} == set(CANDIDATES)
    twice = merge(
        [bench()],
        {"merged": load_checkpoint(tmp_path / "merged" / "merged.safetensors"), "a": A},
        OPTIONS,
        methods=["uniform"],
    )
    assert len(twice.table) == 4
    card = tmp_path / "merged" / "card.json"
    card.write_text(card.read_text().replace("candidates", "candidatez"))
    assert not MergedModel.is_whole(tmp_path / "merged")
    with pytest.raises(DamagedError, match=r"card\.json"):
        MergedModel.open(tmp_path / "merged")


def test_computed_weights_are_merged(tmp_path: Path) -> None:
    """Layers that standardise their weight are merged by the weight that they apply, and the kept file computes that."""
    options = {"channels": (8, 16, 16, 16), "depths": (1, 1, 1, 1), "stem_chs": 8, "group_size": 4}
    one = checkpoint(3, "timm/nf_resnet26", options)
    two = near(one, 4, 0.3)
    merging = merge([bench()], {"a": one, "b": two}, OPTIONS, methods=["uniform"])
    save_checkpoint(merging.checkpoint, tmp_path / "merged.safetensors")
    again = load_checkpoint(tmp_path / "merged.safetensors")
    from transferscope.models.parametrised import analysed_model, analysed_state

    model = analysed_model(one)
    mean = {key: (tensor + analysed_state(two)[key]) / 2 for key, tensor in analysed_state(one).items()}
    model.load_state_dict(mean)
    images, _ = next(iter(batches(judged(bench()))))  # type: ignore[arg-type]
    with torch.no_grad():
        expected, computed, analysed = model(images), again.build()(images), analysed_model(again)(images)
    assert torch.allclose(computed, expected, atol=1e-4 * float(expected.abs().max()))
    assert torch.allclose(analysed, expected, atol=1e-4 * float(expected.abs().max()))
    with pytest.raises(UserError, match=r"missing: stem\.conv\.gain"):
        replace(again, metadata=replace(again.metadata, extra={})).build()


def test_faults_are_named() -> None:
    """What cannot be merged is one clear line with the fix."""
    other = checkpoint(1, options=LAYOUT | {"widths": [6, 10]})
    broken = replace(B, state_dict=B.state_dict | {"fc.bias": torch.full((3,), float("inf"))})
    named = replace(A, metadata=replace(A.metadata, class_names=("a", "b", "c")))
    others = replace(B, metadata=replace(B.metadata, class_names=("x", "y", "z")))
    blind = Bench({"test": split("one", "test", 60)})
    normalised = checkpoint(3, "shufflenet_v2_x0_5", {})
    for given, candidates, options, message in (
        ([bench()], {}, {}, "nothing to merge"),
        ([bench()], {"a": A}, {}, "one candidate has nothing to be merged with"),
        ([bench()], {"a": A}, {"parent": P, "methods": ["uniform"]}, "uniform: one candidate"),
        ([bench()], {"a": A, "b": B}, {"methods": ["ties"]}, "ties: starts from the parent"),
        (
            [bench()],
            {"a": A, "b": other},
            {},
            "a is a fixup_resnet_small .* and b a fixup_resnet_small .*: merge models of one",
        ),
        ([bench()], {"a": A, "b": broken}, {}, "b has non-finite weights in fc.bias"),
        ([bench()], {"a": named, "b": others}, {}, "a and b name different classes"),
        ([bench()], {"a": A, "b": B}, {"parent": checkpoint(9)}, "is no parent of candidate 1"),
        ([], {"a": A, "b": B}, {}, "no images to judge a merge by"),
        ([blind], {"a": A, "b": B}, {"methods": ["fisher"]}, "Fisher information needs training images of one"),
        ([blind], {"a": A, "b": B}, {"methods": ["regmean"]}, "RegMean needs training images"),
        (
            [blind],
            {"a": normalised, "b": normalised},
            {"methods": ["uniform"]},
            "statistics of BatchNorm needs training images",
        ),
        (
            [bench(), bench("other", classes=("a", "b", "d"))],
            {"a": A, "b": B},
            {},
            "one and other have different classes",
        ),
        (
            [bench("other", multi_label=True), bench()],
            {"a": A, "b": B},
            {},
            "images of one have one label each and those of other several: judge a merge on tasks of one kind",
        ),
        ([bench(parts={"test": 1})], {"a": A, "b": B}, {}, "1 test images: too few"),
    ):
        with pytest.raises(UserError, match=message):
            merge(given, candidates, OPTIONS, **options)  # type: ignore[arg-type]


def test_without_training_images_what_needs_none_is_merged() -> None:
    """A network without BatchNorm is merged and judged by test images alone; no classifier is refitted then."""
    blind = Bench({"test": split("one", "test", 60)})
    table = merge([blind], CANDIDATES, OPTIONS, methods=["uniform", "greedy", "aligned"]).table
    assert len(table) == 6
    assert table["refitted"].isna().all()


def test_refitted_classifier() -> None:
    """It separates what a linear map separates, never predicts an absent class, and leaves a constant finding at 0."""
    generator = np.random.default_rng(0)
    features = generator.normal(size=(200, 5)) * [1, 10, 0.1, 1, 0] + [3, 0, 0, 0, 2]
    labels = np.where(features[:, 0] + features[:, 1] / 10 > 3, 3, 1)
    classifier = fit_classifier(features, labels, 4)
    logits = classifier.logits(features)
    assert (logits.argmax(axis=1) == labels).mean() > 0.97
    assert np.isneginf(logits[:, [0, 2]]).all()
    findings = np.stack([labels == 3, np.ones(200), np.where(labels == 3, -1, 0)], axis=1).astype(int)
    several = fit_classifier(features, findings, 3, multi_label=True).logits(features)
    assert ((several[:, 0] > 0) == (labels == 3)).mean() > 0.97
    assert (several[:, 1:] == 0).all()
    assert (fit_classifier(features, np.full(200, 2), 4).logits(features).argmax(axis=1) == 2).all()
    with pytest.raises(UserError, match="as many of each"):
        fit_classifier(features[:0], labels[:0], 4)
