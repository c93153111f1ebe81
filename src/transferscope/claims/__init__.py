"""Claims of a study, and whether the tables bear them out.

A claim is a function under `claim` that yields every `Comparison` behind it. The paper's claims stand in `training`,
`mistakes`, `similarity`, `landscape`, `cross_domain`, `criticality` and `spectrum`.
"""

from transferscope.claims.comparisons import Comparison, Measured, against, compare, paired
from transferscope.claims.evidence import Evidence, TaskResults
from transferscope.claims.registry import claim

__all__ = ["Comparison", "Evidence", "Measured", "TaskResults", "against", "claim", "compare", "paired"]
