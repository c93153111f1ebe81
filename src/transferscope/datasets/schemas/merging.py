"""Tables of merging: scores of merged models beside those of what they were made of."""

from __future__ import annotations

from transferscope.datasets.schemas.column_kinds import count, flag, number, ranged, share, table, text
from transferscope.datasets.schemas.shared_columns import METRIC, NUM_EXAMPLES

TABLES = {
    "merging": table(
        "A row per merge, model and task, and one for the mean over the tasks.",
        text("merge", "name of the merge"),
        text("label", "label of the merged runs"),
        text("task", "name of the task, or `all`"),
        text("model", "method of a merge, or name of another model"),
        text("kind", "kind of model", "candidate", "ensemble", "union", "merge"),
        text("setting", "setting of the method", empty=True),
        METRIC,
        *ranged(share("value", "`metric` on the judging images", "metric")),
        share("refitted", "the same with a classifier fitted to the features", "metric"),
        *ranged(number("gain", "`value` less that of the chosen candidate", "metric", low=-1, high=1)),
        text(
            "verdict",
            "whether it pays; empty of what is no merge",
            "pays",
            "does not pay",
            "cannot tell",
            empty=True,
        ),
        *ranged(number("behind_union", "what a model trained on all images is better", "metric", low=-1, high=1)),
        number("choice_value", "mean over the tasks on the choosing images", "metric"),
        flag("chosen", "whether it is the candidate or the merge that other images chose"),
        count("num_choice", "choosing images", "images"),
        NUM_EXAMPLES,
        key=("merge", "task", "model", "setting"),
    ),
}
