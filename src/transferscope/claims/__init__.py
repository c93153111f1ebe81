"""Claims of a study, and whether the tables bear them out.

A claim is a function under `claim` that gives a `Comparison` each time; the chapters `training` to `spectrum` hold the paper's.
"""

from transferscope.claims.comparisons import Comparison, Measured, against, compare, paired
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import claim

__all__ = ["Comparison", "Evidence", "Measured", "TaskResults", "against", "claim", "compare", "paired"]
