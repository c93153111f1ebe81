"""Following one forward pass operation by operation: which axis of which tensor is tied to which.

The network is run once on an example under a dispatch mode of torch, so that every ATen operation that it computes is
seen with its arguments, whatever Python code called it: no symbolic tracing that control flow could defeat. Each
operation has a rule in terms of `labels`. One without a rule keeps the channels that it touches in place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from transferscope.analysis.alignment.rules import CONSTANTS, rule_of
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


class Watcher(TorchDispatchMode):
    """A dispatch mode that does not load torch's compiler, which takes seconds and is not used."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Follower(Watcher):
    """Keeps the labels of all tensors of a forward pass."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
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

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        if any(tensor in self.known for tensor in leaves):
            for tensor in leaves:
                self.used.update(self.keys.get(tensor, ()))
            self.wires.operation = str(func.overloadpacket)
            self._record(func, args, kwargs, leaves, result)
        return result

    def _record(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor], result: Any) -> None:
        name = func.overloadpacket.__name__
        outputs = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
        if not outputs or name in CONSTANTS:
            return
        if func._schema.is_mutable and leaves[0] not in self.known and leaves[0]._is_view():
            self._keep_all(leaves)  # written into a part of a constant: its other views do not know
            return
        self.output_shape = tuple(outputs[0].shape)
        rule = rule_of(func, name)
        labels = rule(self, func, args, kwargs, leaves) if rule else None
        if labels is None:
            self._keep_all(leaves)
            labels = [Labels(tuple(output.shape)) for output in outputs]
        for output, label in zip(outputs, labels, strict=False):
            assert tuple(output.shape) == label.shape, f"{name}: {tuple(output.shape)}, {label.shape}"
            self.known[output] = label

    def _keep_all(self, leaves: list[Tensor]) -> None:
        for tensor in leaves:
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


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, nn.MultiheadAttention computes by its own operations and not in one that has no parts."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def follow(model: nn.Module, image: Tensor) -> tuple[Follower, object]:
    """Run the model, which is in evaluation mode, on one example; what was found, and the output."""
    follower = Follower(model)
    follower.known[image] = Labels(tuple(image.shape))
    with torch.no_grad(), plain_attention(), follower:
        output = model(image)
    for tensor in tree_flatten(output)[0]:
        for factor in follower.known[tensor].factors if isinstance(tensor, Tensor) and tensor in follower.known else ():
            follower.wires.keep(factor)
    return follower, output
