"""Tables of analyses of the user's own: the names of what was measured are checked, other columns are free."""

from __future__ import annotations

from transferscope.datasets.schemas.columns import optional, table, text
from transferscope.datasets.schemas.names import EPOCH, PAIR, TASK

PREFIX = "own_"

TABLES = {
    f"{PREFIX}<name>": table(
        "Rows of your own analysis: of a run, or of a pair.",
        TASK,
        *optional(text("run", "full name of the run"), EPOCH, *PAIR[1:]),
        open=True,
    )
}
