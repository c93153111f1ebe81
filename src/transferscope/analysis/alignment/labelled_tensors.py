"""The labels of the tensors of one forward pass: which axis of which tensor is tied to which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils.weak import WeakTensorKeyDictionary

from transferscope.analysis.alignment.wires import Labels, Wires, collapse


@dataclass(frozen=True)
class Tap:
    """The activations that a contraction reads: its number in the pass, which argument, its factors."""

    number: int
    argument: int
    labels: Labels


@dataclass(frozen=True)
class Placement:
    """Wires along one axis of a tensor of the state_dict."""

    key: str
    axis: int
    wires: Tensor
    """(positions,) along the axis; in a grouped convolution's second axis (groups * size,), group by group."""
    groups: int = 1


class LabelledTensors:
    """Labels of the tensors of a network and of all that its forward pass has made of them.

    Args:
        model: The network, whose every position along every axis of the state_dict gets a wire of its own.
    """

    def __init__(self, model: nn.Module) -> None:
        self.wires = Wires()
        self.known: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.placements: list[Placement] = []
        self.taps: list[Tap] = []
        self.used: set[str] = set()
        self.keys: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
        self.contractions = 0
        self.output_shape: tuple[int, ...] = ()
        self._label_state(model)

    def _label_state(self, model: nn.Module) -> None:
        groups_of = {id(layer.weight): layer.groups for layer in model.modules() if isinstance(layer, _ConvNd)}
        tensors: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
        tensors.update(model.named_buffers(remove_duplicate=False))
        for key in model.state_dict():
            tensor = tensors.get(key)
            if tensor is None or not tensor.is_floating_point():
                continue
            if tensor in self.known:  # shared between modules: one tensor under two names
                first = [place for place in self.placements if place.key == self.keys[tensor][0]]
                self.keys[tensor].append(key)
                self.placements += [replace(place, key=key) for place in first]
                continue
            self.keys[tensor] = [key]
            self.known[tensor] = self._fresh(key, tensor, groups_of.get(id(tensor), 0))

    def _fresh(self, key: str, tensor: Tensor, groups: int) -> Labels:
        """A new wire for each position of each axis; along the second axis of a grouped convolution, for each group.

        `groups` is 0 for what is no convolution's kernel, whose last axes are positions.
        """
        factors = []
        for axis, size in enumerate(tensor.shape[:2] if groups else tensor.shape):
            if groups > 1 and axis == 1:
                own = self.wires.fresh(groups * size)
                self.placements.append(Placement(key, axis, own, groups))
                rows = own.reshape(groups, size).repeat_interleave(len(tensor) // groups, dim=0)
                factors.append(collapse(rows.reshape(*rows.shape, *(1,) * (tensor.dim() - 2))))
            elif size > 1:
                own = self.wires.fresh(size)
                self.placements.append(Placement(key, axis, own))
                factors.append(own.reshape([-1 if other == axis else 1 for other in range(tensor.dim())]))
        return Labels(tuple(tensor.shape), tuple(factors), live=False)

    def keep_all(self, tensors: Sequence[Tensor]) -> None:
        """Keep the channels of tensors in place."""
        for tensor in tensors:
            for factor in self.known[tensor].factors if tensor in self.known else ():
                self.wires.keep(factor, reason=True)

    def combine(self, tensors: Sequence[Any]) -> Labels:
        """`Wires.combine` of tensors, constants among them; what is no tensor is a number."""
        tensors = [tensor for tensor in tensors if isinstance(tensor, Tensor)]
        known = [self.known[tensor] for tensor in tensors if tensor in self.known]
        return self.wires.combine(known, [tensor for tensor in tensors if tensor not in self.known])

    def labels_of(self, tensor: Tensor) -> Labels:
        """Labels of a tensor; a constant has none."""
        return self.known[tensor] if tensor in self.known else Labels(tuple(tensor.shape), (), live=False)

    def contract(self, one: Labels, other: Labels, axis: int) -> Labels:
        """Product, element by element, of labels that broadcast together, and sum over `axis`, which is dropped."""
        return self.wires.reduced(self.wires.combine([one, other]), [axis], keepdim=False)

    def tap(self, argument: int, labels: Labels) -> None:
        """Note what a contraction reads from the network's input on."""
        if labels.live and labels.factors:
            self.taps.append(Tap(self.contractions, argument, labels))
