"""A drawn study: tables of the shape that the pipelines make, in the paper's sense or against it."""

from __future__ import annotations

import base64
from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from transferscope.claims.decide import decide_claims
from transferscope.claims.evidence import TaskResults
from transferscope.experiment.node_parameters import VariedRun
from transferscope.experiment.pairs import start_kind
from transferscope.experiment.plan import Plan, make_plan
from transferscope.measure.reuse import gains_by_source_epoch
from transferscope.plots.rendered import SavedFigure

DOMAINS = ("real", "clipart")
CHEST = "chest"
MODULES = ("stem", "layer1.0", "layer2.0", "fc")
LAYERS = ("stem", "layer1", "layer2")
EPOCHS = 4
SPLITS = [0, 3]
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAIAAAABCAIAAAB7QOjdAAAAEElEQVR4nGP4z8Dwn4HhPwAG/wH/l5tuiQAAAABJRU5ErkJggg=="
)
FIGURES = (
    "learning_curves", "contact_sheet", "class_sizes", "accuracy_by_class_size", "uncommon_mistakes", "cka",
    "distance_per_module", "distance_to_initialisation", "barrier", "loss_barrier", "extrapolation",
    "criticality_heat_maps", "module_criticality", "rewinding", "spectrum_histogram", "spectrum_training",
    "spectrum_counts", "spectrum_paddings", "singular_vectors", "feature_reuse", "reuse_controls", "source_epochs",
)  # fmt: skip

SCENARIOS = (
    ("figure_19", "clipart", ("clipart", "real")),
    ("figure_22", "real", ("real", "clipart")),
    ("figure_24", "real", ("real_clipart", "clipart")),
    ("figure_28", "clipart", ("real_clipart", "real")),
)
"""Figure, the domain that it is measured on, and the tasks of the two models."""

EVERYWHERE = [*DOMAINS, CHEST]
FROM_P = {"initialisation": "pretrained", "pretrained": "shapes.p_1"}

STUDY: dict[str, Any] = {
    "seed": 1,
    "report": {"title": "A drawn study"},
    "model": {"name": "fixup_resnet_small"},
    "tasks": {
        "shapes": {"format": "image_folder", "root": "shapes"},
        "real": {"format": "domainnet", "root": "domains"},
        "clipart": {"format": "domainnet", "root": "domains"},
        "chest": {"format": "chexpert", "root": "chest"},
        "real_clipart": {"union": ["real", "clipart"]},
    },
    "generated": {"domains": {"draws": "domains", "tasks": ["real", "clipart"]}},
    "training": {"epochs": EPOCHS},
    "runs": {
        "p": {"label": "P", "tasks": ["shapes"], "training": {"keep_epochs": [1]}},
        "pt": {"label": "P-T", "tasks": EVERYWHERE, "replicas": 2, **FROM_P, "training": {"lr": 0.01}},
        "rit": {"label": "RI-T", "tasks": EVERYWHERE, "replicas": 2},
        "rit_same_init": {
            "label": "RI-T same init",
            "tasks": EVERYWHERE,
            "replicas": 2,
            "shares_initialisation_with": "rit",
        },
        "pt_large_lr": {
            "label": "P-T large lr",
            "tasks": ["clipart"],
            "replicas": 2,
            **FROM_P,
            "training": {"lr": 0.05},
        },
        "rit_small_lr": {
            "label": "RI-T small lr",
            "tasks": ["clipart", "chest"],
            "replicas": 2,
            "training": {"lr": 0.01},
        },
        "rit_wide": {
            "label": "RI-T wide",
            "tasks": EVERYWHERE,
            "replicas": 2,
            "model": {"name": "fixup_resnet_small", "options": {"widths": [32, 64, 128]}},
        },
        "pt_split": {
            "label": "P-T copy",
            "tasks": EVERYWHERE,
            "replicas": 2,
            "split_from": "pt",
            "split_epochs": SPLITS,
        },
        "rit_split": {
            "label": "RI-T copy",
            "tasks": EVERYWHERE,
            "replicas": 2,
            "split_from": "rit",
            "split_epochs": SPLITS,
        },
        "pt_union": {"label": "P-T", "tasks": ["real_clipart"], **FROM_P},
        "rit_union": {"label": "RI-T", "tasks": ["real_clipart"]},
    },
    "feature_reuse": {
        "tasks": list(DOMAINS),
        "block_sizes": [1, 4],
        "controls": ["statistics"],
        "first_modules": ["layer2.0"],
    },
    "source_epochs": {"tasks": list(DOMAINS), "epochs": [1]},
    "analyses": {
        "landscape": {
            "planes": [],
            "cross_domain": [
                {"figure": figure, "evaluated_on": on, "tasks": list(tasks)} for figure, on, tasks in SCENARIOS
            ],
        },
        "merging": {
            "merges": [
                {"name": "pt_soup", "candidates": ["real.pt", "clipart.pt"], "union": "real_clipart.pt_union"},
                {"name": "rit_soup", "candidates": ["real.rit", "clipart.rit"]},
            ]
        },
    },
}

OTHER_LABELS = {
    "P-T": "Fine-tuned",
    "RI-T": "Scratch",
    "RI-T same init": "P-T",
    "P-T large lr": "RI-T",
    "RI-T small lr": "Quick",
    "RI-T wide": "RI",
    "P-T copy": "Again",
    "RI-T copy": "Anew",
    "P": "init",
}
"""Labels that say nothing of a role, or something false."""


def change_study(**changes: Any) -> Plan:
    """The plan of the study with values set at dotted keys; None takes a key out."""
    study = deepcopy(STUDY)
    for key, value in changes.items():
        *path, last = key.split("__")
        place = study
        for part in path:
            place = place[part]
        if value is None:
            del place[last]
        else:
            place[last] = value
    return make_plan(study)


def relabelled() -> Plan:
    """The plan with `OTHER_LABELS`."""
    study = deepcopy(STUDY)
    for kind in study["runs"].values():
        kind["label"] = OTHER_LABELS[kind["label"]]
    return make_plan(study)


def relabel(results: dict[str, TaskResults]) -> dict[str, TaskResults]:
    """The results with `OTHER_LABELS` in the columns that hold labels."""

    def rename(text: str) -> str:
        if text == start_kind(label := text.removesuffix(" to init")):
            return start_kind(OTHER_LABELS[label])
        return " & ".join(OTHER_LABELS.get(part, part) for part in text.split(" & "))

    relabelled = {}
    for name, result in results.items():
        tables = {
            key: table.assign(
                **{column: table[column].map(rename) for column in ("label", "pair_kind") if column in table}
            )
            for key, table in result.tables.items()
        }
        relabelled[name] = replace(result, tables=tables)
    return relabelled


PLAN = make_plan(STUDY)


class Drawn:
    """Draws the tables of one task; `sense` 1 is the paper's, -1 the opposite."""

    def __init__(self, task: str, sense: int, replicas: int, seed: int = 0) -> None:
        self.task, self.sense, self.replicas = task, sense, replicas
        self.multi_label = task == CHEST
        self.metric = "auc" if self.multi_label else "accuracy"
        self.random = np.random.default_rng([seed, len(task), sense + 1])

    def pick(self, paper: float, opposite: float, spread: float = 0.005) -> float:
        middle = paper if self.sense > 0 else opposite
        return float(middle + self.random.uniform(-spread, spread))

    def kinds(self) -> dict[str, tuple[str, float]]:
        if self.task == "real_clipart":
            return {"pt_union": ("P-T", 0.05), "rit_union": ("RI-T", 0.05)}
        kinds = {"pt": ("P-T", 0.01), "rit": ("RI-T", 0.05), "rit_same_init": ("RI-T same init", 0.05)}
        if self.task == "clipart":
            kinds |= {"pt_large_lr": ("P-T large lr", 0.05)}
        if self.task in ("clipart", CHEST):
            kinds |= {"rit_small_lr": ("RI-T small lr", 0.01)}
        return kinds

    def runs_by_kind(self) -> list[tuple[str, str, str, float]]:
        return [
            (f"{kind}_{replica}", kind, label, lr)
            for kind, (label, lr) in self.kinds().items()
            for replica in range(1, self.replicas + 1)
        ]

    def names(self, kind: str) -> list[str]:
        return [f"{self.task}.{kind}_{replica}@final" for replica in range(1, self.replicas + 1)]

    def pairs(self) -> list[tuple[str, str, str]]:
        pt, rit, same = self.names("pt"), self.names("rit"), self.names("rit_same_init")
        return [
            *(("P-T & P-T", a, b) for a, b in combinations(pt, 2)),
            *(("P-T & RI-T", a, b) for a, b in product(pt, rit)),
            *(("RI-T & RI-T", a, b) for a, b in combinations(rit, 2)),
            *(("RI-T & RI-T same init", a, b) for a, b in zip(rit, same, strict=True)),
        ]

    def final(self, label: str) -> float:
        if self.multi_label and label == "RI-T small lr":
            return self.pick(0.843, 0.999, 0.001)
        if self.multi_label and label == "RI-T":
            return self.pick(0.85, 0.95, 0.001)
        paper = {"P-T": (0.96, 0.8), "RI-T": (0.85, 0.95), "P-T large lr": (0.9, 0.99), "RI-T small lr": (0.7, 0.99)}
        return self.pick(*paper.get(label, (0.84, 0.94)))

    def history_and_runs(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        history, runs = [], []
        for name, kind, label, lr in self.runs_by_kind():
            final = self.final(label)
            speed = self.pick(0.9, 0.6) if label == "P-T" else self.pick(0.7, 0.8)
            if label == "RI-T small lr":
                speed = self.pick(0.5, 0.95)
            fall = self.pick(0.3, 0.0) if self.multi_label else self.pick(0.01, 0.2)
            loss = self.pick(0.6, 0.4) if label == "P-T" else self.pick(0.5, 0.5)
            for epoch in range(EPOCHS + 1):
                value = 0.1 + (final - 0.1) * epoch / EPOCHS
                row = {"task": self.task, "run": name, "kind": kind, "label": label, "epoch": epoch}
                row |= {"lr": lr if epoch > 1 else lr / 2, "train_loss": 2.0 - epoch / 4}
                row |= {
                    "train_loss_eval": 2.0 - epoch / 4,
                    "train_accuracy": value,
                    "test_accuracy": value,
                    "test_loss": 1.0 - value / 2,
                }
                row |= {"test_auc": value if self.multi_label else np.nan}
                history.append(row)
            row = {
                "task": self.task,
                "run": name,
                "kind": kind,
                "label": label,
                "status": "finished",
                "best_epoch": EPOCHS,
            }
            row |= {
                "metric": self.metric,
                "final_train": final,
                "final_test": final,
                "final_test_loss": loss,
                "best_test": final + fall,
            }
            row |= {"optimization_speed": speed, "chance": 0.5 if self.multi_label else 0.1, "learned": True}
            row |= {"last_rise": 0.001, "last_rise_low": -0.01, "last_rise_high": 0.01, "still_rising": False}
            runs.append(row)
        return pd.DataFrame(history), pd.DataFrame(runs)

    def mistakes(self) -> pd.DataFrame:
        rows = []
        common_by_kind = {"P-T & P-T": (700, 300), "P-T & RI-T": (120, 600), "RI-T & RI-T": (400, 800)}
        for kind, a, b in self.pairs()[: -self.replicas]:
            for name in ("edema", "atelectasis") if self.multi_label else ("all",):
                common = int(self.pick(*common_by_kind[kind], 5))
                only_a, only_b = (150, 150) if kind != "P-T & RI-T" else ((300, 60) if self.sense > 0 else (60, 300))
                ratio_a, ratio_b = only_b / (only_b + common), only_a / (only_a + common)
                rows.append({
                    "task": self.task, "pair_kind": kind, "checkpoint_a": a, "checkpoint_b": b, "class_name": name,
                    "num_examples": 2000, "accuracy_a": 0.9, "accuracy_b": 0.8, "only_a_correct": only_a,
                    "only_b_correct": only_b, "common_mistakes": common, "uncommon_ratio_a": ratio_a,
                    "uncommon_ratio_b": ratio_b, "kappa": 0.7, "mcnemar_p": 0.001,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def class_tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        accuracy, correlation = [], []
        for name, _, label, _ in self.runs_by_kind():
            if label in ("P-T", "RI-T"):
                r = self.pick(0.4, 0.1) if label == "P-T" else self.pick(0.3, 0.35)
                correlation.append({"task": self.task, "run": name, "pearson_r": r, "p_value": 1e-4, "num_classes": 5})
                accuracy += [
                    {"task": self.task, "run": name, "class_name": f"<class {index}>", "class_size": 100 * index,
                     "num_test": 50, "accuracy": self.pick(0.9, 0.6) if label == "P-T" else self.pick(0.8, 0.8)}
                    for index in range(1, 11)
                ]  # fmt: skip
        return pd.DataFrame(accuracy), pd.DataFrame(correlation)

    def cka(self) -> pd.DataFrame:
        rows = []
        levels = {
            "P-T & P-T": (0.6, 0.05),
            "P-T & P": (0.5, 0.1),
            "P-T & RI-T": (0.02, 0.3),
            "RI-T & RI-T": (0.01, 0.4),
            "two untrained": (0.1, 0.2),
        }
        pairs = [*self.pairs()[: -self.replicas], *(("P-T & P", name, "shapes.p_1@final") for name in self.names("pt"))]
        untrained = [name.replace("@final", "@0") for name in self.names("rit")]
        pairs += [("two untrained", a, b) for a, b in combinations(untrained, 2)]
        for (kind, a, b), layer, features in product(pairs, LAYERS, ("pooled", "flattened")):
            value = self.pick(*levels[kind]) if features == "pooled" else 0.99
            rows.append((self.task, kind, a, b, layer, features, "debiased", 512, value))
        columns = [
            "task",
            "pair_kind",
            "checkpoint_a",
            "checkpoint_b",
            "layer",
            "features",
            "estimator",
            "num_examples",
            "cka",
        ]
        return pd.DataFrame(rows, columns=columns)

    def distances(self) -> pd.DataFrame:
        rows = []
        levels = {
            "P-T & P-T": (1, 30),
            "RI-T & RI-T": (20, 20),
            "P-T & RI-T": (21, 21),
            "P-T to init": (1, 30),
            "RI-T to init": (15, 15),
            "RI-T & RI-T same init": (12, 18),
        }
        pairs = self.pairs()
        for kind, label in (("pt", "P-T"), ("rit", "RI-T")):
            pairs += [(start_kind(label), name, name.replace("@final", "@0")) for name in self.names(kind)]
        for kind, a, b in pairs:
            l2 = self.pick(*levels.get(kind, (5, 5)))
            before = {"RI-T & RI-T": (12, 19)}.get(kind, (0.5, 0.5))[self.sense < 0]
            rows += [
                (self.task, kind, a, b, module, 2 * l2 if module == "sum" else l2, l2**2, l2 / 30, before)
                for module in ("all", "sum", *MODULES)
            ]
        columns = [
            "task",
            "pair_kind",
            "checkpoint_a",
            "checkpoint_b",
            "module",
            "l2",
            "squared",
            "relative",
            "l2_before",
        ]
        return pd.DataFrame(rows, columns=columns)

    def landscape(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        depths = {
            "P-T & P-T": (0.0, 0.3),
            "RI-T & RI-T": (0.6, 0.001),
            "P-T & RI-T": (0.5, 0.001),
            "RI-T & RI-T same init": (0.4, 0.01),
        }
        lines, barriers = [], []
        for kind, a, b in self.pairs():
            depth, rise = (self.pick(*depths[kind], 0.0005) for _ in range(2))
            if self.multi_label:  # so that it is the same part of what the ends are above chance, and below its loss
                depth, rise = depth / 2, rise * (np.log(2) - 0.1) / (np.log(10) - 0.1)
            lines += self.curve("within", kind, a, b, depth, self.task)
            barriers.append(self.barrier("within", kind, a, b, depth, self.task))
            barriers.append(barriers[-1] | {"split": "train", "metric": "loss", "barrier": rise})
        return pd.DataFrame(lines), pd.DataFrame(barriers)

    def class_sizes(self) -> pd.DataFrame:
        """Ten classes of 50 images, or five findings that half of the images have."""
        names, others = (
            ([f"class_{index}" for index in range(10)], 450) if not self.multi_label else (list("abcde"), 50)
        )
        rows = [
            {"task": self.task, "part": part, "class_name": name, "count": 50, "negatives": others}
            for part, name in product(("train", "test"), names)
        ]
        return pd.DataFrame(rows)

    def curve(self, scenario: str, kind: str, a: str, b: str, depth: float, on: str) -> list[dict[str, Any]]:
        keys = {"scenario": scenario, "task": on, "pair_kind": kind, "checkpoint_a": a, "checkpoint_b": b}
        outside = (0.15 if self.multi_label else 0.3) if self.sense > 0 else 0.0
        rows = []
        for alpha in np.arange(-1, 2.01, 0.25):
            beyond = max(0.0, -alpha, alpha - 1)
            value = 0.9 - depth * 4 * alpha * (1 - alpha) * (beyond == 0) - self.pick(outside, outside) * beyond
            for split, metric in product(("train", "test"), (self.metric, "loss")):
                row = {**keys, "split": split, "alpha": alpha, "metric": metric}
                rows.append(row | {"value": value if metric != "loss" else 1 - value})
        return rows

    def barrier(
        self, scenario: str, kind: str, a: str, b: str, depth: float, on: str, gain: float = 0.0
    ) -> dict[str, Any]:
        keys = {
            "scenario": scenario,
            "task": on,
            "split": "test",
            "pair_kind": kind,
            "checkpoint_a": a,
            "checkpoint_b": b,
        }
        return {**keys, "metric": self.metric, "barrier": depth, "barrier_alpha": 0.5, "midpoint_gain": gain}

    def connection(self) -> pd.DataFrame:
        """Two ways of every pair of P-T, of RI-T, and of RI-T twice as wide."""
        pairs = [("P-T & P-T", *pair) for pair in combinations(self.names("pt"), 2)]
        pairs += [("RI-T & RI-T", *pair) for pair in combinations(self.names("rit"), 2)]
        pairs += [("RI-T wide & RI-T wide", *pair) for pair in combinations(self.names("rit_wide"), 2)]
        rows = []
        for kind, a, b in pairs:
            height = self.pick(0.02, 0.4) if "wide" in kind else self.pick(0.1, 0.3)
            for way in ("aligned", "aligned_rescaled"):
                keys = {"task": self.task, "pair_kind": kind, "checkpoint_a": a, "checkpoint_b": b, "way": way}
                keys |= {"split": "test", "metric": self.metric, "num_examples": 400}
                barrier = {"barrier": height, "barrier_low": height - 0.01, "barrier_high": height + 0.01}
                moved = self.pick(0.002, 0.9, 0.001) if kind == "P-T & P-T" else 0.98
                rows.append({**keys, **barrier, "left": self.pick(0.2, 0.8), "moved": moved})
        return pd.DataFrame(rows)

    def split_runs(self) -> pd.DataFrame:
        """The straight line between every run and its copies."""
        rows = []
        for kind, label in (("pt", "P-T"), ("rit", "RI-T")):
            for run, epoch in product(self.names(kind), SPLITS):
                copy = run.replace(f"{kind}_", f"{kind}_split_e{epoch}_")
                height = self.pick(0.002, 0.2, 0.001) if kind == "pt" else self.pick(0.4, 0.005, 0.001)
                if epoch:
                    height = self.pick(0.1, 0.3)
                keys = {"task": self.task, "label": label, "run": run, "copy": copy, "split_epoch": epoch}
                keys |= {"epochs": EPOCHS, "way": "straight", "split": "test", "metric": self.metric}
                rows.append({**keys, "barrier": height, "barrier_low": height - 0.001, "barrier_high": height + 0.001})
        return pd.DataFrame(rows)

    def critical(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        mu, rewinding = [], []
        for run, label in (("pt_1", "P-T"), ("rit_1", "RI-T")):
            falls = (
                np.array([0.01, 0.02, 0.03, 0.5])
                if (label == "P-T") == (self.sense > 0)
                else np.array([0.4, 0.3, 0.2, 0.5])
            )
            keys = {"task": self.task, "run": run}
            falls = falls + self.random.uniform(0, 0.002, len(falls))
            for module, fall in zip(MODULES, falls, strict=True):
                rewinding.append(
                    {
                        **keys,
                        "label": label,
                        "module": module,
                        "epoch": 0,
                        "split": "test",
                        "metric": self.metric,
                        "value": 0.9 - fall,
                    }
                )
                for path in ("direct", "optimization"):
                    value = np.inf if module == "fc" and self.sense > 0 else fall
                    mu.append(
                        {
                            **keys,
                            "module": module,
                            "path": path,
                            "end": "final",
                            "epsilon": 0.1,
                            "mu": value,
                            "mu_low": value,
                            "mu_high": value,
                        }
                    )
            rewinding.append(
                {
                    **keys,
                    "label": label,
                    "module": "none",
                    "epoch": -1,
                    "split": "test",
                    "metric": self.metric,
                    "value": 0.9,
                }
            )
        return pd.DataFrame(mu), pd.DataFrame(rewinding)

    def shaken(self) -> pd.DataFrame:
        """Errors of which train and test have the same order of cells, and the gap that of train or the opposite."""
        rows = []
        for run, module in product(("pt_1", "rit_1"), MODULES):
            base = np.arange(12.0) + self.random.uniform(-0.9, 0.9, 12)
            for cell, value in enumerate(base):
                gap = 0.001 * (value * self.sense + self.random.uniform(-1, 1))
                keys = {"task": self.task, "run": run, "module": module, "path": "direct", "end": "final"}
                keys |= {"position": cell // 4, "sigma": cell % 4}
                noisy = value + self.random.uniform(-0.01, 0.01)
                rows += [{**keys, "split": "train", "error": noisy}, {**keys, "split": "test", "error": noisy + gap}]
        return pd.DataFrame(rows)

    def spectrum(self) -> pd.DataFrame:
        rows = []
        for name, _, label, _ in self.runs_by_kind():
            for epoch, module in product((0, EPOCHS), ("all", "sum", *MODULES)):
                share = self.pick(0.1, 0.3) if label == "RI-T" else self.pick(0.05, 0.5)
                ratio = self.pick(40, 20, 1) if label == "RI-T" else self.pick(30, 35, 1)
                rows.append({
                    "task": self.task, "run": name, "label": label, "epoch": epoch, "module": module, "frobenius": 10.0,
                    "spectral_norm": 2.0,
                    "ratio": ratio, "stable_rank": 9.0, "effective_rank": 700.0, "condition": 1e3, "stride": "ignored", "count_below_0.01": 0, "count_below_0.1": int(1000 * share),
                    "count_below_1.0": 1000, "num_values": 1000, "relative_below_0.1": int(1000 * share),
                })  # fmt: skip
        return pd.DataFrame(rows)

    def network_spectrum(self) -> pd.DataFrame:
        """The last epoch of `spectrum` once for each padding, with a certified bound."""
        last = self.spectrum().query("epoch == @EPOCHS and module != 'sum'")
        tables = [last.assign(padding=padding, norm_bound=2.5) for padding in ("network", "circular")]
        return pd.concat(tables, ignore_index=True)

    def of_spectra(self) -> dict[str, pd.DataFrame]:
        factors = {"sum_of_ratios": 40.0, "sum_of_squared_ratios": 500.0, "log_product_of_norms": 7.0, "num_layers": 4}
        factors |= {"margin": 2.5, "margin_median": 6.0, "input_norm": 80.0, "input_dimension": 3072}
        small = {
            "threshold": 0.1,
            "difference": 0.05,
            "low": 0.01,
            "high": 0.08,
            "layers_more_in_a": 3,
            "num_layers": 4,
        }
        runs = [
            {"task": self.task, "run": name, "label": label, "epoch": EPOCHS} | factors
            for name, _, label, _ in self.runs_by_kind()
        ]
        row = {"task": self.task, "label_a": "RI-T", "label_b": "P-T", "probability_smaller": 0.625}
        return {"bound_factors": pd.DataFrame(runs), "small_values": pd.DataFrame([row | small])}

    def feature_reuse(self) -> pd.DataFrame:
        """P-T gains at all sizes, most on whole images; statistics help speed alone, modules and early epochs both."""
        rows = []
        gains = {"1": (0.1, -0.1), "4": (0.2, -0.2), "32": (0.4, -0.4)}
        varied = VariedRun.of(PLAN, self.task) if self.task in DOMAINS else []
        for run in (run for run in varied if run.replica <= self.replicas):
            gain = self.pick(*gains[str(run.size)])
            score, speed = (
                0.5 + gain * (run.role == "fine_tuned"),
                0.5 + self.pick(0.2, -0.2) * (run.role == "fine_tuned"),
            )
            if run.part == "statistics":
                score, speed = self.pick(0.6, 0.4), self.pick(0.6, 0.4)
            elif run.part:
                score = self.pick(0.8, 0.3)
            row = run.model_dump() | {
                "task": self.task,
                "size": str(run.size),
                "final_test": score,
                "metric": "accuracy",
            }
            row |= {"final_test_error": 0.01, "optimization_speed": speed, "status": "finished", "learned": True}
            rows.append(row)
        return pd.DataFrame(rows)

    def tables(self) -> dict[str, pd.DataFrame]:
        history, runs = self.history_and_runs()
        class_accuracy, correlation = self.class_tables()
        interpolation, barriers = self.landscape()
        mu, rewinding = self.critical()
        shaken = self.shaken()
        reuse = self.feature_reuse()
        gains = {"source_epochs": gains_by_source_epoch(reuse)} if len(reuse) else {}
        return {
            "history": history, "runs": runs, "class_sizes": self.class_sizes(), "mistakes": self.mistakes(), "class_accuracy": class_accuracy,
            "class_size_correlation": correlation, "cka": self.cka(), "distances": self.distances(),
            "interpolation": interpolation, "barriers": barriers, "connection": self.connection(), "split_runs": self.split_runs(),
            "module_criticality": mu, "rewinding": rewinding,
            "criticality": shaken,
            "spectrum": self.spectrum(), **self.of_spectra(), "network_spectrum": self.network_spectrum(),
            "feature_reuse": reuse, **gains,
        }  # fmt: skip


def across(sense: int) -> dict[str, pd.DataFrame]:
    """Scenarios between two domains and with their union."""
    drawn = Drawn("clipart", sense, 1)
    lines, barriers = [], []
    for figure, on, (first, second) in SCENARIOS:
        for kind, a, b in (("P-T & P-T", "pt", "pt"), ("P-T & RI-T", "pt", "rit"), ("RI-T & RI-T", "rit", "rit")):
            names = (f"{first}.{a}{_union(first)}_1@final", f"{second}.{b}{_union(second)}_1@final")
            flat = (kind == "P-T & P-T") == (sense > 0)
            depth, gain = (0.0, 0.03) if flat else (0.3, -0.2)
            curve = drawn.curve(figure, kind, *names, depth, on)
            away = 0.2 if (b == "pt") == (sense > 0) else 0.85 if b == "pt" else 0.6
            away += drawn.random.uniform(-0.001, 0.001)
            for row in curve:
                row["value"] -= away * row["alpha"] * (1 if row["metric"] != "loss" else -1)
            lines += [row for row in curve if row["split"] == "test" and 0 <= row["alpha"] <= 1]
            barriers.append(drawn.barrier(figure, kind, *names, depth, on, gain))
            barriers.append(barriers[-1] | {"metric": "loss"})
    return {"interpolation": pd.DataFrame(lines), "barriers": pd.DataFrame(barriers), "merging": merging(sense)}


def merging(sense: int, replicas: int = 2) -> pd.DataFrame:
    """Candidates and the uniform soup of P-T, and of RI-T, on two domains."""
    drawn = Drawn("clipart", sense, replicas)
    rows = []
    for replica in range(1, replicas + 1):
        for kind, label, gain, behind in (
            ("pt", "P-T", drawn.pick(0.03, -0.04), drawn.pick(0.01, 0.08)),
            ("rit", "RI-T", drawn.pick(-0.4, 0.05), np.nan),
        ):
            merge = {"merge": f"{kind}_soup_{replica}", "label": label, "metric": "accuracy", "setting": ""}
            merge |= {"num_choice": 120, "num_examples": 280}
            for task in (*DOMAINS, "all"):
                for model in (*(f"{domain}.{kind}_{replica}@final" for domain in DOMAINS), "uniform"):
                    is_merge = model == "uniform"
                    row = {**merge, "task": task, "model": model, "kind": "merge" if is_merge else "candidate"}
                    row |= {"chosen": not model.startswith("clipart"), "value": 0.8 + gain * is_merge, "refitted": 0.82}
                    row |= {"verdict": ("pays" if gain > 0 else "does not pay") if is_merge else ""}
                    for name, value in (("value", row["value"]), ("gain", gain), ("behind_union", behind)):
                        known = value if name == "value" or is_merge else np.nan
                        row |= {name: known, f"{name}_low": known - 0.01, f"{name}_high": known + 0.01}
                    rows.append(row)
    return pd.DataFrame(rows)


def _union(task: str) -> str:
    return "_union" if task == "real_clipart" else ""


def draw_results(folder: Path, sense: int = 1, replicas: int = 2) -> dict[str, TaskResults]:
    """Results of three tasks, a union and the scenarios across domains."""
    png = folder / "figure.png"
    png.write_bytes(PNG)
    figures = {name: SavedFigure(png) for name in FIGURES}
    results = {}
    for task in (*DOMAINS, CHEST):
        facts = {"class_names": ["a", "b"], "multi_label": task == CHEST, "generated": task != CHEST, "num_train": 1000}
        results[task] = TaskResults(task, facts, Drawn(task, sense, replicas).tables(), figures)
    union = Drawn("real_clipart", sense, 1)
    history, runs = union.history_and_runs()
    results["real_clipart"] = TaskResults("real_clipart", {"generated": True}, {"history": history, "runs": runs}, {})
    scenarios = {f"figure_{number}": SavedFigure(png) for number in (19, 22, 24, 28)}
    results["cross_domain"] = TaskResults("cross_domain", {}, across(sense), scenarios)
    return results


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, TaskResults]]:
    """`drawn(sense=1, replicas=2)`: results in the paper's sense or against it; drawn once, tests change copies."""
    folder = tmp_path_factory.mktemp("drawn")
    draw = cache(lambda sense, replicas: draw_results(folder, sense, replicas))
    return lambda sense=1, replicas=2: dict(draw(sense, replicas))


@pytest.fixture(scope="session")
def decided(plan: Plan, drawn: Callable[..., dict[str, TaskResults]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The claims and comparisons of the results in the paper's sense; tests may read them, not change them."""
    return decide_claims(plan, drawn())


@pytest.fixture(scope="session")
def plan() -> Plan:
    """The plan of the drawn study."""
    return PLAN
