"""Independent nodes side by side, one thread each: the default of `kedro run`."""

from __future__ import annotations

import os
from typing import Any

from kedro.pipeline import Pipeline
from kedro.runner import ThreadRunner


class CoresRunner(ThreadRunner):
    """Runs as many nodes at once as the machine has cores, each on one core; where there is a GPU, one after the other.

    Small networks gain little from several threads within an operation, and nearly all from a second run beside the
    first: on two cores 1.8 times against 1.2 (docs/log.md). The number of threads does not change what is computed in
    which order, so results are those of one run after the other with one thread.
    """

    def __init__(self, max_workers: int | None = None, is_async: bool = False):
        super().__init__(max_workers=max_workers, is_async=is_async)

    def _get_required_workers_count(self, pipeline: Pipeline) -> int:
        import torch

        cores = os.cpu_count() or 1
        if self._max_workers is None:
            self._max_workers = 1 if torch.cuda.is_available() else cores
        torch.set_num_threads(max(1, cores // self._max_workers))
        return min(self._max_workers, max(1, len(pipeline.nodes)))

    def _run(self, *arguments: Any, **options: Any) -> None:
        from transferscope.memory import keep_freed_memory

        keep_freed_memory()
        super()._run(*arguments, **options)
