"""Columns of the project's tables: their heading for people and the format of their numbers.

A column that is not here has its name as heading, without underscores, and plain numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from transferscope.tables.formats import Format, decimals, metric_name, percent, plain, points, rough


@dataclass(frozen=True)
class Column:
    """Title, format and help of a column."""

    heading: str
    show: Format = plain


def column(name: str) -> Column:
    """The column of that name."""
    return COLUMNS.get(name) or Column(name.replace("_", " "))


def _columns(show: Format, **headings: str | None) -> dict[str, Column]:
    return {name: Column(heading or name.replace("_", " "), show) for name, heading in headings.items()}


COLUMNS: Mapping[str, Column] = {
    **_columns(
        plain,
        pair_kind="pair",
        checkpoint_a="first",
        checkpoint_b="second",
        class_name="class",
        num_examples="examples",
        num_test="test examples",
        class_size="train examples",
        only_a_correct="only first right",
        only_b_correct="only second right",
        num_classes="classes",
        source_width_median="source width",
        source_height_median="source height",
        num_dropped="dropped",
        mu="criticality μ",
        images_needed="needed",
        mu_low="μ, low",
        mu_high="μ, high",
        epsilon="ε",
    ),
    **_columns(
        percent,
        accuracy_a="accuracy, first",
        accuracy_b="accuracy, second",
        uncommon_ratio_a="uncommon, first",
        uncommon_ratio_b="uncommon, second",
        negative_flip_rate="turn wrong",
        positive_flip_rate="turn right",
        changed="other prediction",
        same_wrong="same wrong answer",
        **dict.fromkeys((
            "accuracy", "train_accuracy", "test_accuracy", "optimization_speed", "fraction", "fraction_of_a",
            "train_fraction", "test_fraction", "part_of_gain",
        )),
    ),
    **_columns(
        points,
        accuracy_gain="gain in accuracy (points)",
        detectable_difference="detectable difference (points)",
        uncommon_ratio_difference="uncommon, second - first (points)",
    ),
    **_columns(
        decimals,
        pearson_r="Pearson r",
        cka="CKA",
        barrier_alpha="at alpha",
        kappa_max="κ max",
        kappa_p="κ p",
        excess_overlap="excess overlap",
        brier="Brier",
        brier_rise="Brier, second - first",
        overconfidence="overconfidence",
        ece="ECE",
        ece_if_calibrated="ECE if calibrated",
        rms_error="RMS error",
        **dict.fromkeys((
            "kappa", "difference", "barrier", "barrier_low", "barrier_high", "midpoint_gain", "gain_low", "gain_high",
            "largest_gap", "barrier_se", "gain_se", "last_rise", "last_rise_low", "last_rise_high",
            "train_loss", "test_loss", "final_train_loss", "final_test_loss", "train_auc", "test_auc",
        )),
    ),
    **_columns(
        rough,
        mcnemar_p="McNemar p",
        p_holm="p (Holm)",
        p_value="p",
        **dict.fromkeys(("hours", "training_hours", "evaluation_hours", "gigabytes")),
    ),
    **_columns(metric_name, metric=None),
}  # fmt: skip
"""By the exact name of the column in the tables."""
