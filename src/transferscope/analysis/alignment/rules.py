"""Rules by which the operations of a network tie the channels of their inputs to those of their outputs.

An operation without a rule keeps the channels that it touches in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from transferscope.analysis.alignment.labelled_tensors import LabelledTensors
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
Rule = Callable[[LabelledTensors, Any, tuple[Any, ...], dict[str, Any], list[Tensor]], list[Labels] | None]


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


def _element_wise(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return [labelled.combine(leaves)]


def _same(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return [labelled.known[leaves[0]]]


def _restride(
    labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]
) -> list[Labels] | None:
    """Pooling to one pixel changes strides of axes of size 1, which moves nothing."""
    labels = labelled.known[args[0]]
    return [labels] if tuple(args[1]) == labels.shape and len(args) == 3 else None


def _move(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    source = args[0]
    if source not in labelled.known or any(leaf in labelled.known for leaf in leaves[1:]):
        return None
    on_cpu = [arg.cpu() if isinstance(arg, Tensor) else arg for arg in args[1:]]
    if func.overloadpacket.__name__ == "index":
        on_cpu = [[index.cpu() if index is not None else None for index in args[1]]]
    labels = labelled.known[source]
    any_factors = labels.factors or (torch.zeros((), dtype=torch.int64),)
    wide = [factor.expand(labels.shape) for factor in any_factors]
    moved = [func(factor, *on_cpu, **kwargs) for factor in wide]
    parts = [part if isinstance(part, list | tuple) else [part] for part in moved]
    return [
        Labels(tuple(outs[0].shape), tuple(collapse(out) for out in outs) if labels.factors else (), labels.live)
        for outs in zip(*parts, strict=True)
    ]


def _reshape(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels] | None:
    if args[0] not in labelled.known or not isinstance(args[1], list | tuple):
        return None
    return [labelled.known[args[0]].moved(lambda factor: factor.reshape(args[1]))]


def _cat(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Concatenation: wires of the axis follow each other; those of other axes are tied."""
    tensors = [tensor for tensor in args[0] if tensor.shape != (0,)]
    axis = args[1] if len(args) > 1 else kwargs.get("dim", 0)
    return [_joined(labelled.wires, _parts(labelled, tensors, axis % tensors[0].dim()), axis % tensors[0].dim())]


def _parts(labelled: LabelledTensors, tensors: Sequence[Tensor], axis: int) -> list[Labels]:
    """Join parts along an axis of channels; a constant that is the same in all channels gets new wires there."""
    parts = [labelled.labels_of(tensor) for tensor in tensors]
    if not any(part.covers(axis) for part in parts):
        return parts
    for place, tensor in enumerate(tensors):
        if tensor not in labelled.known and tensor.shape[axis] > 1 and collapse(tensor).shape[axis] == 1:
            new = labelled.wires.fresh(tensor.shape[axis])
            factor = new.reshape([-1 if other == axis else 1 for other in range(tensor.dim())])
            parts[place] = Labels(tuple(tensor.shape), (factor,), live=False)
    return parts


def _stack(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    axis = (args[1] if len(args) > 1 else kwargs.get("dim", 0)) % (args[0][0].dim() + 1)
    parts = [labelled.labels_of(tensor).moved(lambda factor: factor.unsqueeze(axis)) for tensor in args[0]]
    return [_joined(labelled.wires, parts, axis)]


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


def _pad(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Padding with a constant: padded channels are new wires, equal to each other and to nothing else."""
    labels, widths = labelled.known[args[0]], args[1]
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
        new = labelled.wires.fresh(int((wide < 0).sum()))
        wide = wide.clone()
        wide[wide < 0] = new
        factors.append(wide)
    return [Labels(tuple(shape), tuple(factors), labels.live)]


def _spatial(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, dims = labelled.known[args[0]], SPATIAL[func.overloadpacket.__name__]
    axes = range(len(labels.shape) - dims, len(labels.shape))
    kept = by_channel(labelled.wires, labels, axes)
    return [Labels(labelled.output_shape, kept.factors, labels.live)] * 2


def _reduction(
    labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]
) -> list[Labels] | None:
    labels = labelled.known[args[0]]
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    if any(isinstance(value, Tensor) for name, value in named.items() if name != "self"):
        return [labelled.combine(leaves)]  # max and min of two tensors
    axes = named.get("dim")
    axes = list(range(len(labels.shape))) if axes is None or axes == [] else axes
    axes = [axes] if isinstance(axes, int) else axes
    return [labelled.wires.reduced(labels, axes, keepdim=bool(named.get("keepdim", False)))] * 2


def _softmax(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = labelled.known[args[0]]
    return [labelled.wires.combine([labels, labelled.wires.reduced(labels, [args[1]])])]


def _layer_norm(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = labelled.known[args[0]]
    over = range(len(labels.shape) - len(args[1]), len(labels.shape))
    normal = labelled.wires.combine([labels, labelled.wires.reduced(labels, list(over))])
    affine = [labelled.labels_of(tensor) for tensor in args[2:4] if isinstance(tensor, Tensor)]
    return [labelled.wires.combine([normal, *affine])]


def _rms_norm(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    return _layer_norm(labelled, func, (*args[:3], None), kwargs, leaves)


def _group_norm(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, groups = labelled.known[args[0]], args[6]
    batch, channels, *rest = labels.shape
    split = labels.moved(lambda factor: factor.reshape(batch, groups, channels // groups, *rest))
    statistics = labelled.wires.reduced(split, range(2, len(split.shape)))
    normal = labelled.wires.combine([split, statistics]).moved(lambda factor: factor.reshape(labels.shape))
    return [labelled.wires.combine([normal, *_per_channel(labelled, args[1:3], len(labels.shape))])]


def _batch_norm(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels = labelled.labels_of(args[0])
    named = {argument.name: value for argument, value in zip(func._schema.arguments, args, strict=False)} | kwargs
    if named.get("training", False) or named.get("running_mean") is None:
        over = [axis for axis in range(len(labels.shape)) if axis != 1]
        labels = labelled.wires.combine([labels, labelled.wires.reduced(labels, over)])
    vectors = [tensor for tensor in leaves if tensor is not args[0]]
    return [labelled.wires.combine([labels, *_per_channel(labelled, vectors, len(labels.shape))])]


def _weight_norm(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Directions of length 1 along all axes but one, times lengths."""
    direction, kept = labelled.labels_of(args[0]), (args[2] if len(args) > 2 else 0) % args[0].dim()
    lengths = labelled.wires.reduced(direction, [axis for axis in range(args[0].dim()) if axis != kept])
    weight = labelled.wires.combine([direction, lengths, labelled.labels_of(args[1])])
    return [weight, labelled.labels_of(args[1])]


def _per_channel(labelled: LabelledTensors, tensors: Sequence[Tensor | None], dims: int) -> list[Labels]:
    """Vectors of a length of the second axis, shaped to broadcast along it."""
    shape = (1, -1, *(1,) * (dims - 2))
    return [labelled.labels_of(t).moved(lambda factor: factor.reshape(shape)) for t in tensors if isinstance(t, Tensor)]


def _convolution(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """(groups, out, in) with the input as (groups, 1, in); positions and kernels stay in place."""
    image, weight, bias = args[:3]
    transposed, groups = args[6], args[8]
    labels = labelled.labels_of(image)
    labelled.contractions += 1
    labelled.tap(0, labels)
    labels = by_channel(labelled.wires, labels, [0, *range(2, len(labels.shape))])
    channels = labels.shape[1]
    read = Labels(_with(labels.shape, 1, channels)[1:2], tuple(f.reshape(-1) for f in labels.factors), labels.live)
    read = read.moved(lambda factor: factor.reshape(groups, 1, channels // groups))
    kernel = labelled.labels_of(weight)
    kernel = by_channel(labelled.wires, kernel, range(2, len(kernel.shape)), reason=False)
    first, second = kernel.shape[:2]
    flat = Labels((first, second), tuple(f.reshape(f.shape[:2]) for f in kernel.factors), kernel.live)
    split = flat.moved(lambda factor: factor.reshape(groups, first // groups, second))
    if transposed:
        split = split.moved(lambda factor: factor.transpose(1, 2))
    made = labelled.contract(read, split, 2).moved(lambda factor: factor.reshape(-1))
    dims = len(labelled.output_shape)
    shape = (1, -1, *(1,) * (dims - 2))
    result = Labels(labelled.output_shape, tuple(factor.reshape(shape) for factor in made.factors), labels.live)
    return [labelled.wires.combine([result, *_per_channel(labelled, [bias], dims)])]


def _product(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """mm, addmm, bmm, baddbmm, mv and dot."""
    name = func.overloadpacket.__name__
    added = [labelled.labels_of(args[0])] if name in ("addmm", "baddbmm") else []
    one, other = (labelled.labels_of(tensor) for tensor in args[len(added) : len(added) + 2])
    labelled.contractions += 1
    labelled.tap(len(added), one)
    labelled.tap(len(added) + 1, other)
    return [labelled.wires.combine([_matrix_product(labelled, one, other), *added])]


def _matrix_product(labelled: LabelledTensors, one: Labels, other: Labels) -> Labels:
    """(..., n, k) times (..., k, m); vectors where there are fewer axes."""
    left = one.moved(lambda factor: factor.unsqueeze(-1))
    vector = len(other.shape) == 1
    right = other.moved(lambda factor: factor.unsqueeze(-1)) if vector else other
    right = right.moved(lambda factor: factor.unsqueeze(-3)) if len(left.shape) > 2 else right
    product = labelled.contract(left, right, len(left.shape) - 2)
    return product.moved(lambda factor: factor.squeeze(-1)) if vector else product


def _attention(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """Softmax of queries times keys, times values."""
    queries, keys, values = (labelled.labels_of(tensor) for tensor in args[:3])
    labelled.contractions += 1
    for argument, labels in enumerate((queries, keys, values)):
        labelled.tap(argument, labels)
    mask = kwargs.get("attn_mask", next((arg for arg in args[3:] if isinstance(arg, Tensor)), None))
    scores = _matrix_product(labelled, queries, keys.moved(lambda factor: factor.transpose(-1, -2)))
    if isinstance(mask, Tensor):
        constants = [mask] if mask not in labelled.known else []
        scores = labelled.wires.combine([scores, *([] if constants else [labelled.known[mask]])], constants)
    weights = labelled.wires.combine([scores, labelled.wires.reduced(scores, [len(scores.shape) - 1])])
    return [_matrix_product(labelled, weights, values)]


def _glu(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    """One half of an axis gates the other."""
    labels, axis = labelled.known[args[0]], args[1] if len(args) > 1 else -1
    halves = [labels.moved(lambda factor, half=half: factor.chunk(2, axis)[half]) for half in (0, 1)]
    return [labelled.wires.combine(halves)]


def _shuffle(labelled: LabelledTensors, func: Any, args: Any, kwargs: Any, leaves: list[Tensor]) -> list[Labels]:
    labels, groups = labelled.known[args[0]], args[1]
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
