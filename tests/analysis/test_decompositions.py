"""Decompositions of many small matrices at once."""

from __future__ import annotations

import torch

from transferscope.analysis.decompositions import singular_values


def test_batches_of_other_sizes_are_decomposed_one_after_the_other() -> None:
    """All values in the order of the batches, descending in each matrix."""
    batches = [torch.randn(count, 3, 5, dtype=torch.float64) for count in (1, 7, 2)]
    expected = torch.cat([torch.linalg.svdvals(batch) for batch in batches])
    torch.testing.assert_close(singular_values(batches), expected)
