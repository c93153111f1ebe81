"""The table of feature reuse, and the pre-trained model along its training."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from transferscope.analysis.learning import standard_error
from transferscope.experiment.node_parameters import VariedRun
from transferscope.measure.reuse import gains_by_source_epoch, varied_runs
from transferscope.tables.block_sizes import paper_drop, relative_drops, shuffled_rows

SIZES = pd.DataFrame(
    {
        "part": ["train", "train", "test", "test"],
        "class_name": ["a", "b"] * 2,
        "count": [80, 20, 40, 60],
        "negatives": 0,
    }
)


def history(*accuracies: float, diverged: bool = False) -> pd.DataFrame:
    """Epochs 0, 1, ... with the same accuracy on train and test; the loss of the last may be no number."""
    epochs = range(len(accuracies))
    loss = [math.nan, *(1.0 for _ in accuracies[1:])]
    frame = pd.DataFrame({"task": "view", "epoch": epochs, "lr": [math.nan, *(0.1 for _ in accuracies[1:])]})
    frame = frame.assign(train_loss=loss, train_loss_eval=1.0, test_loss=1.0)
    frame = frame.assign(train_accuracy=accuracies, test_accuracy=accuracies)
    if diverged:
        frame.loc[frame.index[-1], ["train_loss", "train_accuracy", "test_accuracy"]] = math.nan
    return frame


def varied(run: str, role: str, **more: object) -> VariedRun:
    label = {"fine_tuned": "P-T", "from_scratch": "RI-T"}.get(role, role)
    origin = {"fine_tuned": "pt", "from_scratch": "rit"}.get(role, role)
    values = {"run": run, "origin": origin, "label": label, "role": role, "replica": 1}
    values |= {"series": "blocks", "size": 4, "side": 32}
    return VariedRun.model_validate(values | more)


@pytest.fixture
def table() -> pd.DataFrame:
    """P-T and RI-T on blocks of 4 and on whole images; one more that diverged."""
    runs = [
        varied("clipart.pt_1", "fine_tuned", series="whole", size=32, source_epoch="final"),
        varied("clipart.rit_1", "from_scratch", series="whole", size=32),
        varied("clipart__blocks_4.pt_shuffled_1", "fine_tuned", source_epoch="final"),
        varied("clipart__blocks_4.rit_shuffled_1", "from_scratch"),
        varied("clipart__blocks_values.rit_shuffled_1", "from_scratch", size="values"),
    ]
    ends = {"clipart.pt_1": (0.1, 0.8, 0.9), "clipart.rit_1": (0.1, 0.5, 0.72)}
    ends |= {"clipart__blocks_4.pt_shuffled_1": (0.1, 0.7, 0.75), "clipart__blocks_4.rit_shuffled_1": (0.1, 0.4, 0.7)}
    histories = {name: history(*values) for name, values in ends.items()}
    histories["clipart__blocks_values.rit_shuffled_1"] = history(0.1, 0.2, 0.2, diverged=True)
    return varied_runs("clipart", runs, histories, SIZES)


def test_a_row_has_what_a_run_varies_and_what_it_reached(table: pd.DataFrame) -> None:
    """Final metric with its standard error, speed as the mean over trained epochs, whether it learned or diverged."""
    row = table.set_index("run").loc["clipart__blocks_4.pt_shuffled_1"]
    assert (row["task"], row["series"], row["size"], row["metric"]) == ("clipart", "blocks", "4", "accuracy")
    assert row["final_test"] == 0.75
    assert row["optimization_speed"] == pytest.approx((0.7 + 0.75) / 2)
    assert row["final_test_error"] == pytest.approx(math.sqrt(0.75 * 0.25 / 100))
    assert row["learned"]
    last = table.set_index("run").loc["clipart__blocks_values.rit_shuffled_1"]
    assert last["status"] == "diverged"


def test_the_relative_drop_is_that_of_the_means(table: pd.DataFrame) -> None:
    """100 (P-T - RI-T) / P-T, at sizes that both kinds have."""
    drops = relative_drops(table).set_index("size")["drop"]
    assert drops.to_dict() == pytest.approx({"32": 100 * 0.18 / 0.9, "4": 100 * 0.05 / 0.75})


def test_whole_images_that_were_trained_again_take_the_place_of_the_tasks_own(table: pd.DataFrame) -> None:
    """Where the task's own runs see augmented images."""
    assert (shuffled_rows(table)["series"] == "whole").sum() == 2
    again = table[table["series"] == "whole"].assign(series="blocks", final_test=0.5)
    both = shuffled_rows(pd.concat([table, again]))
    assert set(both["series"]) == {"blocks"}
    assert relative_drops(pd.concat([table, again])).set_index("size")["drop"]["32"] == 0


def from_epochs(**scores: tuple[float, ...]) -> pd.DataFrame:
    """Runs from epochs `e10`, `e2`, ..., from the end (`final`) and from scratch (`rit`) with these final accuracies."""
    runs, histories = [], {}
    for sort, values in scores.items():
        for replica, value in enumerate(values, start=1):
            name = (
                f"clipart.{sort}_{replica}"
                if sort in ("final", "rit", "other")
                else f"clipart__epochs.{sort}_{replica}"
            )
            role = "from_scratch" if sort == "rit" else "fine_tuned"
            more = {"series": "epoch" if sort.startswith("e") else "whole", "size": 32, "replica": replica}
            epoch = {"rit": None, "final": "final", "other": "final"}.get(sort, sort[1:])
            origin = {"rit": "rit", "other": "other"}.get(sort, "pt")
            start = {"source_epoch": int(epoch) if str(epoch).isdigit() else epoch}
            runs.append(varied(name, role, **more, **start, origin=origin))
            histories[name] = history(0.1, value, value, diverged=math.isnan(value))
    return varied_runs("clipart", runs, histories, SIZES)


def test_gains_are_over_the_mean_from_scratch_and_in_the_order_of_the_epochs() -> None:
    """10 after 2, the end last; kinds that no epoch varies are left alone; the first with 95 % of the gain is repeated."""
    table = gains_by_source_epoch(
        from_epochs(e10=(0.89, 0.89), e2=(0.59, 0.61), final=(0.9, 0.9), rit=(0.5, 0.5), other=(0.2, 0.2)).assign(
            final_test_error=1e-4
        )
    )
    assert list(table["source_epoch"]) == ["2", "10", "final"]
    assert list(table["gain"]) == pytest.approx([0.1, 0.39, 0.4])
    assert list(table["part_of_gain"]) == pytest.approx([0.25, 0.975, 1])
    assert list(table["runs"]) == [2, 2, 2]
    assert (table["gain_low"] < table["gain"]).all()
    assert set(table["first_epoch"]) == {"10"}
    assert set(table["first_epoch_high"]) <= {"10", "final"}
    assert set(table["note"]) == {""}


def test_the_interval_of_a_gain_stays_within_what_a_gain_can_be() -> None:
    """Two runs of each sort that differ by half of the scale allow more than 1, which the table does not say."""
    table = gains_by_source_epoch(from_epochs(final=(0.9, 0.3), e2=(0.8, 0.2), rit=(0.6, 0.2)))
    assert table["gain_low"].min() == -1
    assert table["gain_high"].max() == 1
    assert table["gain"].between(table["gain_low"], table["gain_high"]).all()


def test_no_other_epoch_takes_the_place_of_the_last_one_where_all_of_its_runs_diverged() -> None:
    """The gains stay, and nothing is a part of the gain of an epoch that is not the last."""
    table = gains_by_source_epoch(
        from_epochs(e2=(0.6, 0.6), e10=(0.8, 0.8), final=(math.nan, math.nan), rit=(0.5, 0.5))
    )
    assert list(table["source_epoch"]) == ["2", "10"]
    assert list(table["gain"]) == pytest.approx([0.1, 0.3])
    assert table[["part_of_gain", "first_epoch", "first_epoch_low", "first_epoch_high"]].isna().all(axis=None)
    (note,) = set(table["note"])
    assert note.startswith("no part of the gain: no run from the last epoch; ")
    assert "clipart.final_1 diverged; clipart.final_2 diverged" in note


def test_runs_that_diverged_are_named_and_a_single_run_has_no_interval() -> None:
    """What is left of their epoch counts; without runs from scratch there is no gain."""
    table = gains_by_source_epoch(from_epochs(e2=(0.89, math.nan), final=(0.9, 0.9), rit=(0.5, 0.5)))
    assert table["first_epoch"].iloc[0] == "2"
    assert table["first_epoch_low"].isna().all()
    single = "no interval: a single run does not show how much runs vary"
    assert set(table["note"]) == {f"{single}; clipart__epochs.e2_2 diverged"}
    alone = gains_by_source_epoch(from_epochs(e2=(0.8, 0.8), final=(0.9, 0.9)))
    assert alone["gain"].isna().all()
    assert set(alone["note"]) == {"no gain: no run from scratch has a final metric"}


def test_the_papers_number_is_at_the_nearest_share_of_the_side() -> None:
    """1 of 32 pixels is 7 of 224, 4 is 28, the whole is the whole; single pixels and all values are themselves."""
    assert paper_drop("real", "2", 32) == 45  # 14 of 224
    assert paper_drop("real", "4", 32) == 52  # 28
    assert paper_drop("clipart", "32", 32) == 40
    assert paper_drop("quickdraw", "values", 32) == 91
    assert paper_drop("quickdraw", "1", 32) == 69
    assert math.isnan(paper_drop("amazon", "4", 32))


def test_the_standard_error_of_a_mean_auc_is_that_of_draws() -> None:
    """Hanley and McNeil's formula against the spread of the AUC of normal scores over 4,000 test sets."""
    positives, negatives, shift = 40, 60, 1.0
    rng = np.random.default_rng(0)
    first = rng.normal(shift, 1, (4000, positives, 1))
    second = rng.normal(0, 1, (4000, 1, negatives))
    areas = (first > second).mean(axis=(1, 2))
    sizes = pd.DataFrame({"part": ["test"], "class_name": ["a"], "count": [positives], "negatives": [negatives]})
    assert standard_error(float(areas.mean()), sizes, "auc") == pytest.approx(areas.std(), rel=0.08)
