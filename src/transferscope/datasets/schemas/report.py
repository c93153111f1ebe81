"""Tables of the report: the claims and the comparisons behind them."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import count, flag, number, ranged, share, table, text
from transferscope.datasets.schemas.names import METRIC

VERDICTS = ("holds", "does not hold", "cannot tell")

TABLES = {
    "claims": table(
        "A row per claim.",
        text("id", "name of the claim"),
        text("claim", "the claim in words"),
        text("source", "where the paper makes it"),
        text("paper", "figures of the paper", empty=True),
        text("verdict", "verdict by the rule that all claims share", *VERDICTS),
        *ranged(number("effect", "mean over the tasks, in `unit`"), prefix=""),
        text("unit", "unit of the effect", "score", "points", "share", "number", "coefficient"),
        count("num_runs", "runs in it", "runs"),
        count("num_comparisons", "comparisons that count", "comparisons"),
        text("reason", "reason of the verdict"),
        text("would_tell", "size of a study that would decide it", empty=True),
        text("covers", "other studies to which the interval reaches", empty=True),
        share("p", "two-sided, against the nearer end of what is claimed", "probability"),
        text("corrected", "verdict after correction for the number of claims", *VERDICTS),
        text("compares", "meaning of one comparison"),
        text("unfinished", "runs in it that were not trained to the end", empty=True),
        key=("id",),
    ),
    "claim_effects": table(
        "A row per comparison behind a claim.",
        text("id", "name of the claim"),
        text("place", "task or scenario"),
        text("unit", "runs or pairs that are compared"),
        number("first", "number of the first"),
        number("second", "number of the second; empty against a fixed bound"),
        number("value", "how far the number lies inside what is claimed"),
        METRIC,
        flag("counted", "whether it counts"),
        text("note", "reason why it is left out, or remark", empty=True),
        number("error", "standard error over test images", low=0),
    ),
}
