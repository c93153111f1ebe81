"""Weights of several models of one architecture in common memory, computed and updated as one.

`torch.func.functional_call` under `torch.vmap` computes the forward passes of all models in as many kernels as one
model takes, and autograd the backward passes. The trained parameters of a model are a row of one matrix, so that
clipping and the update take a few kernels, too. BatchNorm writes its running statistics into the buffers of its own
model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor, nn

from transferscope.experiment.options import TrainingOptions
from transferscope.experiment.run_groups import SCHEDULE
from transferscope.models.duplicate import duplicate
from transferscope.models.layers import image_channels
from transferscope.models.logits import as_logits
from transferscope.models.memory_layout import first_weight
from transferscope.system.errors import one_line
from transferscope.training.device import draws
from transferscope.training.optim import make_optimizer, optimizer_over, parameter_groups, set_learning_rate

FAILURES = (RuntimeError, TypeError, ValueError, LookupError, AttributeError, AssertionError)
"""Errors of networks on images, or under vmap, that they were not written for."""

OF_A_TENSOR = ("step", "mu_product", "eta", "mu")
"""Entries of torch's optimizers that are one number for a tensor; all others have the shape of the tensor."""


@dataclass(frozen=True)
class _Place:
    """A parameter within the rows of its group."""

    name: str
    group: int
    start: int
    stop: int
    shape: torch.Size


class Stack:
    """Several models whose parameters and buffers are views of common tensors, and the optimizer of all of them.

    models: of one architecture, on one device, with the same frozen parts and modes. They change with the stack.
    trainings: those of the models, which differ in the learning rate and its schedule alone.
    optimizers: one for each model. They hold the state of their models after `hand_out`, as if each model were
    trained alone, and give it to the stack by `take_in`.
    """

    def __init__(self, models: Sequence[nn.Module], trainings: Sequence[TrainingOptions]) -> None:
        self.models = list(models)
        self.skeleton = duplicate(self.models[0])
        grouped = [parameter_groups(model, training) for model, training in zip(models, trainings, strict=True)]
        self.rows = [
            torch.stack([torch.cat([one.detach().flatten() for one in group["params"]]) for group in groups])
            .contiguous()
            .requires_grad_()
            for groups in zip(*grouped, strict=True)
        ]
        """A matrix for each group of parameters, a row for each model."""
        self._places = self._find_places(grouped[0])
        self._sizes = [[one.numel() for one in group["params"]] for group in grouped[0]]
        for index, model in enumerate(self.models):
            named = dict(model.named_parameters())
            for place in self._places:
                named[place.name].data = self._part(self.rows[place.group].detach()[index], place)
        self._kept = self._share_the_rest()

        # Neighbours of one schedule are updated by one kernel.
        numbered = enumerate(_schedule(training) for training in trainings)
        self._blocks = [[index for index, _ in block] for _, block in groupby(numbered, key=lambda item: item[1])]
        groups = [
            {"params": [nn.Parameter(rows.detach()[block[0] : block[-1] + 1])], "lr_factor": group["lr_factor"]}
            for block in self._blocks
            for rows, group in zip(self.rows, grouped[0], strict=True)
        ]
        self.optimizer = optimizer_over(groups, trainings[0])
        self.optimizers = [make_optimizer(model, own) for model, own in zip(self.models, trainings, strict=True)]

    def forward(self, images: Tensor) -> Tensor:
        """Outputs (models, B, num_classes) of `skeleton`'s mode, of images (models, B, channels, H, W)."""
        outputs: Tensor = torch.vmap(self._one)(tuple(self.rows), self._kept, images)
        return outputs

    def logits(self, images: Tensor) -> Tensor:
        """Logits (models, B, num_classes) of `skeleton`'s mode, of images (B, channels, H, W) that all models see."""

        def one(rows: tuple[Tensor, ...], kept: dict[str, Tensor], images: Tensor) -> Tensor:
            return as_logits(self._one(rows, kept, images), self.skeleton)

        logits: Tensor = torch.vmap(one, in_dims=(0, 0, None))(tuple(self.rows), self._kept, images)
        return logits

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for rows in self.rows:
            rows.grad = None

    def update(self, rates: Sequence[float], clip_norm: float | None) -> None:
        """Take an optimizer step with the gradients of `backward`, each model at its learning rate.

        clip_norm: largest l2 norm of the gradient of one model, as of `nn.utils.clip_grad_norm_`.
        """
        gradients = [rows.grad for rows in self.rows if rows.grad is not None]
        if clip_norm is not None:
            norms = torch.stack([torch.linalg.vector_norm(gradient, dim=1) for gradient in gradients])
            factors = (clip_norm / (torch.linalg.vector_norm(norms, dim=0) + 1e-6)).clamp(max=1.0)[:, None]
            for gradient in gradients:
                gradient.mul_(factors)
        groups = iter(self.optimizer.param_groups)
        for block in self._blocks:
            for gradient, group in zip(gradients, groups, strict=False):
                group["params"][0].grad = gradient[block[0] : block[-1] + 1]
                group["lr"] = rates[block[0]] * group["lr_factor"]
        self.optimizer.step()

    def are_finite(self) -> list[bool]:
        """For each model, true if no trained weight is infinite or not a number."""
        finite = torch.stack([rows.detach().isfinite().all(dim=1) for rows in self.rows]).all(dim=0)
        return [bool(value) for value in finite.tolist()]

    def hand_out(self, rates: Sequence[float]) -> None:
        """Give the state of the common optimizer to those of the models, with their last learning rates."""
        for own, rate in zip(self.optimizers, rates, strict=True):
            set_learning_rate(own, rate)
        for block, group, leaf in self._leaves():
            state = self.optimizer.state.get(leaf, {})
            for row, index in enumerate(block):
                for parameter, place in self._of_group(index, group):
                    self.optimizers[index].state[parameter] = {
                        key: self._part(value[row], place) if _is_matrix(value, leaf) else value
                        for key, value in state.items()
                    }

    def take_in(self) -> None:
        """Take the state of the common optimizer from those of the models."""
        for block, group, leaf in self._leaves():
            own = [
                [self.optimizers[index].state.get(parameter, {}) for parameter, _ in self._of_group(index, group)]
                for index in block
            ]
            self.optimizer.state[leaf] = {
                key: value
                if key in OF_A_TENSOR or not isinstance(value, Tensor)
                else torch.stack([torch.cat([entry[key].flatten() for entry in entries]) for entries in own])
                for key, value in own[0][0].items()
            }

    def _one(self, rows: tuple[Tensor, ...], kept: dict[str, Tensor], images: Tensor) -> Tensor:
        """The outputs of one model, under vmap."""
        # By one split, whose gradient is one concatenation; that of a slice is a whole row for each parameter.
        parts = [part for row, sizes in zip(rows, self._sizes, strict=True) for part in row.split(sizes)]
        weights = {place.name: part.view(place.shape) for place, part in zip(self._places, parts, strict=True)}
        outputs: Tensor = torch.func.functional_call(self.skeleton, (weights, kept), (images,))
        return outputs

    def _find_places(self, groups: list[dict[str, list[nn.Parameter]]]) -> list[_Place]:
        names = {id(parameter): name for name, parameter in self.models[0].named_parameters()}
        places = []
        for group, content in enumerate(groups):
            start = 0
            for parameter in content["params"]:
                stop = start + parameter.numel()
                places.append(_Place(names[id(parameter)], group, start, stop, parameter.shape))
                start = stop
        return places

    def _share_the_rest(self) -> dict[str, Tensor]:
        """Frozen parameters and buffers of all models by name, `(models, ...)`, of which the models get views."""
        trained = {place.name for place in self._places}
        rest = [
            {
                name: tensor
                for name, tensor in (*model.named_parameters(), *model.named_buffers())
                if name not in trained
            }
            for model in self.models
        ]
        kept = {name: torch.stack([own[name].detach() for own in rest]) for name in rest[0]}
        for index, own in enumerate(rest):
            for name, tensor in own.items():
                tensor.data = kept[name][index]
        return kept

    def _leaves(self) -> list[tuple[list[int], int, Tensor]]:
        """The models, the group and the matrix of each parameter of the common optimizer."""
        number = len(self.rows)
        return [
            (self._blocks[index // number], index % number, group["params"][0])
            for index, group in enumerate(self.optimizer.param_groups)
        ]

    def _of_group(self, index: int, group: int) -> list[tuple[nn.Parameter, _Place]]:
        """The parameters of a model in a group, and their places."""
        named = dict(self.models[index].named_parameters())
        return [(named[place.name], place) for place in self._places if place.group == group]

    @staticmethod
    def _part(row: Tensor, place: _Place) -> Tensor:
        return row[place.start : place.stop].view(place.shape)


def stacking_fault(model: nn.Module, training: TrainingOptions, side: int) -> str | None:
    """The reason why models of this architecture cannot train as one as each does alone; None where they can.

    None also where the model fails alone, which has a reason of its own. Tried on blank images of `side` pixels, with
    copies of the model.
    """
    if draws(model):
        return "its layers draw random numbers (dropout), which each run would draw otherwise than alone"
    copies = [duplicate(model).train() for _ in range(2)]
    weight = first_weight(model)
    images = torch.zeros(2, 2, image_channels(model), side, side, dtype=weight.dtype, device=weight.device)
    try:
        as_logits(copies[0](images[0]), copies[0]).sum().backward()
    except FAILURES:
        return None
    unused = [name for name, own in copies[0].named_parameters() if own.requires_grad and own.grad is None]
    if unused:
        return f"{unused[0]} gets no gradient: alone it stays as it is, and among others it would decay"
    try:
        Stack(copies, [training] * 2).forward(images).sum().backward()
    except FAILURES as error:
        return f"torch.vmap does not take it ({one_line(str(error))[:200]})"
    return None


def _schedule(training: TrainingOptions) -> dict[str, object]:
    return training.model_dump(include=set(SCHEDULE))


def _is_matrix(value: object, leaf: Tensor) -> bool:
    return isinstance(value, Tensor) and value.shape == leaf.shape
