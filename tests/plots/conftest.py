"""Drawn tables of realistic shapes, columns as the analyses write them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from transferscope.plots.roles import labelled

MODULES = ["stem", *(f"layer{stage}.{block}" for stage in (1, 2, 3) for block in (0, 1)), "fc"]
KINDS = {"P-T & P-T": ("pt", "pt"), "P-T & RI-T": ("pt", "rit"), "RI-T & RI-T": ("rit", "rit")}


def history(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2"), epochs=15, metric="accuracy", seed=0):
    rng, rows = np.random.default_rng(seed), []
    for run in runs:
        top, lr = (0.85, 0.01) if run.startswith("pt") else (0.62, 0.05)
        for epoch in range(epochs + 1):
            value = 0.1 + top * (1 - np.exp(-epoch / (2 if run.startswith("pt") else 5))) + rng.normal(0, 0.01)
            row = {"task": task, "run": f"{task}.{run}", "epoch": epoch, "lr": lr * (0.1 if epoch > 10 else 1)}
            row |= {"train_loss": 2.3 * np.exp(-epoch / 5), "train_loss_eval": 2.2 * np.exp(-epoch / 5)}
            row |= {
                "test_loss": 2.3 * np.exp(-epoch / 6) + 0.2,
                f"test_{metric}": value,
                f"train_{metric}": value + 0.05,
            }
            rows.append(row)
    return pd.DataFrame(rows)


def runs(names=("pt_1", "pt_2", "pt_large_lr_1", "rit_1", "rit_2", "rit_small_lr_1"), metric="accuracy"):
    small = [name.startswith("pt") != ("_lr_" in name) for name in names]
    speed = [0.8 + place / 100 if name.startswith("pt") else 0.5 + place / 50 for place, name in enumerate(names)]
    table = pd.DataFrame({"task": "clipart", "run": names, "metric": metric, "optimization_speed": speed})
    return table.assign(lr=np.where(small, 0.01, 0.05), status="finished")


WAYS = ("straight", "tempered", "rescaled", "aligned", "aligned_rescaled", "aligned_repaired", "curve", "aligned_curve")


def connection(metrics=("accuracy", "loss"), ways=WAYS, profiles=("modules", "aligned_modules"), seed=0):
    """Points, barriers and profiles of one pair."""
    rng, points, barriers, modules = np.random.default_rng(seed), [], [], []
    for place, way in enumerate(ways):
        for split in ("train", "test"):
            for metric in ("loss",) if way == "tempered" else metrics:
                about = {"task": "clipart", "way": way, "split": split, "metric": metric, "num_examples": 400}
                depth = 0.5 / (1 + place)
                for alpha in (0, 0.25, 0.5, 0.75, 1):
                    value = 0.7 - 4 * depth * alpha * (1 - alpha) + rng.normal(0, 0.01)
                    points.append(about | {"alpha": alpha, "value": 1 - value if metric == "loss" else value})
                barriers.append(about | {"barrier": depth, "barrier_low": 0.9 * depth, "barrier_high": 1.1 * depth})
    for way in profiles:
        for profile in ("alone", "cumulative"):
            for place, module in enumerate(MODULES):
                for metric in metrics:
                    drop = 0.05 * (1 if profile == "alone" else place + 1) + rng.normal(0, 0.005)
                    modules.append(
                        {"task": "clipart", "way": way, "profile": profile, "module": module, "split": "test",
                         "metric": metric, "drop": drop, "low": drop - 0.02, "high": drop + 0.02}
                    )  # fmt: skip
    return pd.DataFrame(points), pd.DataFrame(barriers), pd.DataFrame(modules)


def split_runs(metrics=("accuracy", "loss"), epochs=(0, 1, 4), seed=0):
    """Barriers between two runs of either kind and their copies."""
    rng, rows = np.random.default_rng(seed), []
    for label, height in (("P-T", 0.005), ("RI-T", 0.4)):
        for replica in (1, 2):
            for epoch in epochs:
                for way, left in (("straight", 1.0), ("aligned_rescaled", 0.3)):
                    for metric in metrics:
                        barrier = height * left / (1 + epoch) * rng.uniform(0.8, 1.2)
                        rows.append(
                            {"task": "clipart", "label": label, "run": f"clipart.{label}_{replica}@final",
                             "split_epoch": epoch, "way": way, "split": "test", "metric": metric, "barrier": barrier,
                             "barrier_low": 0.8 * barrier, "barrier_high": 1.3 * barrier, "num_examples": 400}
                        )  # fmt: skip
    return pd.DataFrame(rows)


def interpolation(
    task="clipart", alphas=None, kinds=tuple(KINDS), splits=("train", "test"), metrics=("accuracy", "loss"),
    ends=(("final", "final"),), trained_on=None, seed=0,
):  # fmt: skip
    rng, rows = np.random.default_rng(seed), []
    alphas = np.linspace(0, 1, 11) if alphas is None else np.asarray(alphas)
    first, second = trained_on or (task, task)
    for kind in kinds:
        a, b = KINDS.get(kind, ("rit", "rit_same_init"))
        depth = {"P-T & P-T": -0.01, "P-T & RI-T": 0.55}.get(kind, 0.6)
        for (end_a, end_b), replica, split, metric, alpha in (
            (end, replica, split, metric, alpha)
            for end in ends for replica in (1, 2) for split in splits for metric in metrics for alpha in alphas
        ):  # fmt: skip
            outside = max(0, -alpha, alpha - 1)
            inside = 4 * min(max(alpha, 0), 1) * (1 - min(max(alpha, 0), 1))
            value = 0.8 + 0.1 * (split == "train") - depth * inside - 0.5 * outside + rng.normal(0, 0.008)
            value = float(np.clip(value, 0, 1)) if metric != "loss" else 12 * (1 - min(value, 0.99)) ** 2
            rows.append(
                {"scenario": "within", "task": task, "split": split, "pair_kind": kind,
                 "checkpoint_a": f"{first}.{a}_1@{end_a}", "checkpoint_b": f"{second}.{b}_{replica}@{end_b}",
                 "alpha": float(alpha), "metric": metric, "value": value}
            )  # fmt: skip
    return pd.DataFrame(rows)


def distances(task="clipart", modules=MODULES, kinds=(*KINDS, "P-T & P"), seed=0):
    rng, rows = np.random.default_rng(seed), []
    for kind in kinds:
        size = {"P-T & P-T": 0.4, "P-T & P": 0.3}.get(kind, 8.0)
        for replica in (1, 2):
            per_module = size * rng.lognormal(0, 0.4, len(modules))
            for module, value in (
                *zip(modules, per_module, strict=True),
                ("all", np.linalg.norm(per_module)),
                ("sum", 9.0),
            ):
                rows.append(
                    {"task": task, "pair_kind": kind, "checkpoint_a": f"{task}.pt_1@final",
                     "checkpoint_b": f"shapes.p_{replica}@final", "module": module, "l2": value, "squared": value**2,
                     "relative": value / 20}
                )  # fmt: skip
    return pd.DataFrame(rows)


def cka(task="clipart", layers=("conv1", "layer1", "layer2", "layer3"), kinds=("P-T & P", *KINDS), seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "pair_kind": kind, "checkpoint_a": "a", "checkpoint_b": f"b{replica}", "layer": layer,
         "features": features, "estimator": "debiased", "num_examples": 512,
         "cka": (0.7 if kind.startswith("P-T & P") else 0.04) * rng.uniform(0.5, 1.2) - 0.02}
        for kind in kinds for layer in layers for replica in (1, 2) for features in ("pooled", "flattened")
    )  # fmt: skip


def cka_layers(task="clipart", layers=MODULES[:-1], kinds=("P-T & P", *KINDS, "same model", "two untrained"), seed=0):
    rng = np.random.default_rng(seed)
    place = {layer: index for index, layer in enumerate(layers)}
    labels = {kind: kind.split(" & ") if " & " in kind else ["the model", "the model"] for kind in kinds}
    return pd.DataFrame(
        {"task": task, "pair_kind": kind, "checkpoint_a": "a", "checkpoint_b": "b", "layer": a, "layer_b": b,
         "features": "pooled", "estimator": "minibatch", "num_examples": 512,
         "label_a": labels[kind][0], "label_b": labels[kind][1],
         "cka": (0.9 if kind in ("P-T & P", "same model") else 0.2) ** abs(place[a] - place[b]) - 0.1 * rng.uniform()}
        for kind in kinds for a in layers for b in layers
    )  # fmt: skip


def distance_travelled(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2"), epochs=(0, 1, 3, 7, 15), seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "label": "P-T" if run.startswith("pt") else "RI-T", "epoch": epoch,
         "module": module, "l2": (1 if run.startswith("pt") else 6) * epoch**0.5 * rng.uniform(0.9, 1.1)}
        for run in runs for epoch in epochs for module in (*MODULES, "all", "sum")
    )  # fmt: skip


def class_accuracy(task="clipart", num_classes=12, runs=("pt_1", "pt_2", "rit_1", "rit_2"), seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(20, 160, num_classes)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "class_name": f"class {index}", "class_size": size, "num_test": 40,
         "accuracy": np.clip((0.75 if run.startswith("pt") else 0.5) + size / 900 + rng.normal(0, 0.08), 0, 1)}
        for run in runs for index, size in enumerate(sizes)
    )  # fmt: skip


def plane(task="clipart", metrics=("accuracy", "loss"), width=3.0, points=7):
    checkpoints = {f"{task}.pt_1@0": (0.0, 0.0), f"{task}.pt_1@final": (width, 0.0), f"{task}.pt_2@final": (1.0, 2.0)}
    grid = [(x, y) for y in np.linspace(-1, 3, points) for x in np.linspace(-1, width + 1, points)]
    places = [*((x, y, name) for name, (x, y) in checkpoints.items()), *((x, y, None) for x, y in grid)]
    return pd.DataFrame(
        {"task": task, "plane": "a", "split": "test", "x": x, "y": y, "checkpoint": name, "metric": metric,
         "value": np.exp((x - 2) ** 2) if metric == "loss" else float(np.exp(-((x - 2) ** 2)))}
        for x, y, name in places for metric in metrics
    )  # fmt: skip


def basin(task="clipart", delta=2.0):
    rows = [
        {"hull": hull, "checkpoints": f"{hull} 1, {hull} 2", "quantity": quantity, "length": length, "value": value, "low": 0.8 * value, "high": 1.2 * value,
         "threshold": 0.02}
        for hull in ("P-T", "RI-T")
        for quantity, length, value in (
            ("epsilon", None, 0.01), ("delta", None, delta),
            *((quantity, length, 0.01 * length) for quantity in ("noise", "ray") for length in (1.0, 2.0, 4.0)),
        )
    ]  # fmt: skip
    return pd.DataFrame(rows).assign(task=task)


def mistakes(task="clipart", classes=("all",), kinds=tuple(KINDS), seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "pair_kind": kind, "checkpoint_a": "a", "checkpoint_b": f"b{replica}", "class_name": name,
         "num_examples": 500, "only_a_correct": rng.integers(15, 90), "only_b_correct": rng.integers(15, 40),
         "common_mistakes": rng.integers(60, 110)}
        for kind in kinds for name in classes for replica in (1, 2)
    )  # fmt: skip


def flips(task="clipart", classes=("cat", "dog"), findings=None, kinds=tuple(KINDS), seed=0):
    rng, rows = np.random.default_rng(seed), []
    for kind in kinds:
        for name in findings or ("all",):
            groups = [("all", "all"), *(("class", value) for value in classes if not findings)]
            for group, value in [*groups, ("sex", "Female"), ("sex", "Male")]:
                row = {"task": task, "pair_kind": kind, "class_name": name, "group": group, "value": value}
                row["num_examples"] = 50
                for rate in ("negative_flip_rate", "positive_flip_rate"):
                    row[rate] = rng.uniform(0, 0.3)
                    row |= {f"{rate}_low": row[rate] * 0.7, f"{rate}_high": row[rate] * 1.4}
                row["accuracy_gain"] = row["positive_flip_rate"] - row["negative_flip_rate"]
                rows.append(row)
    return pd.DataFrame(rows)


def reliability(task="clipart", runs=("pt_1", "pt_2", "rit_1"), findings=("all",), seed=0):
    rng = np.random.default_rng(seed)
    rows = [
        {"task": task, "run": run, "class_name": name, "bin_low": low, "num_examples": 20, "confidence": low + 0.05,
         "rate": (rate := float(np.clip(low + rng.normal(0, 0.1), 0, 1))), "rate_low": 0.8 * rate,
         "rate_high": min(1, 1.2 * rate)}
        for run in runs for name in findings for low in np.arange(10) / 10
    ]  # fmt: skip
    return pd.DataFrame(rows)


def criticality(
    task="clipart", runs=("pt_1", "rit_1"), modules=("stem", "fc"), sigmas=(0.0, 0.01, 0.03, 0.1),
    positions=(0.0, 0.25, 0.5, 0.75, 1.0), paths=("direct", "optimization"), ends=("final",), seed=0,
):  # fmt: skip
    rng, rows = np.random.default_rng(seed), []
    for run, module, path, end, split, position, sigma, draw in (
        (run, module, path, end, split, position, sigma, draw)
        for run in runs for module in modules for path in paths for end in ends for split in ("train", "test")
        for position in positions for sigma in sigmas for draw in (0, 1)
    ):  # fmt: skip
        scale = 1.0 if run.startswith("pt") else 6.0
        distance = scale * (position if path == "direct" else position**0.5)
        error = 0.05 + 0.04 * (split == "test") + (0.2 if scale == 1 else 0.7) * (1 - position) ** 2 + 3 * sigma
        error = min(0.95, error + abs(rng.normal(0, 0.01)))
        rows.append(
            {"task": task, "run": f"{task}.{run}", "module": module, "path": path, "end": end, "split": split,
             "position": position, "distance": distance, "sigma": sigma, "draw": draw, "error": error,
             "loss": 4 * error}
        )  # fmt: skip
    return pd.DataFrame(rows)


def module_criticality(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2"), modules=MODULES, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "module": module, "path": path, "end": "final", "epsilon": 0.1,
         "mu": (10 if run.startswith("pt") else 3e4) * rng.lognormal(0, 1)}
        for run in runs for module in modules for path in ("direct", "optimization")
    )  # fmt: skip


def rewinding(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2"), modules=MODULES, metric="accuracy", seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "module": module, "epoch": epoch, "split": split, "metric": metric,
         "value": (0.9 if run.startswith("pt") else 0.55) - (0 if module == "none" else rng.uniform(0, 0.3))}
        for run in runs for module in ("none", *modules) for epoch in (0, 5) for split in ("train", "test")
    )  # fmt: skip


def singular_values(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2", "p_1"), modules=MODULES, seed=0):
    rng = np.random.default_rng(seed)
    frames = []
    for run in runs:
        for epoch in ("0", "final"):
            for module in modules:
                shape = 0.4 if run.startswith("rit") else 0.9
                values = np.sort(rng.gamma(shape, 1.0 if epoch == "final" else 0.5, 120))[::-1]
                frames.append(
                    pd.DataFrame(
                        {"task": task, "run": f"{task}.{run}", "epoch": epoch, "module": module, "value": values,
                         "multiplicity": rng.integers(1, 5, 120)}
                    )
                )  # fmt: skip
    return pd.concat(frames, ignore_index=True)


def singular_vectors(task="clipart", runs=("pt_1", "rit_1"), top=3, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "epoch": 15, "module": module, "rank": rank, "value": 9.0 - rank,
         "channel": channel, "row": row, "column": column, "amplitude": rng.normal(), "share": 1 / channels}
        for run in runs for module, channels in (("stem", 3), ("layer1", 1)) for rank in range(1, top + 1)
        for channel in range(channels) for row in range(6) for column in range(5)
    )  # fmt: skip


def spectrum(task="clipart", runs=("pt_1", "pt_2", "rit_1", "rit_2"), modules=MODULES, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {"task": task, "run": f"{task}.{run}", "epoch": epoch, "module": module,
         "ratio": rng.uniform(3, 8) * (2 if run.startswith("rit") else 1) * (8 if module in ("all", "sum") else 1),
         "num_values": 2000, "count_below_0.1": rng.integers(100, 400)}
        for run in runs for epoch in (0, 15) for module in (*modules, "all", "sum")
    )  # fmt: skip


def reuse(replicas=1, series=("blocks", "each", "control", "epoch"), metric="accuracy", side=32):
    """Runs of feature reuse and of source epochs, and those that they vary."""
    rng = np.random.default_rng(0)
    sizes = [1, 2, 4, 8, 16, "values"]
    cases = [("whole", side, "", "final")]
    cases += [(one, size, "", "final") for one in ("blocks", "each") for size in sizes]
    cases += [("control", side, part, "final") for part in ("statistics", "frozen", "stem", "layer2.1")]
    cases += [("epoch", side, "", str(epoch)) for epoch in (0, 1, 3)]
    rows = []
    for (kind, size, part, epoch), (label, role), replica in itertools.product(
        cases, (("P-T", "fine_tuned"), ("RI-T", "from_scratch")), range(replicas)
    ):
        if kind not in ("whole", *series) or (kind in ("control", "epoch") and label == "RI-T"):
            continue
        rows.append({
            "task": "clipart", "run": f"clipart.x_{len(rows) + 1}", "origin": {"P-T": "pt", "RI-T": "rit"}[label],
            "label": label, "role": role, "replica": replica + 1, "series": kind, "size": str(size), "side": side, "part": part,
            "source_epoch": epoch if label == "P-T" else None, "metric": metric, "final_test": rng.uniform(0.3, 0.9),
            "final_test_error": 0.02, "optimization_speed": rng.uniform(0.3, 0.9), "status": "finished",
        })  # fmt: skip
    return pd.DataFrame(rows)


def gains(first="3", low="1", high="final"):
    """What runs from three epochs and from the end gain; no interval where low is None."""
    epochs = ["0", "1", "3", "final"]
    table = pd.DataFrame({"source_epoch": epochs, "gain": [-0.2, 0.1, 0.2, 0.2]})
    return table.assign(first_epoch=first, first_epoch_low=low, first_epoch_high=high)


def along_pretraining(epochs=(0, 1, 3, 7, 10), layers=("conv1", "layer1", "layer2", "layer3")):
    return pd.DataFrame(
        {"run": "shapes.p_1", "epoch": epoch, "metric": "accuracy", "score": 0.08 * epoch, "layer": layer,
         "cka_to_final": min(1.0, 0.1 * epoch + 0.05 * index), "stable_rank": 9.0 - 0.5 * epoch, "spectral_norm": 2.0}
        for epoch in epochs for index, layer in enumerate(layers)
    )  # fmt: skip


def images(number=60, channels=3, size=32, seed=0):
    rng = np.random.default_rng(seed)
    colours = rng.integers(60, 255, (number, channels, 1, 1))
    y, x = np.mgrid[:size, :size] / size
    return (colours * (0.5 + 0.5 * np.sin(9 * x + 5 * y))).astype(np.uint8)


def gallery(columns=4, long=False, seed=0):
    rng = np.random.default_rng(seed)
    name = "a_class_with_a_remarkably_long_name_{}" if long else "class {}"
    return pd.DataFrame(
        {"image": rng.integers(0, 60), "column": index, "only_correct": side, "true_label": name.format(index),
         "prediction_a": name.format(index if side == "a" else 9), "confidence_a": rng.uniform(),
         "prediction_b": name.format(index if side == "b" else 9), "confidence_b": rng.uniform()}
        for side in "ab" for index in range(columns)
    )  # fmt: skip


def file_pairs(number, couples=None):
    """A row for each couple of files, with all columns that a matrix reads; the values follow from their places."""
    return pd.DataFrame(
        {"task": "photos", "pair_kind": "model & model", "checkpoint_a": f"photos.m_{a}@final", "checkpoint_b": f"photos.m_{b}@final",
         "class_name": "all", "num_examples": 1000, "only_a_correct": 10 * a, "only_b_correct": b, "module": "all",
         "l2": a + b / 100, "layer": "layer4", "features": "pooled", "estimator": "debiased", "cka": 1 / (a + b),
         "split": "test", "metric": "accuracy", "barrier": b / 100}
        for a, b in couples or itertools.combinations(range(1, number + 1), 2)
    )  # fmt: skip


def file_names(number):
    return {f"photos.m_{place}": f"epoch_{place:03d}" for place in range(1, number + 1)}


BUILDERS = (
    history, runs, connection, split_runs, interpolation, distances, distance_travelled, cka, cka_layers, class_accuracy, mistakes,
    plane, basin, flips, reliability,
    criticality, module_criticality, rewinding,
singular_values, singular_vectors, spectrum, images, gallery, reuse, gains, along_pretraining,
     file_pairs, file_names,
)  # fmt: skip


LABELS = {
    "pt": "P-T", "pt_large_lr": "P-T large lr", "pt_union": "P-T", "rit": "RI-T", "rit_small_lr": "RI-T small lr",
    "rit_same_init": "RI-T same init", "rit_union": "RI-T", "p": "P",
}  # fmt: skip
ROLES = {
    "P-T": "fine_tuned", "P-T large lr": "fine_tuned", "P-T union": "fine_tuned", "RI-T": "from_scratch",
    "RI-T small lr": "from_scratch", "RI-T same init": "shared_init", "P": "source",
}  # fmt: skip
OTHER_RATES = {"P-T large lr": "P-T", "RI-T small lr": "RI-T"}
TASKS = ("unknown", "shapes", "real", "clipart", "quickdraw", "real_clipart", "chest")


@pytest.fixture(autouse=True)
def study() -> Iterator[None]:
    """Tables of this folder are drawn as those of a study whose labels are the paper's."""
    runs = {f"{task}.{kind}_{n}": text for task in TASKS for kind, text in LABELS.items() for n in range(1, 30)}
    with labelled(ROLES, runs, OTHER_RATES):
        yield


@pytest.fixture
def drawn() -> SimpleNamespace:
    return SimpleNamespace(modules=MODULES, kinds=KINDS, **{build.__name__: build for build in BUILDERS})
