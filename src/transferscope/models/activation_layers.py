"""The activation that acts on a layer's output, whether it is a module or a call inside a forward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

ACTIVATIONS = frozenset(
    (
        F.celu, F.elu, F.gelu, F.hardsigmoid, F.hardswish, F.hardtanh, F.leaky_relu, F.logsigmoid, F.mish, F.prelu,
        F.relu, F.relu6, F.rrelu, F.selu, F.sigmoid, F.silu, F.softplus, F.softsign, F.tanh, F.tanhshrink, F.threshold,
        F.celu_, F.elu_, F.hardtanh_, F.leaky_relu_, F.relu_, F.rrelu_, F.selu_,
        torch.celu, torch.prelu, torch.relu, torch.relu_, torch.rrelu, torch.selu, torch.sigmoid, torch.sigmoid_,
        torch.tanh, torch.tanh_, torch.celu_, torch.selu_,
        Tensor.relu, Tensor.relu_, Tensor.sigmoid, Tensor.sigmoid_, Tensor.tanh, Tensor.tanh_,
    )
)  # fmt: skip
"""Functions that act on each value alone and are not linear."""

BETWEEN = frozenset(
    (
        F.batch_norm, F.group_norm, F.instance_norm, F.layer_norm, F.rms_norm, F.dropout, F.dropout2d,
        torch.add, torch.sub, torch.mul, torch.div, torch.batch_norm,
        Tensor.add, Tensor.add_, Tensor.__add__, Tensor.__iadd__, Tensor.__radd__,
        Tensor.sub, Tensor.sub_, Tensor.__sub__, Tensor.__isub__,
        Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__imul__, Tensor.__rmul__,
        Tensor.div, Tensor.div_, Tensor.__truediv__, Tensor.__itruediv__, Tensor.contiguous,
    )
)  # fmt: skip
"""Functions that may stand between a layer and its activation: normalisation, bias and scale."""


class Activations(TorchFunctionMode):
    """While active, passes on what an activation makes of a watched tensor: `keep(name, activated)`.

    The activation may act on the tensor itself or behind `BETWEEN`, as long as nothing of the tensor's own size is
    added, such as the other branch of a residual block. The first activation counts. A function that changes the shape
    ends the search, so an activation behind a pooling or a reordering of axes is not found.
    """

    def __init__(self, keep: Callable[[str, Tensor], None]) -> None:
        super().__init__()
        self._keep = keep
        self._watched: dict[int, tuple[str, Tensor]] = {}
        self.acted = False
        """True once any activation, or a softmax, has acted on anything."""

    def watch(self, name: str, output: Tensor) -> None:
        """Look for the activation of a tensor from now on."""
        self._watched[id(output)] = (name, output)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        watched = self._source((*args, *kwargs.values())) if func in ACTIVATIONS or func in BETWEEN else None
        shape = watched[1].shape if watched else None
        result = func(*args, **kwargs)
        self.acted = self.acted or func in ACTIVATIONS or func in (F.softmax, F.scaled_dot_product_attention)
        if watched and isinstance(result, Tensor) and result.shape == shape:
            name, source = watched
            del self._watched[id(source)]
            if func in ACTIVATIONS:
                self._keep(name, result)
            else:
                self.watch(name, result)
        return result

    def _source(self, arguments: Iterable[Any]) -> tuple[str, Tensor] | None:
        """The watched tensor among the arguments, if all others are smaller."""
        tensors = [one for one in arguments if isinstance(one, Tensor)]
        for tensor in tensors:
            if id(tensor) in self._watched:
                smaller = all(other is tensor or other.numel() < tensor.numel() for other in tensors)
                return self._watched[id(tensor)] if smaller else None
        return None
