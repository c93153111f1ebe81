"""Columns that the tables of several pipelines have."""

from __future__ import annotations

from transferscope.datasets.schemas.column_kinds import count, flag, number, text

PARTS = ("train", "test", "validation")

TASK = text("task", "name of the task")
RUN = (TASK, text("run", "name of the run in its task"), text("label", "label of the run, as printed"))
EPOCH = count("epoch", "epoch of the checkpoint, 0 before the first", "epochs")
CHECKPOINTS = (
    text("checkpoint_a", "first checkpoint, `clipart.pt_1@final`"),
    text("checkpoint_b", "second checkpoint"),
)
PAIR = (TASK, text("pair_kind", "labels of both runs, `P-T & RI-T`, or what they are to each other"), *CHECKPOINTS)
PART = text("part", "part of the task's images", *PARTS)
SPLIT = text("split", "part of the task on which it was measured", *PARTS)
METRIC = text("metric", "accuracy, auc, auc/<class>, loss (nats), or another name of a metric")
CLASS = text("class_name", "class or finding, or `all`")
MODULE = text("module", "module or layer of the network")
NUM_EXAMPLES = count("num_examples", "examples on which it was measured", "examples")
CHANCE = number("chance", "metric of a model without knowledge", "metric", low=0, high=1)
LEARNED = flag("learned", "whether the final test metric is above chance by three standard errors")
