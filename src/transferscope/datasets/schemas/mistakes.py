"""Tables of mistakes: shared mistakes, replacement of one model by another, calibration."""

from __future__ import annotations

import pandera.pandas as pa

from transferscope.datasets.schemas.columns import (
    count,
    interval,
    name_or_number,
    number,
    optional,
    ranged,
    share,
    table,
    text,
)
from transferscope.datasets.schemas.names import CLASS, NUM_EXAMPLES, PAIR, RUN, TASK


def difference(name: str, meaning: str) -> pa.Column:
    """A difference of two shares."""
    return number(name, meaning, "share", low=-1, high=1)


def p_value(name: str, meaning: str) -> pa.Column:
    """A probability under a hypothesis."""
    return share(name, meaning, "probability")


def coefficient(name: str, meaning: str) -> pa.Column:
    """A coefficient of agreement of at most 1."""
    return number(name, meaning, high=1)


ACCURACIES = tuple(
    share(f"accuracy_{x}", f"share that the {which} model gets right") for x, which in (("a", "first"), ("b", "second"))
)
FLIPS = (
    count("negative_flips", "right before, wrong after", "examples"),
    count("positive_flips", "wrong before, right after", "examples"),
    *ranged(share("negative_flip_rate", "`negative_flips` of all examples")),
    *ranged(share("positive_flip_rate", "`positive_flips` of all examples")),
    *ranged(difference("accuracy_gain", "accuracy of the second less that of the first")),
    p_value("p_value", "of McNemar's exact test that both are right equally often"),
)
RATIOS = tuple(
    share(f"uncommon_ratio_{x}", f"part of the {which} model's mistakes that the other avoids; empty if it makes none")
    for x, which in (("a", "first"), ("b", "second"))
)
KAPPA = coefficient("kappa", "Cohen's kappa of being right; empty if undefined")
DIFFERENCES = (
    difference("accuracy_difference", "accuracy of the first less that of the second"),
    difference("uncommon_ratio_difference", "`uncommon_ratio_b` less `uncommon_ratio_a`"),
)

TABLES = {
    "mistakes": table(
        "A row per pair and class: which of two models is right.",
        *PAIR,
        CLASS,
        NUM_EXAMPLES,
        *ACCURACIES,
        count("only_a_correct", "only the first is right", "examples"),
        count("only_b_correct", "only the second is right", "examples"),
        count("common_mistakes", "both are wrong", "examples"),
        *RATIOS,
        KAPPA,
        p_value("mcnemar_p", "of McNemar's exact test that both are right equally often"),
        *optional(*DIFFERENCES, *(end for one in (*ACCURACIES, *RATIOS, KAPPA, *DIFFERENCES) for end in interval(one))),
        *optional(
            *(
                count(f"num_predicted_{x}", f"examples on which the {which} model predicts the finding", empty=True)
                for x, which in (("a", "first"), ("b", "second"))
            )
        ),
        key=("checkpoint_a", "checkpoint_b", "class_name"),
    ),
    "mistakes_spread": table(
        "A row per kind of pair, class and statistic: its spread over the pairs.",
        TASK,
        text("pair_kind", "labels of both runs"),
        CLASS,
        text("statistic", "column of the mistakes"),
        count("num_pairs", "pairs", "pairs", low=1),
        *(
            number(name, f"{name} over the pairs, in the unit of the statistic")
            for name in ("mean", "std", "min", "max")
        ),
        *ranged(number("mean", ""), prefix="")[1:],
        key=("pair_kind", "class_name", "statistic"),
    ),
    "replacement": table(
        "A row per pair and question: whether the second model can replace the first.",
        *PAIR,
        CLASS,
        NUM_EXAMPLES,
        *ACCURACIES,
        *FLIPS,
        text("answer", "whether the second can replace the first", "yes", "no", "cannot tell"),
        *ranged(share("changed", "share of examples with another prediction")),
        *ranged(share("same_wrong", "share of the common mistakes with the same wrong answer")),
        *ranged(KAPPA),
        coefficient("kappa_max", "largest kappa that both accuracies allow"),
        *ranged(coefficient("excess_overlap", "kappa over its largest value")),
        *ranged(coefficient("kappa_p", "agreement of the probabilities beyond chance")),
        *ranged(number("brier_rise", "Brier score of the second less that of the first", low=-2, high=2)),
        number("images_needed", "images that would tell the two apart", "images", low=0),
        number("detectable_difference", "gain that these images would show", "share", low=0),
        key=("checkpoint_a", "checkpoint_b", "class_name"),
    ),
    "flips": table(
        "A row per pair, question and group of examples.",
        *PAIR,
        CLASS,
        text("group", "`all`, `class`, or a column of the examples"),
        name_or_number("value", "value of that column, or `all`"),
        NUM_EXAMPLES,
        *ACCURACIES,
        *FLIPS,
        p_value("p_holm", "`p_value` corrected for the number of rows of the group"),
        key=("checkpoint_a", "checkpoint_b", "class_name", "group", "value"),
    ),
    "calibration": table(
        "A row per run and question.",
        *RUN,
        CLASS,
        NUM_EXAMPLES,
        share("accuracy", "share that is right"),
        *ranged(number("brier", "Brier score", low=0, high=2)),
        *ranged(difference("overconfidence", "mean confidence less the share that is right")),
        share("ece", "expected calibration error"),
        share("ece_if_calibrated", "the same of a calibrated model, by chance"),
        *ranged(share("rms_error", "root mean square error of the confidence")),
        key=("run", "class_name"),
    ),
    "reliability": table(
        "A row per run, question and bin of the confidence.",
        *RUN,
        CLASS,
        share("bin_low", "lower end of the bin"),
        share("bin_high", "upper end of the bin"),
        NUM_EXAMPLES,
        share("confidence", "mean confidence"),
        *ranged(share("rate", "share that is right")),
        key=("run", "class_name", "bin_low"),
    ),
    "class_accuracy": table(
        "A row per run and class.",
        *RUN,
        CLASS,
        count("class_size", "examples of the class in train", "examples"),
        count("num_test", "examples of the class in test", "examples"),
        share("accuracy", "share of those in test that is right"),
        key=("run", "class_name"),
    ),
    "class_size_correlation": table(
        "A row per run, and one per label for the mean over its runs.",
        TASK,
        text("run", "name of the run, or `mean`"),
        text("label", "label of the run, as printed"),
        number("pearson_r", "correlation of size and accuracy of a class", low=-1, high=1),
        p_value("p_value", "that there is none"),
        count("num_classes", "classes", "classes"),
        key=("run", "label"),
    ),
}
