"""Following one forward pass operation by operation: which axis of which tensor is tied to which.

The network is run once on an example under a dispatch mode of torch, so that every ATen operation that it computes is
seen with its arguments, whatever Python code called it: no symbolic tracing that control flow could defeat. Each
operation has a rule in terms of `labels`. What has no rule keeps the channels that it touches in place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakTensorKeyDictionary

from transferscope.analysis.alignment.wires import Labels, Wires, by_channel, collapse

SPATIAL = {
    "max_pool2d_with_indices": 2, "avg_pool2d": 2, "_adaptive_avg_pool2d": 2, "adaptive_max_pool2d": 2, "avg_pool1d": 1,
    "max_pool1d": 1, "max_pool3d_with_indices": 3, "avg_pool3d": 3, "_adaptive_avg_pool3d": 3, "reflection_pad2d": 2,
    "replication_pad2d": 2, "upsample_nearest2d": 2, "upsample_bilinear2d": 2, "upsample_bicubic2d": 2,
    "_upsample_bicubic2d_aa": 2, "_upsample_bilinear2d_aa": 2, "upsample_nearest1d": 1, "upsample_linear1d": 1,
    "lp_pool2d": 2, "mkldnn_max_pool2d": 2, "_upsample_nearest_exact2d": 2,
}  # fmt: skip
"""Operations on the last axes, which are positions, channel by channel."""

UNTAGGED = {"copy", "fill", "hardswish", "prelu", "_prelu_kernel"}
"""Element-wise functions that torch does not mark as such."""
CONSTANTS = {"new_zeros", "new_ones", "new_empty", "new_full", "zeros_like", "ones_like", "empty_like", "full_like"}
SAME = {"zero_", "clone", "contiguous", "_to_copy", "lift_fresh", "lift_fresh_copy", "detach", "detach_", "alias"}
MOVES = {"index", "index_select", "flip", "roll", "repeat", "pixel_shuffle", "pixel_unshuffle", "gather"}
RESHAPES = {"view", "_unsafe_view", "_reshape_alias", "reshape"}
REDUCTIONS = {
    "mean", "sum", "amax", "amin", "max", "min", "var", "std", "var_mean", "std_mean", "linalg_vector_norm", "norm",
    "logsumexp", "prod", "any", "all",
}  # fmt: skip
ATTENTION = {
    "_scaled_dot_product_flash_attention_for_cpu", "_scaled_dot_product_flash_attention",
    "_scaled_dot_product_efficient_attention", "_scaled_dot_product_attention_math",
    "_scaled_dot_product_cudnn_attention",
}  # fmt: skip
BATCH_NORMS = {"native_batch_norm", "cudnn_batch_norm", "_native_batch_norm_legit", "miopen_batch_norm"}
CONTRACTIONS = {"convolution", "mm", "addmm", "bmm", "baddbmm", "mv", "dot", *ATTENTION}


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


Rule = Callable[[Follower, Any, tuple[Any, ...], dict[str, Any], list[Tensor]], "list[Labels] | None"]


def rule_of(func: Any, name: str) -> Rule | None:
    """The rule of an operation, None where there is none."""
    for names, rule in _RULES:
        if name in names:
            return rule
    if _is_element_wise(func, name):
        return _element_wise
    if func.is_view and name != "as_strided":
        return _move
    return None


def _is_element_wise(func: Any, name: str) -> bool:
    """By torch's own tags; operations that write into their argument often lack the tag of those that do not."""
    plain = getattr(torch.ops.aten, name.rstrip("_"), None)
    overloads = [func] if plain is None else [func, *(getattr(plain, overload) for overload in plain.overloads())]
    return name.rstrip("_") in UNTAGGED or any(torch.Tag.pointwise in overload.tags for overload in overloads)


def _element_wise(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return [follower.combine(leaves)]


def _same(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return [follower.known[leaves[0]]]


def _restride(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    """Pooling to one pixel changes strides of axes of size 1, which moves nothing."""
    labels = follower.known[args[0]]
    return [labels] if tuple(args[1]) == labels.shape and len(args) == 3 else None


def _move(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    source = args[0]
    if source not in follower.known or any(leaf in follower.known for leaf in leaves[1:]):
        return None
    on_cpu = [arg.cpu() if isinstance(arg, Tensor) else arg for arg in args[1:]]
    if func.overloadpacket.__name__ == "index":
        on_cpu = [[index.cpu() if index is not None else None for index in args[1]]]
    labels = follower.known[source]
    any_factors = labels.factors or (torch.zeros((), dtype=torch.int64),)
    wide = [factor.expand(labels.shape) for factor in any_factors]
    moved = [func(factor, *on_cpu, **kwargs) for factor in wide]
    parts = [part if isinstance(part, list | tuple) else [part] for part in moved]
    return [
        Labels(tuple(outs[0].shape), tuple(collapse(out) for out in outs) if labels.factors else (), labels.live)
        for outs in zip(*parts, strict=True)
    ]


def _reshape(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    if args[0] not in follower.known or not isinstance(args[1], list | tuple):
        return None
    return [follower.known[args[0]].moved(lambda factor: factor.reshape(args[1]))]


def _cat(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Concatenation: wires of the axis follow each other; those of other axes are tied."""
    tensors = [tensor for tensor in args[0] if tensor.shape != (0,)]
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return [_joined(follower.wires, _parts(follower, tensors, axis % tensors[0].dim()), axis % tensors[0].dim())]


def _parts(follower: Follower, tensors: Sequence[Tensor], axis: int) -> list[Labels]:
    """Join parts along an axis of channels; a constant that is the same in all channels gets new wires there."""
    parts = [follower.labels_of(tensor) for tensor in tensors]
    if not any(part.covers(axis) for part in parts):
        return parts
    for place, tensor in enumerate(tensors):
        if tensor not in follower.known and tensor.shape[axis] > 1 and collapse(tensor).shape[axis] == 1:
            new = follower.wires.fresh(tensor.shape[axis])
            factor = new.reshape([-1 if other == axis else 1 for other in range(tensor.dim())])
            parts[place] = Labels(tuple(tensor.shape), (factor,), live=False)
    return parts


def _stack(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % (args[0][0].dim() + 1)
    parts = [follower.labels_of(tensor).moved(lambda factor: factor.unsqueeze(axis)) for tensor in args[0]]
    return [_joined(follower.wires, parts, axis)]


def _joined(wires: Wires, parts: Sequence[Labels], axis: int) -> Labels:
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    live = any(part.live for part in parts)
    others = [tuple(f for f in part.factors if f.shape[axis] == 1 and f.numel() > 1) for part in parts]
    across = [Labels(_with(p.shape, axis, 1), kept, p.live) for p, kept in zip(parts, others, strict=True)]
    factors = list(wires.combine(across).factors)
    if any(part.covers(axis) or any(factor.numel() == 1 for factor in part.factors) for part in parts):
        along = [_along_axis(wires, part, axis) for part in parts]
        sizes = [max(f.shape[a] for f in along) if a != axis else 1 for a in range(len(shape))]
        wide = [f.expand(_with(sizes, axis, part.shape[axis])) for f, part in zip(along, parts, strict=True)]
        factors.append(collapse(torch.cat(wide, axis)))
    return Labels(tuple(shape), wires.normalised(factors), live)


def _along_axis(wires: Wires, part: Labels, axis: int) -> Tensor:
    """The one factor along the axis of a concatenation; positions where there is none."""
    along = [factor for factor in part.factors if factor.shape[axis] > 1 or factor.numel() == 1]
    for extra in along[1:]:
        wires.keep(extra, reason=True)
    if along:
        return along[0]
    places = wires.places(part.shape[axis])
    return places.reshape([-1 if other == axis else 1 for other in range(len(part.shape))])


def _with(shape: Sequence[int], axis: int, size: int) -> tuple[int, ...]:
    return tuple(size if other == axis else length for other, length in enumerate(shape))


def _pad(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Padding with a constant: padded channels are new wires, equal to each other and to nothing else."""
    labels, widths = follower.known[args[0]], args[1]
    padded = [len(labels.shape) - 1 - index // 2 for index, width in enumerate(widths) if width]
    shape = list(labels.shape)
    for index, width in enumerate(widths):
        shape[len(shape) - 1 - index // 2] += width
    factors = []
    for factor in labels.factors:
        if not any(factor.shape[axis] > 1 for axis in padded):
            factors.append(factor)
            continue
        last = len(labels.shape) - 1
        own = [width if factor.shape[last - index // 2] > 1 else 0 for index, width in enumerate(widths)]
        wide = torch.constant_pad_nd(factor, own, -1)
        new = follower.wires.fresh(int((wide < 0).sum()))
        wide = wide.clone()
        wide[wide < 0] = new
        factors.append(wide)
    return [Labels(tuple(shape), tuple(factors), labels.live)]


def _spatial(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, dims = follower.known[args[0]], SPATIAL[func.overloadpacket.__name__]
    axes = range(len(labels.shape) - dims, len(labels.shape))
    kept = by_channel(follower.wires, labels, axes)
    return [Labels(follower.output_shape, kept.factors, labels.live)] * 2


def _reduction(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    labels = follower.known[args[0]]
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    if any(isinstance(value, Tensor) for name, value in named.items() if name != "self"):
        return [follower.combine(leaves)]  # max and min of two tensors
    axes = named.get("dim")
    axes = list(range(len(labels.shape))) if axes is None or axes == [] else axes
    axes = [axes] if isinstance(axes, int) else axes
    return [follower.wires.reduced(labels, axes, keepdim=bool(named.get("keepdim", False)))] * 2


def _softmax(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = follower.known[args[0]]
    return [follower.wires.combine([labels, follower.wires.reduced(labels, [args[1]])])]


def _layer_norm(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = follower.known[args[0]]
    over = range(len(labels.shape) - len(args[1]), len(labels.shape))
    normal = follower.wires.combine([labels, follower.wires.reduced(labels, list(over))])
    affine = [follower.labels_of(tensor) for tensor in args[2:4] if isinstance(tensor, Tensor)]
    return [follower.wires.combine([normal, *affine])]


def _rms_norm(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return _layer_norm(follower, func, (*args[:3], None), kwargs, leaves)


def _group_norm(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, groups = follower.known[args[0]], args[6]
    batch, channels, *rest = labels.shape
    split = labels.moved(lambda factor: factor.reshape(batch, groups, channels // groups, *rest))
    statistics = follower.wires.reduced(split, range(2, len(split.shape)))
    normal = follower.wires.combine([split, statistics]).moved(lambda factor: factor.reshape(labels.shape))
    return [follower.wires.combine([normal, *_per_channel(follower, args[1:3], len(labels.shape))])]


def _batch_norm(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = follower.labels_of(args[0])
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    if named.get("training", False) or named.get("running_mean") is None:
        over = [axis for axis in range(len(labels.shape)) if axis != 1]
        labels = follower.wires.combine([labels, follower.wires.reduced(labels, over)])
    vectors = [tensor for tensor in leaves if tensor is not args[0]]
    return [follower.wires.combine([labels, *_per_channel(follower, vectors, len(labels.shape))])]


def _weight_norm(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Directions of length 1 along all axes but one, times lengths."""
    direction, kept = follower.labels_of(args[0]), (args[2] if len(args) > 2 else 0) % args[0].dim()
    lengths = follower.wires.reduced(direction, [axis for axis in range(args[0].dim()) if axis != kept])
    weight = follower.wires.combine([direction, lengths, follower.labels_of(args[1])])
    return [weight, follower.labels_of(args[1])]


def _per_channel(follower: Follower, tensors: Sequence[Tensor | None], dims: int) -> list[Labels]:
    """Vectors of a length of the second axis, shaped to broadcast along it."""
    shape = (1, -1, *(1,) * (dims - 2))
    return [follower.labels_of(t).moved(lambda factor: factor.reshape(shape)) for t in tensors if isinstance(t, Tensor)]


def _convolution(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """(groups, out, in) with the input as (groups, 1, in); positions and kernels stay in place."""
    image, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    labels = follower.labels_of(image)
    follower.contractions += 1
    follower.tap(0, labels)
    labels = by_channel(follower.wires, labels, [0, *range(2, len(labels.shape))])
    channels = labels.shape[1]
    read = Labels(_with(labels.shape, 1, channels)[1:2], tuple(f.reshape(-1) for f in labels.factors), labels.live)
    read = read.moved(lambda factor: factor.reshape(groups, 1, channels // groups))
    kernel = follower.labels_of(weight)
    kernel = by_channel(follower.wires, kernel, range(2, len(kernel.shape)), reason=False)
    first, second = kernel.shape[:2]
    flat = Labels((first, second), tuple(f.reshape(f.shape[:2]) for f in kernel.factors), kernel.live)
    split = flat.moved(lambda factor: factor.reshape(groups, first // groups, second))
    if transposed:
        split = split.moved(lambda factor: factor.transpose(1, 2))
    made = follower.contract(read, split, 2).moved(lambda factor: factor.reshape(-1))
    dims = len(follower.output_shape)
    shape = (1, -1, *(1,) * (dims - 2))
    result = Labels(follower.output_shape, tuple(factor.reshape(shape) for factor in made.factors), labels.live)
    return [follower.wires.combine([result, *_per_channel(follower, [bias], dims)])]


def _product(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """mm, addmm, bmm, baddbmm, mv and dot."""
    name = func.overloadpacket.__name__
    added = [follower.labels_of(args[0])] if name in ("addmm", "baddbmm") else []
    one, other = (follower.labels_of(tensor) for tensor in args[len(added) : len(added) + 2])
    follower.contractions += 1
    follower.tap(len(added), one)
    follower.tap(len(added) + 1, other)
    return [follower.wires.combine([_matrix_product(follower, one, other), *added])]


def _matrix_product(follower: Follower, one: Labels, other: Labels) -> Labels:
    """(..., n, k) times (..., k, m); vectors where there are fewer axes."""
    left = one.moved(lambda factor: factor.unsqueeze(-1))
    vector = len(other.shape) == 1
    right = other.moved(lambda factor: factor.unsqueeze(-1)) if vector else other
    right = right.moved(lambda factor: factor.unsqueeze(-3)) if len(left.shape) > 2 else right
    product = follower.contract(left, right, len(left.shape) - 2)
    return product.moved(lambda factor: factor.squeeze(-1)) if vector else product


def _attention(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Softmax of queries times keys, times values."""
    queries, keys, values = (follower.labels_of(tensor) for tensor in args[:3])
    follower.contractions += 1
    for argument, labels in enumerate((queries, keys, values)):
        follower.tap(argument, labels)
    mask = kwargs.get("attn_mask", next((arg for arg in args[3:] if isinstance(arg, Tensor)), None))
    scores = _matrix_product(follower, queries, keys.moved(lambda factor: factor.transpose(-1, -2)))
    if isinstance(mask, Tensor):
        constants = [mask] if mask not in follower.known else []
        scores = follower.wires.combine([scores, *([] if constants else [follower.known[mask]])], constants)
    weights = follower.wires.combine([scores, follower.wires.reduced(scores, [len(scores.shape) - 1])])
    return [_matrix_product(follower, weights, values)]


def _glu(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """One half of an axis gates the other."""
    labels, axis = follower.known[args[0]], args[1] if len(args) > 1 else -1
    halves = [labels.moved(lambda factor, half=half: factor.chunk(2, axis)[half]) for half in (0, 1)]
    return [follower.wires.combine(halves)]


def _shuffle(follower: Follower, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, groups = follower.known[args[0]], args[1]
    batch, channels, *rest = labels.shape
    split = labels.moved(lambda factor: factor.reshape(batch, groups, channels // groups, *rest))
    return [split.moved(lambda factor: factor.transpose(1, 2).reshape(labels.shape))]


_RULES: Sequence[tuple[Any, Rule]] = (
    (SAME, _same),
    (("as_strided_",), _restride),
    (RESHAPES, _reshape),
    (MOVES, _move),
    (("cat",), _cat),
    (("stack",), _stack),
    (("constant_pad_nd",), _pad),
    (SPATIAL, _spatial),
    (REDUCTIONS, _reduction),
    (("_softmax", "_log_softmax", "_safe_softmax"), _softmax),
    (("native_layer_norm",), _layer_norm),
    (("_fused_rms_norm",), _rms_norm),
    (("native_group_norm",), _group_norm),
    (BATCH_NORMS, _batch_norm),
    (("_native_batch_norm_legit_no_training", "batch_norm"), _batch_norm),
    (("convolution", "_convolution"), _convolution),
    (("mm", "addmm", "bmm", "baddbmm", "mv", "dot"), _product),
    (ATTENTION, _attention),
    (("glu",), _glu),
    (("_weight_norm_interface",), _weight_norm),
    (("channel_shuffle", "native_channel_shuffle"), _shuffle),
)


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
