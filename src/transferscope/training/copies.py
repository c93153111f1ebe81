"""Copies of a run that go their own way from some epoch on."""

from __future__ import annotations

import logging

import torch

from transferscope.models.series import CheckpointSeries

log = logging.getLogger(__name__)


def report_difference(copy: CheckpointSeries, parent: CheckpointSeries, split_epoch: int) -> float:
    """The largest difference of a weight at the last epoch up to the split that both keep; not 0 is a warning.

    A copy trains the shared epochs again, from the same seeds. On the CPU, and on one kind of GPU with
    `training.deterministic`, that gives the same bytes.
    """
    shared = [epoch for epoch in copy.epochs if epoch <= split_epoch and epoch in parent.epochs]
    epoch = max(shared)  # epoch 0 is always kept
    own, other = (series.load(epoch).state_dict for series in (copy, parent))
    largest = max(float((own[key].double() - other[key].double()).abs().max()) for key in other if other[key].numel())
    if not all(torch.equal(own[key], other[key]) for key in other):
        log.warning(
            "%s is no exact copy of %s: at epoch %d, before they split, weights differ by up to %.1e; they were "
            "trained on different hardware, with several processes, or without training.deterministic",
            copy.name,
            parent.name,
            epoch,
            largest,
        )
    return largest
