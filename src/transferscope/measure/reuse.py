"""Feature reuse and source epochs: metrics of the runs on shuffled images, the controls and the early starts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import pandas as pd

from transferscope.analysis.enough_pretraining import FirstEpoch, Scores, SourceEpochs
from transferscope.analysis.learning import standard_error, summarise
from transferscope.experiment.names import RunName
from transferscope.experiment.node_parameters import VariedRun
from transferscope.experiment.options import SimilarityOptions, SpectrumOptions
from transferscope.measure.bench import Bench, network
from transferscope.measure.similarity import cka
from transferscope.measure.spectra import spectrum
from transferscope.models.series import Checkpoints, CheckpointSeries

VARIED = ("run", "origin", "label", "role", "replica", "series", "size", "side", "part", "source_epoch")
MEASURED = (
    "status", "lr", "metric", "final_train", "final_test", "final_test_error", "best_test", "optimization_speed",
    "chance", "learned",
)  # fmt: skip


def varied_runs(
    task: str, runs: Iterable[VariedRun], histories: Mapping[str, pd.DataFrame], class_sizes: pd.DataFrame
) -> pd.DataFrame:
    """A row for each run, with what it varies and what it reached.

    Columns task, those of `VariedRun`, and of `learning.summarise` the final and best metrics and the optimization
    speed, the train metric averaged over the measured epochs (the two measures of Figure 3). `final_test_error` is the
    standard error of the final test metric over test images.

    Args:
        histories: By the full name of the run.
        class_sizes: Of the task; its views show the same images.
    """
    rows = []
    for run in runs:
        history = histories[run.run].assign(run=run.run, kind=run.series, label=run.label)
        trained = history[history["epoch"] > 0]
        diverged = bool(trained["train_loss"].isna().any()) if len(trained) else False
        status = {run.run: "diverged" if diverged else "finished"}
        (reached,) = summarise(history, class_sizes, status, {run.run: float(history["lr"].max())}).to_dict("records")
        score = float(reached["final_test"])
        error = standard_error(score, class_sizes, str(reached["metric"])) if math.isfinite(score) else math.nan
        rows.append(run.model_dump() | {name: (reached | {"final_test_error": error})[name] for name in MEASURED})
    table = pd.DataFrame(rows, columns=[*VARIED, *MEASURED])
    # Numbers and names in one column are text in a file.
    return table.assign(size=table["size"].astype(str), source_epoch=table["source_epoch"].map(_text)).assign(
        task=task
    )[["task", *VARIED, *MEASURED]]


def _text(epoch: object) -> str | None:
    return None if epoch is None or epoch != epoch else str(epoch)


GAINED = (
    "task", "source_epoch", "runs", "metric", "final_test", "optimization_speed", "gain", "gain_low", "gain_high",
    "part_of_gain", "first_epoch", "first_epoch_low", "first_epoch_high", "note",
)  # fmt: skip


def gains_by_source_epoch(varied: pd.DataFrame) -> pd.DataFrame:
    """A row for each epoch of the pre-trained model that runs start from, with what they gain over those from scratch.

    Columns `GAINED`: number of runs, means of the final test metric and of the optimization speed; gain, the final
    metric minus the mean from scratch, with its 95 % interval over runs and test images, cut off at 1 on either side;
    its part of the gain from the last epoch. Repeated in every row: the first epoch that gives 95 % of that gain, with
    its interval, and a note where one of them is missing or a run was left out (`analysis.enough_pretraining`).

    Args:
        varied: Rows of `varied_runs`; runs that diverged are left out and named in the note. Where all from the last
            epoch did, there are gains and no parts of its gain.
    """
    from_epochs = varied[varied["series"] == "epoch"]
    own = varied[(varied["series"] == "whole") & varied["origin"].isin(from_epochs["origin"])]
    scratch = varied[(varied["series"] == "whole") & (varied["role"] == "from_scratch")]
    every = pd.concat([from_epochs, own, scratch])
    failed = (every["status"] == "diverged") | every["final_test"].isna()
    left_out = [f"{run} diverged" for run in every.loc[failed, "run"]]
    starts = pd.concat([from_epochs, own])
    starts, scratch = (rows[(rows["status"] != "diverged") & rows["final_test"].notna()] for rows in (starts, scratch))
    epochs = sorted(dict.fromkeys(starts["source_epoch"].astype(str)), key=_place)
    rows = [starts[starts["source_epoch"].astype(str) == epoch] for epoch in epochs]
    if not rows or scratch.empty:
        left_out.append("no gain: no run from scratch has a final metric" if rows else "no run has a final metric")
        study = None
    else:
        study = SourceEpochs(tuple(map(_scores, rows)), _scores(scratch))
    made = [_gained(str(varied["task"].iloc[0]), epoch, of_epoch) for epoch, of_epoch in zip(epochs, rows, strict=True)]
    table = pd.DataFrame(made, columns=[*GAINED])
    if study is None:
        return table.assign(note="; ".join(left_out))
    gains = [study.gain(place) for place in range(len(rows))]
    ends = bool((starts["series"] == "whole").any())
    first = study.first() if ends else FirstEpoch(None, None, None, "no part of the gain: no run from the last epoch")
    for name in ("value", "low", "high"):
        table["gain" if name == "value" else f"gain_{name}"] = [getattr(gain, name) for gain in gains]
    # No gain of an accuracy or an AUC is beyond 1, whatever two runs that differ much would allow.
    table[["gain_low", "gain_high"]] = table[["gain_low", "gain_high"]].clip(-1, 1)
    whole = gains[-1].value if ends else math.nan
    names = {"": first.first, "_low": first.low, "_high": first.high}
    return table.assign(
        part_of_gain=table["gain"] / whole if whole > 0 else math.nan,
        note="; ".join([*([first.note] if first.note else []), *left_out]),
        **{f"first_epoch{end}": None if place is None else epochs[place] for end, place in names.items()},
    )


def _place(epoch: str) -> float:
    """Numbers in their order, then the end of the source run."""
    return int(epoch) if epoch.isdigit() else math.inf


def _scores(rows: pd.DataFrame) -> Scores:
    return Scores(tuple(map(float, rows["final_test"])), float(rows["final_test_error"].mean()))


def _gained(task: str, epoch: str, rows: pd.DataFrame) -> dict[str, object]:
    means = {name: float(rows[name].mean()) for name in ("final_test", "optimization_speed")}
    metric = str(rows["metric"].iloc[0])
    return {"task": task, "source_epoch": epoch, "runs": len(rows), "metric": metric, **means}


def along_pretraining(bench: Bench, series: CheckpointSeries) -> pd.DataFrame:
    """Measure the change of the pre-trained model itself, a row for each kept epoch and each layer of analysis.

    Columns run, epoch, metric and `score`, P's own metric on the test images; layer; `cka_to_final`, linear CKA
    (debiased, pooled features of test images of the source task) with P at the end; and the means over its
    convolutions and linear layers of `stable_rank` and `spectral_norm`, those of circular maps. Score and means repeat
    for every layer of an epoch.

    Args:
        bench: With the source task's test split.
    """
    chosen = SimilarityOptions(features=("pooled",), estimators=("debiased",), heat_map_pairs=0)
    metric = "auc" if bench.split("test").multi_label else "accuracy"
    own = RunName.parse(series.name)
    names = {epoch: str(own.at(epoch)) for epoch in series.epochs}
    checkpoints = Checkpoints([series])
    last = names[series.epoch("final")]
    table = cka(bench, checkpoints, [(name, last) for name in names.values()], chosen)["cka"]
    spectra = _mean_spectra(series, bench.split("test").pictures.seen_size)
    rows = []
    for epoch, name in names.items():
        of_epoch = table[table["checkpoint_a"] == name]
        score = bench.metrics(checkpoints[name], ["test"])(network(checkpoints[name]))[f"test/{metric}"]
        for layer, value in zip(of_epoch["layer"], of_epoch["cka"], strict=True):
            rows.append(
                {
                    "run": series.name,
                    "epoch": epoch,
                    "metric": metric,
                    "score": score,
                    "layer": layer,
                    "cka_to_final": float(value),
                    **spectra[epoch],
                }
            )
    return pd.DataFrame(rows)


def _mean_spectra(series: CheckpointSeries, side: int) -> dict[int, dict[str, float]]:
    options = SpectrumOptions(epochs=tuple(series.epochs))
    table = spectrum(series, side, options).summaries
    layers = table[~table["module"].isin(["sum", "all"])]
    means = layers.groupby("epoch")[["stable_rank", "spectral_norm"]].mean()
    return {
        int(str(epoch)): {str(name): float(value) for name, value in row.items()} for epoch, row in means.iterrows()
    }
