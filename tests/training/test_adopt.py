"""A checkpoint file as a run that needs no training."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch

from transferscope.experiment.run import RunSpec
from transferscope.models import build_model
from transferscope.system.errors import UserError
from transferscope.training.adopt import adopt
from transferscope.training.evaluation import evaluate


@pytest.fixture
def adopted(make_run, tmp_path: Path) -> tuple[RunSpec, torch.nn.Module]:
    options = make_run().model
    model = build_model(options.name, 3, seed=3, **options.options)
    torch.save({"state_dict": model.state_dict()}, tmp_path / "mine.pth")
    file = str(tmp_path / "mine.pth")
    names = {"task": "toy", "name": "mine_1", "fingerprint": "f"}
    return RunSpec(**names, initialisation="checkpoint", checkpoint=file, model=options), model


def test_the_weights_and_their_metrics_are_those_of_the_file(adopted, train_split, held_out_split, tmp_path) -> None:
    """The series holds the file's weights as best and final; the history holds what `evaluate` measures."""
    run, model = adopted
    series, history = adopt(run, train_split, held_out_split, folder=tmp_path / "series")
    weights = series.load("final").state_dict
    assert all(torch.equal(weights[key], value) for key, value in model.state_dict().items())
    assert (series.epochs, series.best, series.final, series.fingerprint) == ((1,), 1, 1, "f")
    measured = evaluate(model, held_out_split)
    assert history["test_accuracy"].item() == measured["accuracy"]
    assert history["test_loss"].item() == measured["loss"]


def test_the_series_builds_its_model(adopted, train_split, held_out_split, tmp_path) -> None:
    """A file made elsewhere does not say its architecture; the series does."""
    series, _ = adopt(adopted[0], train_split, held_out_split, folder=tmp_path / "series")
    assert sum(parameter.numel() for parameter in series.load("best").build().parameters()) > 0


def test_another_architecture_is_refused_by_tensor_name(adopted, train_split, held_out_split, tmp_path) -> None:
    """The error names a tensor that does not fit; no series is left."""
    run, _ = adopted
    other = run.model_copy(update={"model": run.model.model_copy(update={"options": {}})})
    with pytest.raises(UserError, match="layer"):
        adopt(other, train_split, held_out_split, folder=tmp_path / "series")
    assert not (tmp_path / "series" / "series.json").exists()


def test_the_same_file_is_recognised(adopted, train_split, held_out_split, tmp_path, monkeypatch) -> None:
    """Nothing is measured again; other images are."""
    run, _ = adopted
    first = adopt(run, train_split, held_out_split, folder=tmp_path / "series")
    calls: list[int] = []
    monkeypatch.setattr("transferscope.training.adopt.evaluate", lambda *a, **k: calls.append(1) or evaluate(*a, **k))
    series, history = adopt(run, train_split, held_out_split, folder=tmp_path / "series")
    assert series == first[0]
    pd.testing.assert_frame_equal(history, first[1])
    assert not calls
    adopt(run, train_split, train_split, folder=tmp_path / "series")
    assert len(calls) == 2


def test_a_stop_while_another_file_is_taken_in_leaves_no_series(
    adopted, train_split, held_out_split, tmp_path, monkeypatch
) -> None:
    """The old index must not stand beside the new weights."""
    run, model = adopted
    adopt(run, train_split, held_out_split, folder=tmp_path / "series")
    torch.save({name: value + 1 for name, value in model.state_dict().items()}, tmp_path / "other.pth")

    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("transferscope.training.adopt.write_series", stop)
    with pytest.raises(KeyboardInterrupt):
        adopt(
            run.model_copy(update={"checkpoint": str(tmp_path / "other.pth")}),
            train_split,
            held_out_split,
            folder=tmp_path / "series",
        )
    assert not (tmp_path / "series" / "series.json").exists()


def test_a_file_of_rounded_weights_is_taken_in(adopted, train_split, held_out_split, tmp_path) -> None:
    """As some networks are distributed."""
    run, model = adopted
    torch.save({name: value.bfloat16() for name, value in model.state_dict().items()}, run.checkpoint)
    series, _ = adopt(run, train_split, held_out_split, folder=tmp_path / "series")
    assert sum(parameter.numel() for parameter in series.load("best").build().parameters()) > 0


def test_a_file_of_the_runs_own_folder_is_refused_and_stays(adopted, train_split, held_out_split, tmp_path) -> None:
    """A run writes its folder anew."""
    run, _ = adopted
    with pytest.raises(UserError, match="lies in the folder that this run writes: copy the file elsewhere first"):
        adopt(run, train_split, held_out_split, folder=Path(run.checkpoint).parent)
    assert Path(run.checkpoint).exists()


def test_a_validation_part_is_measured_too(adopted, make_split, train_split, held_out_split, tmp_path) -> None:
    """So that it stands beside runs whose best epoch was chosen there."""
    validation = make_split(16, part="validation")
    _, history = adopt(adopted[0], train_split, held_out_split, validation_split=validation, folder=tmp_path / "series")
    assert history["validation_loss"].notna().all()


def test_the_series_has_the_names_of_the_architecture(adopted, train_split, held_out_split, tmp_path) -> None:
    """Below a prefix, beside a loss, of an average that an option takes; a sentence of each stays in the metadata."""
    run, model = adopted
    plain = {f"net.{key}": value for key, value in model.state_dict().items()} | {"loss.weight": torch.zeros(2)}
    averaged = {key: value + 1 for key, value in plain.items()}
    torch.save({"model": plain, "model_ema": averaged}, run.checkpoint)
    for weights, offset in ((None, 0), ("model_ema", 1)):
        options = run.model_copy(update={"weights": weights, "fingerprint": str(weights)})
        series, _ = adopt(options, train_split, held_out_split, folder=tmp_path / str(weights))
        taken = series.load("final")
        assert list(taken.state_dict) == list(model.state_dict())
        assert all(torch.equal(taken.state_dict[key], value + offset) for key, value in model.state_dict().items())
        assert "took the tensors below 'net.' and left out 1: loss.weight" in taken.metadata.extra["notes"]
    series, _ = adopt(run.model_copy(update={"prefix": "net"}), train_split, held_out_split, folder=tmp_path / "prefix")
    assert list(series.load("final").state_dict) == list(model.state_dict())
