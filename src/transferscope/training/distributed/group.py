"""The processes that train one model together, as the training loop sees them (`device.OneProcess` is one alone)."""

from __future__ import annotations

from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from transferscope.models.duplicate import duplicate
from transferscope.models.image_input import is_known
from transferscope.system.errors import UserError
from transferscope.training.device import OneProcess

PATIENCE = timedelta(minutes=30)
"""Time that a process waits for the others in any exchange: the leader writes files meanwhile."""


def may_have_unused(model: nn.Module, images: Tensor) -> bool:
    """True if a pass may leave a trained parameter without a gradient; the model stays as it is.

    Of networks whose ways are known, one pass over `images` shows it; another may go other ways with other images.
    """
    if not is_known(model):
        return True
    trial = duplicate(model).train()
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        trial(images).sum().backward()
    return any(parameter.requires_grad and parameter.grad is None for parameter in trial.parameters())


class ProcessGroup(OneProcess):
    """The processes of `torch.distributed`'s default group, on one device each."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.rank = dist.get_rank()
        self.size = dist.get_world_size()

    def wrap(self, network: nn.Module, model: nn.Module, images: Tensor) -> nn.Module:
        """DistributedDataParallel; on GPUs BatchNorm takes its statistics over the whole batch.

        It looks for parameters without a gradient, a walk through the graph at each step, on the CPU and where a
        process may have any: with one answer in all processes, since they exchange other messages then. Raises
        UserError for BatchNorm on the CPU, where each process would normalise by its own share.
        """
        if any(isinstance(module, _BatchNorm) for module in network.modules()):
            if self.device.type == "cpu":
                raise UserError("training.num_processes: a model with BatchNorm trains in one process on the CPU")
            nn.SyncBatchNorm.convert_sync_batchnorm(network)
        devices = [self.device.index] if self.device.type == "cuda" else None
        # Else it would order its buckets anew after the first optimizer step of each process, and gradients of three
        # and more would then be added in another order after a restart. The same bytes are promised on the CPU alone.
        search = self.device.type == "cpu" or self._any(may_have_unused(model, images))
        return DistributedDataParallel(
            network, device_ids=devices, gradient_as_bucket_view=True, find_unused_parameters=search
        )

    def _any(self, own: bool) -> bool:
        """True if `own` is true in any process."""
        return bool(self.sum_(torch.tensor(float(own), device=self.device)) > 0)

    def sum_(self, tensor: Tensor) -> Tensor:
        dist.all_reduce(tensor)
        return tensor

    def wait(self) -> None:
        dist.barrier(device_ids=[self.device.index] if self.device.type == "cuda" else None)
