"""Tables of feature reuse and source epochs."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import (
    count,
    name_or_number,
    number,
    optional,
    ranged,
    share,
    table,
    text,
)
from transferscope.datasets.schemas.names import CHANCE, EPOCH, LEARNED, METRIC, TASK
from transferscope.datasets.schemas.training import RATE, STATUS

RUN = text("run", "full name of the run, `clipart.pt_1`")

TABLES = {
    "feature_reuse": table(
        "A row per run that varies another one, and per run that is varied.",
        TASK,
        RUN,
        *optional(text("origin", "kind of run that is varied")),
        text("label", "label of the kind that is varied"),
        text("role", "role of the run in a comparison"),
        count("replica", "number of the replica, from 1", low=1),
        text("series", "kind of variation, `whole` of runs that are varied"),
        name_or_number("size", "side of the blocks in pixels, or `values`"),
        count("side", "side of the images", "px", low=1),
        text("part", "part that is taken or trained; empty where it is everything", empty=True),
        name_or_number("source_epoch", "epoch of the pre-trained model; empty from scratch", empty=True),
        STATUS,
        RATE,
        METRIC,
        share("final_train", "`metric` on train at the end", "metric"),
        share("final_test", "`metric` on test at the end", "metric"),
        number("final_test_error", "standard error of `final_test` over test images", "metric", low=0),
        share("best_test", "best `metric` on test", "metric"),
        share("optimization_speed", "train metric, mean over the measured epochs", "metric"),
        CHANCE,
        LEARNED,
        key=("run",),
    ),
    "source_epochs": table(
        "A row per epoch of the pre-trained run from which others start.",
        TASK,
        name_or_number("source_epoch", "epoch of the pre-trained model"),
        count("runs", "runs that start there", "runs"),
        METRIC,
        share("final_test", "`metric` on test at the end, mean over the runs", "metric"),
        share("optimization_speed", "train metric, mean over the measured epochs and the runs", "metric"),
        *ranged(number("gain", "`final_test` less the mean of runs from scratch", "metric", low=-1, high=1)),
        number("part_of_gain", "`gain` over that from the last epoch", "share"),
        *(
            name_or_number(f"first_epoch{end}", meaning, empty=True)
            for end, meaning in (
                ("", "first epoch with 95 % of the gain from the last one"),
                ("_low", "lower end of its 95 % interval"),
                ("_high", "upper end of its 95 % interval"),
            )
        ),
        text("note", "reason why one of them is missing, and runs that were left out", empty=True),
        key=("source_epoch",),
    ),
    "along_pretraining": table(
        "A row per kept epoch of the pre-trained run and layer.",
        RUN,
        EPOCH,
        METRIC,
        share("score", "`metric` on test images", "metric"),
        text("layer", "layer of the network"),
        number("cka_to_final", "linear CKA with the last epoch"),
        number("stable_rank", "mean over the layers", low=0),
        number("spectral_norm", "mean over the layers", low=0),
        key=("run", "epoch", "layer"),
    ),
}
