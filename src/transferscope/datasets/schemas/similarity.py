"""Tables of similarity: distances of weights, CKA of features."""

from __future__ import annotations

from transferscope.datasets.schemas.column_kinds import count, flag, number, optional, ranged, share, table, text
from transferscope.datasets.schemas.shared_columns import EPOCH, MODULE, NUM_EXAMPLES, PAIR, TASK

DISTANCE = (
    MODULE,
    number("l2", "l2 norm of the difference of the weights", low=0),
    number("squared", "`l2` squared", low=0),
    number("relative", "`l2` over the norm of the first weights", low=0),
    count("num_parameters", "weights in the module"),
    number("statistics_l2", "l2 norm of the difference of running statistics", low=0),
    count("num_statistics", "running statistics in the module"),
)
LAYERS = (
    text("layer", "layer of the first network"),
    text("layer_b", "layer of the second network"),
    text("features", "how the features of an image are made", "pooled", "flattened"),
    flag("linear", "whether a layer of the two is linear"),
)
CKA = (
    *PAIR,
    *LAYERS,
    text("estimator", "estimator of HSIC", "biased", "debiased", "minibatch"),
    NUM_EXAMPLES,
    *ranged(number("cka", "linear CKA, 1 where the features are alike"), prefix=""),
    number("permuted", "the same with the second model's examples in another order"),
)
OF_CKA = ("checkpoint_a", "checkpoint_b", "layer", "layer_b", "features", "estimator")

TABLES = {
    "identity": table(
        "A row per pair of checkpoint files: whether the two are one function.",
        *PAIR,
        flag("comparable", "whether both are of one architecture"),
        flag("equal", "whether all tensors are equal"),
        number("correlation", "correlation of the weights", low=-1, high=1),
        number("relative", "l2 distance of the weights over the norm of the first", low=0),
        share("moved", "part of the second network's channels that matching moves"),
        number("relative_matched", "`relative` once channels are matched", low=0),
        number("correlation_matched", "`correlation` once channels are matched", low=-1, high=1),
        text("not_matched", "reason why channels could not be matched", empty=True),
        text(
            "rounded_to",
            "number format in which tensors that differ are equal, once channels are matched",
            "float16",
            "bfloat16",
            empty=True,
        ),
        text("inputs", "images on which outputs were compared", "test images", "noise images"),
        count("num_inputs", "how many of them", "images", empty=True),
        number("output_difference", "largest difference of two logits over their standard deviation", low=0),
        text("not_compared", "reason why outputs could not be compared", empty=True),
        key=("checkpoint_a", "checkpoint_b"),
    ),
    "aligned_distances": table(
        "A row per pair of checkpoint files and module, with the second one's channels matched.",
        *PAIR,
        *DISTANCE,
        key=("checkpoint_a", "checkpoint_b", "module"),
    ),
    "distances": table(
        "A row per pair and module, `all` together, and their `sum`; of a pair, or of a run and its start.",
        *PAIR,
        *DISTANCE,
        *optional(number("l2_before", "`l2` of the initial weights", low=0)),
        key=("checkpoint_a", "checkpoint_b", "module"),
    ),
    "distance_travelled": table(
        "A row per run, saved epoch and module: the distance from the initial weights.",
        TASK,
        text("run", "full name of the run, `clipart.pt_1`"),
        text("label", "label of the run, as printed"),
        EPOCH,
        *DISTANCE,
        key=("run", "epoch", "module"),
    ),
    "cka": table("A row per pair, layer and estimator.", *CKA, key=OF_CKA),
    "cka_layers": table(
        "A row per pair, and layer of either network.",
        *CKA,
        text("label_a", "label of the first model"),
        text("label_b", "label of the second model"),
        key=OF_CKA,
    ),
    "second_opinion": table(
        "A row per pair, layer and other measure of similarity.",
        *PAIR,
        *LAYERS,
        NUM_EXAMPLES,
        text("measure", "name of the measure"),
        number("value", "the measure, 1 where the features are alike"),
        number("permuted", "the same with the second model's examples in another order"),
        key=("checkpoint_a", "checkpoint_b", "layer", "layer_b", "features", "measure"),
    ),
}
