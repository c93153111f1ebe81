"""Ways between two checkpoints: planted truths, other formulations, memory of results, impossible ways."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import transferscope.measure.ways as ways_module
from transferscope.analysis.alignment import permutation_groups, permute
from transferscope.analysis.batchnorm import recompute_statistics
from transferscope.analysis.connection import fit_temperature
from transferscope.analysis.evaluator import Evaluator
from transferscope.analysis.interpolation import interpolate
from transferscope.experiment.options import ConnectionOptions, PictureOptions
from transferscope.images.split import PackedSplit, SplitInfo
from transferscope.measure.bench import Bench, batches
from transferscope.measure.connection import BARRIER_COLUMNS, MODULE_COLUMNS, POINT_COLUMNS, connect
from transferscope.models import build_model
from transferscope.models.checkpoint import Checkpoint, CheckpointMetadata
from transferscope.system.errors import UserError

LAYOUT = {"blocks": [1, 1], "widths": [6, 8], "stem_kernel": 3, "stem_stride": 1}
LINES = ("straight", "rescaled", "aligned", "aligned_rescaled", "aligned_repaired", "curve", "aligned_curve")
OPTIONS = ConnectionOptions.model_validate({"curve": {"epochs": 2, "batch_size": 16}, "statistics": 48})


def checkpoint(seed: int, name: str = "fixup_resnet_small", options: dict[str, Any] | None = None) -> Checkpoint:
    """Random weights of which none is zero, small enough for logits of size 1."""
    options = LAYOUT if options is None else options
    model = build_model(name, 3, seed=seed, **options)
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for key, tensor in model.state_dict().items():
        noise = torch.randn(tensor.shape, generator=generator)
        if tensor.dim() > 1:
            state[key] = noise / tensor[0].numel() ** 0.5
        else:
            state[key] = (0.1 * noise + ("var" in key or "scale" in key or key.endswith("weight"))).to(tensor.dtype)
    metadata = CheckpointMetadata(architecture=name, model_options=options, num_classes=3)
    return Checkpoint(state, metadata)


A, B = checkpoint(1), checkpoint(2)


def permuted(given: Checkpoint) -> Checkpoint:
    """The same function with all channels in another order."""
    groups = permutation_groups(given.build(), torch.randn(1, 3, 8, 8))
    return Checkpoint(permute(groups, groups.random(3), given.state_dict), given.metadata)


def logits_of(state: dict[str, Tensor], of: PackedSplit) -> tuple[Tensor, Tensor]:
    """By torch alone, without the bench's evaluator."""
    model = Checkpoint(state, A.metadata).build()
    given = batches(of)
    assert isinstance(given, list)
    with torch.no_grad():
        return torch.cat([model(images) for images, _ in given]), torch.cat([labels for _, labels in given])


def split(part: str, count: int, *, multi_label: bool = False) -> PackedSplit:
    """Noise in 8 by 8 pixels, with labels about which both A and B know something."""
    generator = np.random.default_rng([count, part == "train"])
    images = generator.integers(0, 255, (count, 3, 8, 8), dtype=np.uint8)
    info = SplitInfo("toy", part, ("a", "b", "c"), multi_label, True, PictureOptions(store_size=8), f"{part}{count}")
    sizes = np.full((count, 2), 8, dtype=np.int32)
    names = [f"{part}/{index}" for index in range(count)]
    unlabelled = PackedSplit(info, images, np.zeros(count, dtype=np.int64), names, sizes)
    scores = sum(logits_of(end.state_dict, unlabelled)[0] for end in (A, B))
    scores = 3 * (scores - scores.mean(0)) / scores.std(0)
    draws = torch.Generator().manual_seed(count)
    if multi_label:
        labels = torch.bernoulli(scores.sigmoid(), generator=draws)
        labels[torch.rand(labels.shape, generator=draws) < 0.1] = -1
        return PackedSplit(info, images, labels.numpy().astype(np.int8), names, sizes)
    labels = torch.multinomial(scores.softmax(1), 1, generator=draws)[:, 0]
    return PackedSplit(info, images, labels.numpy(), names, sizes)


def bench(*, multi_label: bool = False, resamples: int = 20) -> Bench:
    """Fresh, without any result."""
    parts = {"train": split("train", 48, multi_label=multi_label), "test": split("test", 30, multi_label=multi_label)}
    return Bench(parts, resamples=resamples)


@pytest.fixture(scope="module")
def connection():
    """All ways between two networks."""
    return connect(bench(), A, B, (*LINES, "tempered", "modules", "aligned_modules"), options=OPTIONS)


def values(table, way: str, metric: str, part: str = "test") -> list[float]:
    rows = table[(table["way"] == way) & (table["metric"] == metric) & (table["split"] == part)]
    return rows.sort_values("alpha")["value"].tolist()


@pytest.mark.parametrize("name", ["fixup_resnet_small", "resnet18"])
def test_planted_permutation(name: str) -> None:
    """Between a network and itself in another order of channels, aligned ways are as good as the ends everywhere."""
    a = checkpoint(1, name, None if name.startswith("fixup") else {})
    ways = ("aligned", "aligned_rescaled", *(("aligned_repaired",) if name.startswith("fixup") else ()))
    connection = connect(bench(), a, permuted(a), ways, options=OPTIONS)
    assert connection.barriers.query("way == 'aligned'")["moved"].iloc[0] > 0.5
    for part in ("train", "test"):
        end = values(connection.points, "straight", "loss", part)[0]
        assert np.ptp([*values(connection.points, "straight", "loss", part)]) > 1e-3
        for way in ways:
            assert values(connection.points, way, "loss", part) == pytest.approx([end] * 5, rel=1e-4)


def test_straight_line(connection) -> None:
    """The straight way has the loss and accuracy of interpolated weights, evaluated by torch alone."""
    for part in ("train", "test"):
        for metric in ("loss", "accuracy"):
            expected = []
            for alpha in (0, 0.25, 0.5, 0.75, 1):
                logits, labels = logits_of(interpolate(A.state_dict, B.state_dict, alpha), bench().split(part))
                right = (logits.argmax(1) == labels).float().mean()
                expected.append(float(F.cross_entropy(logits, labels) if metric == "loss" else right))
            assert values(connection.points, "straight", metric, part) == pytest.approx(expected, rel=1e-5)


def test_tempered_line(connection) -> None:
    """Its temperature is that of the training images, its test loss the one at that temperature."""
    state = interpolate(A.state_dict, B.state_dict, 0.25)
    temperature = fit_temperature(*logits_of(state, bench().split("train")))
    logits, labels = logits_of(state, bench().split("test"))
    assert values(connection.points, "tempered", "temperature", "train")[1] == pytest.approx(temperature.value)
    loss = float(F.cross_entropy(logits.double() / temperature.value, labels))
    assert values(connection.points, "tempered", "loss")[1] == pytest.approx(loss)


def test_ends_are_shared(connection) -> None:
    """Every way begins and ends at the checkpoints themselves."""
    for way in LINES:
        curve = values(connection.points, way, "loss")
        straight = values(connection.points, "straight", "loss")
        assert (curve[0], curve[-1]) == (straight[0], straight[-1])


def test_profiles_end_in_the_middle(connection) -> None:
    """All modules half-way is the middle of the line, so the last cumulative drop is minus its gain, interval and all."""
    profiles = connection.modules.query("way == 'modules' and profile == 'cumulative' and split == 'test'")
    last = profiles[profiles["module"] == "fc"].set_index("metric")
    straight = connection.barriers.query("way == 'straight' and split == 'test'").set_index("metric")
    for metric in ("accuracy", "loss"):
        assert last["drop"][metric] == pytest.approx(-straight["midpoint_gain"][metric], abs=1e-6)
        ends = [-straight["gain_high"][metric], -straight["gain_low"][metric]]
        assert last.loc[metric, ["low", "high"]].tolist() == pytest.approx(ends, abs=1e-6)
    assert ((last["low"] <= last["drop"] + 1e-9) & (last["drop"] <= last["high"] + 1e-9)).all()
    whole = connection.modules.query("way == 'aligned_modules' and profile == 'cumulative' and module == 'fc'")
    aligned = connection.barriers.query("way == 'aligned' and split == 'test' and metric == 'loss'")
    drop = whole.query("split == 'test' and metric == 'loss'")["drop"].item()
    assert drop == pytest.approx(-aligned["midpoint_gain"].item(), abs=1e-5)


def test_curve_is_trained() -> None:
    """With more epochs the curve's training loss half-way falls below the straight line's."""
    options = OPTIONS.model_copy(update={"curve": OPTIONS.curve.model_copy(update={"epochs": 30})})
    points = connect(bench(), A, B, ("curve",), options=options).points
    assert values(points, "curve", "loss", "train")[2] < 0.9 * values(points, "straight", "loss", "train")[2]


def test_several_labels() -> None:
    """With findings that may be unknown all ways have an AUC, too, and a temperature for all of them."""
    ways = ("tempered", "aligned_rescaled", "curve", "modules")
    connection = connect(bench(multi_label=True), A, B, ways, options=OPTIONS)
    assert set(connection.points.query("way == 'curve'")["metric"]) == {"accuracy", "loss", "auc"}
    assert connection.points.query("metric != 'temperature'")["value"].notna().all()
    assert set(connection.modules["metric"]) == {"accuracy", "loss", "auc"}


def test_batchnorm_statistics() -> None:
    """Every point of a network with BatchNorm is measured with the statistics of the training images."""
    a, b = (checkpoint(seed, "resnet18", {}) for seed in (1, 2))
    one = bench(resamples=0)
    points = connect(one, a, b, ("straight",), options=OPTIONS).points
    model = Checkpoint(interpolate(a.state_dict, b.state_dict, 0.5), a.metadata).build()
    recompute_statistics(model, batches(one.split("train")))
    logits, labels = Evaluator(batches(one.split("test"))).logits_and_labels(model)
    assert values(points, "straight", "loss")[2] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)


def test_tables(connection) -> None:
    """The tables have their columns, the part of the barrier that the straight line leaves is all of it or unknown."""
    assert tuple(connection.points.columns) == POINT_COLUMNS
    assert tuple(connection.barriers.columns) == BARRIER_COLUMNS
    assert tuple(connection.modules.columns) == MODULE_COLUMNS
    assert set(connection.barriers.query("way == 'straight'")["left"].dropna()) <= {1.0}
    sizes = connection.points.groupby("split")["num_examples"].unique()
    assert (sizes["train"].tolist(), sizes["test"].tolist()) == ([48], [30])


def test_nothing_is_done_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """A second call with the same store computes nothing; after a kill it goes on where the first one ended."""
    passes = {"count": 0}
    forward = Evaluator.logits_and_labels

    def counted(self, model):
        passes["count"] += 1
        return forward(self, model)

    monkeypatch.setattr(Evaluator, "logits_and_labels", counted)
    expected = connect(bench(), A, B, options=OPTIONS)
    whole, passes["count"] = passes["count"], 0

    killed = bench()
    with monkeypatch.context() as patch:
        patch.setattr(ways_module, "train_curve", _interrupted)
        with pytest.raises(KeyboardInterrupt):
            connect(killed, A, B, options=OPTIONS)
    assert 0 < passes["count"] < whole
    connect(killed, A, B, options=OPTIONS)
    assert passes["count"] == whole

    for name in ("train_curve", "match_weights", "permutation_groups", "CorrectedLine"):
        monkeypatch.setattr(ways_module, name, _interrupted)
    again = connect(killed, A, B, options=OPTIONS)
    assert passes["count"] == whole
    for table in ("points", "barriers", "modules"):
        assert getattr(again, table).equals(getattr(expected, table))


def test_networks_with_a_common_past_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a network and itself with noise, as between two P-T, no channel moves: aligned ways are the plain ones.

    They change by nothing, so by less than a point, and take no passes of their own.
    """
    draws = torch.Generator().manual_seed(4)
    noisy = {
        key: value + 0.1 * float(value.std(correction=0)) * torch.randn(value.shape, generator=draws)
        for key, value in A.state_dict.items()
    }
    b, passes = Checkpoint(noisy, A.metadata), {"count": 0}
    original = Evaluator.logits_and_labels

    def counted(self: Evaluator, model: Any) -> Any:
        passes["count"] += 1
        return original(self, model)

    monkeypatch.setattr(Evaluator, "logits_and_labels", counted)
    one, counts = bench(), []
    for ways in (("straight", "rescaled", "curve"), ("aligned", "aligned_rescaled", "aligned_curve")):
        connection = connect(one, A, b, ways, options=OPTIONS)
        counts.append(passes["count"])
    assert set(connection.barriers["moved"].dropna()) == {0.0}
    plain = connect(one, A, b, ("straight", "rescaled", "curve"), options=OPTIONS).points
    for way, same in (("aligned", "straight"), ("aligned_rescaled", "rescaled"), ("aligned_curve", "curve")):
        assert values(connection.points, way, "accuracy") == values(plain, same, "accuracy")
    assert counts[0] == counts[1] > 0


def _interrupted(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_impossible_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ways that the network does not allow are left out with the reason; without any way it is an error."""

    def refuse(*_: object) -> None:
        raise UserError("Net has no channels that can be permuted: aten.sort could not be followed")

    monkeypatch.setattr(ways_module, "permutation_groups", refuse)
    connection = connect(bench(), A, B, ("aligned", "aligned_curve", "rescaled"), options=OPTIONS)
    assert set(connection.left_out) == {"aligned", "aligned_curve"}
    assert "aten.sort" in connection.left_out["aligned"]
    assert set(connection.points["way"]) == {"straight", "rescaled"}
    with pytest.raises(UserError, match=r"no way is possible.*aten\.sort"):
        connect(bench(), A, B, ("aligned",), options=OPTIONS)


def test_a_temperature_at_its_bound_is_reported(caplog: pytest.LogCaptureFixture) -> None:
    """Where all training images are right there is no best temperature: the log names the point, its loss is missing."""
    parts = {"train": split("train", 48), "test": split("test", 30)}
    right = logits_of(A.state_dict, parts["train"])[0].argmax(1).numpy()
    train = parts["train"]
    parts["train"] = PackedSplit(train.info, train.images, right, train.example_ids, train.source_sizes)
    with caplog.at_level("INFO"):
        points = connect(Bench(parts, resamples=0), A, B, ("tempered",), options=OPTIONS).points
    assert np.isnan(values(points, "tempered", "temperature", "train")[0])
    assert np.isnan(values(points, "tempered", "loss")[0])
    assert not np.isnan(values(points, "tempered", "loss")[-1])
    message = next(message for message in caplog.messages if "no temperature" in message)
    assert "no temperature at alpha 0: all training images are predicted rightly there" in message


def test_bad_input() -> None:
    """Other architectures, other numbers of classes and weights that are no numbers are refused in one line."""
    with pytest.raises(UserError, match="not weights of one architecture"):
        connect(bench(), A, checkpoint(1, options={**LAYOUT, "widths": [6, 10]}), options=OPTIONS)
    wide = Checkpoint({**A.state_dict, "fc.weight": torch.zeros(4, 8), "fc.bias": torch.zeros(4)}, A.metadata)
    with pytest.raises(UserError, match=r"fc\.weight \(3, 8\) in .* but \(4, 8\)"):
        connect(bench(), A, wide, options=OPTIONS)
    broken = Checkpoint({**A.state_dict, "fc.bias": torch.full((3,), torch.nan)}, A.metadata)
    with pytest.raises(UserError, match=r"non-finite weights in fc\.bias"):
        connect(bench(), A, broken, options=OPTIONS)
    with pytest.raises(ValueError, match=r"0, 0\.5 and 1"):
        ConnectionOptions.model_validate({"alphas": {"points": 4}})


def test_the_straight_line_has_no_temperature_of_its_own() -> None:
    """Only the way tempered has a temperature and a loss at it, also where it is not asked for."""
    connection = connect(bench(resamples=0), A, B, ("straight",), options=OPTIONS)
    assert set(connection.points["metric"]) == set(connection.barriers["metric"]) == {"accuracy", "loss"}


def test_the_permutation_of_aligned_modules_is_returned() -> None:
    """A profile is no line, but it aligns b all the same."""
    connection = connect(bench(resamples=0), A, permuted(A), ("aligned_modules",), options=OPTIONS)
    assert connection.permutation is not None
    assert connection.permutation.moved > 0.5


def test_without_the_straight_line_there_is_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its reason is the error, since every other way is compared with it."""

    def refuse(*_: object) -> None:
        raise UserError("these weights cannot be measured")

    monkeypatch.setattr(ways_module, "interpolate", refuse)
    with pytest.raises(UserError, match=r"^these weights cannot be measured"):
        connect(bench(resamples=0), A, B, options=OPTIONS)
