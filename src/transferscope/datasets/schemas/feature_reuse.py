"""Tables of feature reuse and source epochs."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import count, name_or_number, number, share, table, text
from transferscope.datasets.schemas.names import CHANCE, EPOCH, LEARNED, METRIC, TASK
from transferscope.datasets.schemas.training import RATE, STATUS

RUN = text("run", "full name of the run, `clipart.pt_1`")

TABLES = {
    "feature_reuse": table(
        "A row per run that varies another one, and per run that is varied.",
        TASK,
        RUN,
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
