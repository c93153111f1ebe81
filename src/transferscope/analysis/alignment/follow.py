"""Following one forward pass operation by operation: which axis of which tensor is tied to which.

The network is run once on an example under a dispatch mode of torch, so that every ATen operation that it computes is
seen with its arguments, whatever Python code called it: no symbolic tracing that control flow could defeat. Each
operation has a rule in terms of `labels`. One without a rule keeps the channels that it touches in place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from transferscope.analysis.alignment.labelled_tensors import LabelledTensors
from transferscope.analysis.alignment.rules import CONSTANTS, rule_of
from transferscope.analysis.alignment.wires import Labels


class Watcher(TorchDispatchMode):
    """A dispatch mode that does not load torch's compiler, which takes seconds and is not used."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False


class Follower(Watcher):
    """Labels what each operation makes, by its rule."""

    def __init__(self, tensors: LabelledTensors) -> None:
        super().__init__()
        self.tensors = tensors

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        leaves = [leaf for leaf in tree_flatten((args, kwargs))[0] if isinstance(leaf, Tensor)]
        if any(tensor in self.tensors.known for tensor in leaves):
            for tensor in leaves:
                self.tensors.used.update(self.tensors.keys.get(tensor, ()))
            self.tensors.wires.operation = str(func.overloadpacket)
            self._record(func, args, kwargs, leaves, result)
        return result

    def _record(self, func: Any, args: Any, kwargs: dict[str, Any], leaves: list[Tensor], result: Any) -> None:
        name = func.overloadpacket.__name__
        outputs = [leaf for leaf in tree_flatten(result)[0] if isinstance(leaf, Tensor)]
        if not outputs or name in CONSTANTS:
            return
        if func._schema.is_mutable and leaves[0] not in self.tensors.known and leaves[0]._is_view():
            self.tensors.keep_all(leaves)  # written into a part of a constant: its other views do not know
            return
        self.tensors.output_shape = tuple(outputs[0].shape)
        rule = rule_of(func, name)
        labels = rule(self.tensors, func, args, kwargs, leaves) if rule else None
        if labels is None:
            self.tensors.keep_all(leaves)
            labels = [Labels(tuple(output.shape)) for output in outputs]
        for output, label in zip(outputs, labels, strict=False):
            assert tuple(output.shape) == label.shape, f"{name}: {tuple(output.shape)}, {label.shape}"
            self.tensors.known[output] = label


@contextmanager
def plain_attention() -> Iterator[None]:
    """Inside, nn.MultiheadAttention computes by its own operations and not in one that has no parts."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def follow(model: nn.Module, image: Tensor) -> tuple[LabelledTensors, object]:
    """Run the model, which is in evaluation mode, on one example. Returns the labels of its tensors, and the output."""
    tensors = LabelledTensors(model)
    tensors.known[image] = Labels(tuple(image.shape))
    with torch.no_grad(), plain_attention(), Follower(tensors):
        output = model(image)
    for tensor in tree_flatten(output)[0]:
        for factor in tensors.known[tensor].factors if isinstance(tensor, Tensor) and tensor in tensors.known else ():
            tensors.wires.keep(factor)
    return tensors, output
