"""Tables of compared models that are written by hand."""

from __future__ import annotations

from typing import Any

import pandas as pd

from transferscope.answers.compared import Compared, Model, Pair, TaskFacts

IMAGES = {"images": TaskFacts(chance=0.1, loss_of_guessing=2.3)}
AB = Pair("images.a_1", "images.b_1")
Ways = dict[str, tuple[float, ...]]


def names(a: str, b: str, split: str = "test") -> dict[str, str]:
    return {
        "checkpoint_a": f"images.{a}_1@final",
        "checkpoint_b": f"images.{b}_1@final",
        "split": split,
        "metric": "accuracy",
    }


def lines(
    pairs: dict[str, tuple[float, float, float]],
    ways: Ways | None = None,
    train: Ways | None = None,
    losses: dict[str, tuple[float, float, float]] | None = None,
) -> Compared:
    """Models whose ends have an accuracy of .9 where guessing has .1, so that the margin is 4 points.

    Their loss is .3 where guessing has 2.3, so that its margin is .1. losses: barriers in the loss; None: none.
    ways: barrier and part that is left, with their intervals, on test images; train: on training images, else the same.
    """
    barriers, points, connection = [], [], []
    for pair, (height, low, high) in pairs.items():
        both = names(*pair)
        barriers.append(both | {"barrier": height, "barrier_low": low, "barrier_high": high, "num_examples": 500})
        points += [both | {"alpha": alpha, "value": 0.9} for alpha in (0.0, 1.0)]
        loss, low, high = (losses or {}).get(pair, (0.0, -0.01, 0.01))
        in_loss = both | {"metric": "loss"}
        barriers.append(in_loss | {"barrier": loss, "barrier_low": low, "barrier_high": high, "num_examples": 500})
        points += [in_loss | {"alpha": alpha, "value": 0.3} for alpha in (0.0, 1.0)]
        for split, measured in (("test", ways), ("train", train or ways)):
            for way, numbers in (measured or {}).items():
                columns = ("barrier", "barrier_low", "barrier_high", "left", "left_low", "left_high")
                row = dict(zip(columns, numbers, strict=True))
                connection.append(names(*pair, split) | {"way": way} | row)
    tables = {"barriers": pd.DataFrame(barriers), "interpolation": pd.DataFrame(points)}
    tables |= {"connection": pd.DataFrame(connection)} if connection else {}
    kinds = sorted({one for pair in pairs for one in pair})
    return Compared(IMAGES, {f"images.{kind}_1": Model(kind.upper()) for kind in kinds}, tables)


def on_tasks(by_task: dict[str, Compared]) -> Compared:
    """The same models on several tasks."""
    models: dict[str, Model] = {}
    parts: dict[str, list[pd.DataFrame]] = {}
    for task, one in by_task.items():
        models |= {run.replace("images.", f"{task}."): model for run, model in one.models.items()}
        for name, table in one.tables.items():
            sides = {side: table[side].str.replace("images.", f"{task}.") for side in ("checkpoint_a", "checkpoint_b")}
            parts.setdefault(name, []).append(table.assign(**sides))
    tables = {name: pd.concat(of_tasks, ignore_index=True) for name, of_tasks in parts.items()}
    return Compared(dict.fromkeys(by_task, IMAGES["images"]), models, tables)


def flips(answer: str, gain: tuple[float, float, float]) -> Compared:
    row: dict[str, Any] = names("a", "b") | {"class_name": "all", "num_examples": 400, "answer": answer}
    row |= {"negative_flips": 8, "positive_flips": 4, "changed": 0.04, "changed_low": 0.02, "changed_high": 0.06}
    row |= dict(zip(("accuracy_gain", "accuracy_gain_low", "accuracy_gain_high"), gain, strict=True))
    for name, value in (("negative_flip_rate", 0.02), ("positive_flip_rate", 0.01)):
        row |= {name: value, f"{name}_low": value / 2, f"{name}_high": 2 * value}
    models = {"images.a_1": Model("old"), "images.b_1": Model("new")}
    return Compared(IMAGES, models, {"replacement": pd.DataFrame([row])})


def merges(
    verdict: str, gain: tuple[float, float, float], model: str = "uniform", setting: str = "2 candidates"
) -> Compared:
    shared = {
        "merge": "average",
        "task": "images",
        "metric": "accuracy",
        "num_examples": 280,
        "num_choice": 120,
        "chosen": True,
    }
    shared |= {"value": 0.9, "value_low": 0.87, "value_high": 0.93}
    rows = [shared | {"model": "images.b_1@final", "kind": "candidate", "verdict": "", "setting": ""}]
    numbers = dict(zip(("gain", "gain_low", "gain_high"), gain, strict=True))
    rows.append(shared | numbers | {"model": model, "kind": "merge", "verdict": verdict, "setting": setting})
    models = {"images.a_1": Model("A"), "images.b_1": Model("B")}
    return Compared(IMAGES, models, {"merging": pd.DataFrame(rows)}, merged={"average": "out/merged.safetensors"})
