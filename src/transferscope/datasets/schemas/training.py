"""Tables of training: the course of every run, and where it ended."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import count, flag, number, optional, ranged, share, table, text
from transferscope.datasets.schemas.names import CHANCE, EPOCH, LEARNED, METRIC, TASK

RUN = text("run", "name of the run")
KIND = (text("kind", "key of the run in the parameters"), text("label", "label of the run, as printed"))
RATE = number("lr", "learning rate; empty where nothing was trained", low=0)
STATUS = text("status", "whether the training came to its end", "finished", "diverged")
METRICS = (
    number("train_loss", "mean over the batches of the epoch, while the weights changed", "nats"),
    *(
        number(f"^{part}_{name}$", f"loss on the {part} part, empty where not measured", "nats", pattern=True)
        for part, name in (("train", "loss_eval"), ("test", "loss"), ("validation", "loss"))
    ),
    share(r"^(train|test|validation)_accuracy$", "accuracy, empty where not measured", pattern=True),
    share(r"^(train|test|validation)_auc(/.+)?$", "AUC, mean over the findings or of one", "AUC", pattern=True),
)

TABLES = {
    "history": table(
        "A row per epoch of a run, the untrained model included.",
        TASK,
        RUN,
        EPOCH,
        RATE,
        *METRICS,
        key=("run", "epoch"),
    ),
    "history.table": table("A row per run and epoch.", TASK, RUN, *KIND, EPOCH, RATE, *METRICS, key=("run", "epoch")),
    "runs": table(
        "A row per run: where it ended, how fast it learned.",
        TASK,
        RUN,
        *KIND,
        RATE,
        STATUS,
        METRIC,
        count("epochs", "epoch of the last measurement", "epochs"),
        share("final_train", "`metric` on train at the end", "metric"),
        share("final_test", "`metric` on test at the end", "metric"),
        share("best_test", "`metric` on test at `best_epoch`", "metric"),
        count("best_epoch", "epoch of the best `metric` on `chosen_on`", "epochs"),
        text("chosen_on", "part on which the best epoch was chosen", "test", "validation"),
        number("final_train_loss", "loss on train at the end", "nats"),
        number("final_test_loss", "loss on test at the end", "nats"),
        share("optimization_speed", "train metric, mean over the measured epochs", "metric"),
        *ranged(number("last_rise", "gain of the train metric per epoch at the end", "metric per epoch")),
        flag("still_rising", "whether the run was stopped before it was trained to the end"),
        CHANCE,
        LEARNED,
        key=("run",),
    ),
    "timings": table(
        "A row per run that was trained here.",
        TASK,
        RUN,
        count("epochs", "epochs trained", "epochs"),
        number("seconds", "time of training and evaluation", "s", low=0),
        *optional(number("images_per_second", "median speed of training", "images/s", low=0)),
        key=("run",),
    ),
}
