"""A device apart from the CPU, pretended: for tests of what must run on a GPU, where there is none.

Its tensors hold their values in a CPU tensor out of reach. Operations that mix them with tensors of the CPU, and NumPy's
view of them, fail as they do with a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

PRETENDED = torch.device("meta")
CPU = torch.device("cpu")


class PretendedTensor(Tensor):
    """A tensor that says it lies on the pretended device."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> PretendedTensor:
        made: PretendedTensor = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, inner.shape, strides=inner.stride(), storage_offset=inner.storage_offset(), dtype=inner.dtype,
            device=PRETENDED, requires_grad=inner.requires_grad,
        )  # fmt: skip
        made.inner = inner
        return made

    def __repr__(self, **_: Any) -> str:
        return f"PretendedTensor({self.inner!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is Tensor.tolist:  # torch has none for tensors of other classes
            return args[0].inner.tolist()
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


class _Mode(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return carried_out(func, args, kwargs or {})


def carried_out(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """The operation on the CPU values; its results lie where its inputs do, or where it is asked to put them."""
    flat, form = tree_flatten((args, kwargs))
    pretended = [item for item in flat if isinstance(item, PretendedTensor)]
    plain = [item for item in flat if isinstance(item, Tensor) and not isinstance(item, PretendedTensor) and item.dim()]
    asked = kwargs.get("device")
    if func in MOVES:
        there = pretended if func is torch.ops.aten.copy_.default and isinstance(args[0], PretendedTensor) else []
        target = PRETENDED if there else (asked or (PRETENDED if pretended else CPU))
        if func is torch.ops.aten.copy_.default and not there:
            target = CPU
    elif pretended and plain:
        raise RuntimeError(f"{func}: Expected all tensors to be on the same device, but found {PRETENDED} and cpu")
    else:
        target = asked or (PRETENDED if pretended else CPU)
    outer = args, kwargs
    inner = [item.inner if isinstance(item, PretendedTensor) else item for item in flat]
    inner = [CPU if isinstance(item, torch.device) else item for item in inner]
    args, kwargs = tree_unflatten(inner, form)
    result = func(*args, **kwargs)
    if torch.device(target).type != PRETENDED.type:
        return result
    if torch.Tag.inplace_view in func.tags and pretended:  # the outer tensor takes the new shape, too
        with no_dispatch(), torch._C._IncludeDispatchKeyGuard(torch._C.DispatchKey.Meta):
            func(*outer[0], **outer[1])
    known = {id(item.inner): item for item in pretended}
    return tree_map(lambda item: known.get(id(item), _pretend(item)) if isinstance(item, Tensor) else item, result)


MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
"""What may take values from one device to the other."""


def _pretend(tensor: Tensor) -> Tensor:
    with torch.inference_mode(False):  # torch cannot make views of wrapped tensors of that mode
        return PretendedTensor(tensor)


@contextmanager
def pretended_device() -> Iterator[torch.device]:
    """Inside, tensors can be put on the pretended device."""
    with _Mode():
        yield PRETENDED
