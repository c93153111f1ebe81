"""The linear map of a layer, at the shape of its input: from torch's options to weight, sources and sizes."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from transferscope.analysis.spectrum.linear_map import ZERO, LinearMap
from transferscope.models.linear_calls import PLAIN_FORWARDS, computed_weight, linear_call
from transferscope.system.errors import UserError

_MODES = {
    _ConstantPadNd: "zeros",
    _ReflectionPadNd: "reflect",
    _ReplicationPadNd: "replicate",
    _CircularPadNd: "circular",
}


def linear_map(layer: nn.Module, input_shape: tuple[int, ...], scale: Tensor | None = None) -> LinearMap:
    """The map of a layer for one example of `input_shape`, without the batch.

    layer: a convolution or transposed convolution of one to three axes, a linear layer, or an `nn.Sequential` of
    padding layers and one such layer at its end. input_shape: (C, ...) with as many lengths as the layer has axes;
    (..., features) for a linear layer, whose map is that of one position. scale: (c_out,), what each output is
    multiplied by, as by a BatchNorm that is folded in.

    Raises UserError where the layer has no linear map, the weight is empty or not finite, or the input does not fit.
    """
    *paddings, inner = layer if isinstance(layer, nn.Sequential) else [layer]
    weight = layer_weight(inner)
    if scale is not None:
        weight = _scaled(inner, weight, scale)
    if isinstance(inner, nn.Linear):
        _expect(not paddings and input_shape[-1] == inner.in_features, input_shape, f"(..., {inner.in_features})")
        return _linear(weight)
    assert isinstance(inner, _ConvNd)
    axes = len(inner.kernel_size)
    _expect(
        len(input_shape) == axes + 1 and input_shape[0] == inner.in_channels and min(input_shape) > 0,
        input_shape,
        f"({inner.in_channels}, {', '.join('length' for _ in range(axes))})",
    )
    size = input_shape[1:]
    if isinstance(inner, _ConvTransposeNd):
        if paddings:
            raise UserError("padding layers before a transposed convolution have no spectrum yet: give it alone")
        return _transposed(inner, weight, size)
    sources = [torch.arange(length) for length in size]
    for padding in paddings:
        sources = _padded(sources, *_padding_layer(padding, axes))
    sources = _padded(sources, *_own_padding(inner, (inner.in_channels, *map(len, sources))))
    return _checked(inner, _convolution(inner, weight, size, sources))


def layer_weight(layer: nn.Module) -> Tensor:
    """The weight that a convolution or linear layer applies, checked; computed weights as forward computes them."""
    if not isinstance(layer, _ConvNd | nn.Linear):
        raise UserError(f"{type(layer).__name__} has no linear map: expected a convolution or a linear layer")
    try:
        plain = type(layer).forward in PLAIN_FORWARDS
        weight = (layer.weight if plain else computed_weight(layer)).detach()
    except UserError as error:
        raise UserError(f"{type(layer).__name__} has no linear map: it {error}") from error
    if weight.numel() == 0:
        raise UserError(f"weight of shape {tuple(weight.shape)} is empty")
    if weight.is_complex() or not weight.is_floating_point():
        raise UserError(f"weight of dtype {weight.dtype}: expected real floating-point numbers")
    if not torch.isfinite(weight).all():
        raise UserError("weight holds values that are not finite: the training has diverged or the file is damaged")
    return weight.double()


def _expect(fits: bool, input_shape: tuple[int, ...], expected: str) -> None:
    if not fits:
        raise UserError(f"input_shape {tuple(input_shape)}: expected {expected}, one example without the batch")


def _scaled(layer: nn.Module, weight: Tensor, scale: Tensor) -> Tensor:
    """The weight whose outputs are multiplied by `scale`; a transposed convolution has its outputs second."""
    scale = scale.detach().double().to(weight.device).flatten()
    if not torch.isfinite(scale).all():
        raise UserError("the scale that is folded in holds values that are not finite")
    if isinstance(layer, _ConvTransposeNd):
        channels = weight.shape[1]
        scale = scale.expand(channels * layer.groups).reshape(layer.groups, 1, channels)
        grouped = weight.unflatten(0, (layer.groups, -1))
        return (grouped * scale.reshape(*scale.shape, *[1] * (weight.ndim - 2))).flatten(0, 1)
    return weight * scale.expand(len(weight)).reshape(-1, *[1] * (weight.ndim - 1))


def _linear(weight: Tensor) -> LinearMap:
    one = torch.arange(1)
    return LinearMap(
        weight=weight[:, :, None, None], sources=(one, one), in_size=(1, 1), out_size=(1, 1), stride=(1, 1),
        dilation=(1, 1), num_axes=0,
    )  # fmt: skip


def _convolution(layer: _ConvNd, weight: Tensor, size: tuple[int, ...], sources: list[Tensor]) -> LinearMap:
    reach = [d * (k - 1) + 1 for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
    lengths = [len(part) for part in sources]
    if any(wide < length for wide, length in zip(lengths, reach, strict=True)):
        raise UserError(f"a kernel of {_times(reach)} is larger than its padded input of {_times(lengths)}")
    outputs = [(wide - length) // step + 1 for wide, length, step in zip(lengths, reach, layer.stride, strict=True)]
    return _two_axes(weight, sources, size, outputs, layer, transposed=False)


def _transposed(layer: _ConvTransposeNd, weight: Tensor, size: tuple[int, ...]) -> LinearMap:
    """The convolution of which the layer is the transpose: it reads the layer's outputs, padded by zeros."""
    outputs = [
        (length - 1) * step - 2 * pad + d * (k - 1) + extra + 1
        for length, step, pad, d, k, extra in zip(
            size, layer.stride, layer.padding, layer.dilation, layer.kernel_size, layer.output_padding, strict=True
        )
    ]
    if min(outputs) < 1:
        raise UserError(f"an input of {_times(size)} has no output: its padding takes all of it away")
    sources = [torch.arange(length) for length in outputs]
    for axis, pad in enumerate(layer.padding):
        assert isinstance(pad, int)
        zeros = torch.full((pad,), ZERO)
        sources[axis] = torch.cat([zeros, sources[axis], zeros])
    return _two_axes(weight, sources, tuple(outputs), list(size), layer, transposed=True)


def _two_axes(
    weight: Tensor, sources: list[Tensor], in_size: tuple[int, ...], out_size: list[int], layer: _ConvNd, *,
    transposed: bool,
) -> LinearMap:  # fmt: skip
    axes = len(in_size)
    first = [torch.arange(1)] if axes == 1 else []
    lone = (1,) * len(first)
    return LinearMap(
        weight=weight.unsqueeze(2) if first else weight,
        sources=tuple(part.to(weight.device) for part in (*first, *sources)),
        in_size=(*lone, *in_size),
        out_size=(*lone, *out_size),
        stride=(*lone, *layer.stride),
        dilation=(*lone, *layer.dilation),
        groups=layer.groups,
        transposed=transposed,
        num_axes=axes,
    )


def _padding_layer(layer: nn.Module, axes: int) -> tuple[list[tuple[int, int]], str]:
    for kind, mode in _MODES.items():
        if isinstance(layer, kind):
            if mode == "zeros" and layer.value != 0:
                raise UserError(f"{type(layer).__name__} of {layer.value:g} adds a constant: the map is not linear")
            widths: Any = layer.padding
            last_first = [(int(widths[i]), int(widths[i + 1])) for i in range(0, len(widths), 2)]
            return last_first[::-1], mode
    raise UserError(f"{type(layer).__name__} before a layer: expected padding layers, as nn.ZeroPad2d, and one layer")


def _own_padding(layer: _ConvNd, input_shape: tuple[int, ...]) -> tuple[list[tuple[int, int]], str]:
    """Widths before and after along each axis, and the mode, of the layer's own padding."""
    if type(layer).forward not in PLAIN_FORWARDS:
        return _traced_padding(layer, input_shape), "zeros"
    mode = str(layer.padding_mode)
    if layer.padding == "same":
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size, strict=True)]
        return [(total // 2, total - total // 2) for total in totals], mode
    if layer.padding == "valid":
        return [(0, 0)] * len(layer.kernel_size), mode
    return [(int(width), int(width)) for width in layer.padding], mode


def _traced_padding(layer: _ConvNd, input_shape: tuple[int, ...]) -> list[tuple[int, int]]:
    """The padding of a layer with a forward pass of its own, as it is at this input; `_checked` tries it afterwards."""
    given, padding = linear_call(layer, input_shape)
    widths = []
    for axis, length in enumerate(input_shape[1:]):
        more = given[axis + 2] - length
        if more < 0:
            raise UserError(f"{type(layer).__name__} has no linear map: it crops its input")
        own = _traced_width(layer, padding, axis)
        widths.append((more // 2 + own[0], more - more // 2 + own[1]))
    return widths


def _traced_width(layer: _ConvNd, padding: Any, axis: int) -> tuple[int, int]:
    if padding == "same":
        total = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        return total // 2, total - total // 2
    if padding == "valid":
        return 0, 0
    width = int(padding if isinstance(padding, int) else padding[axis if len(padding) > 1 else 0])
    return width, width


def _padded(sources: list[Tensor], widths: list[tuple[int, int]], mode: str) -> list[Tensor]:
    return [_padded_axis(part, before, after, mode) for part, (before, after) in zip(sources, widths, strict=True)]


def _padded_axis(sources: Tensor, before: int, after: int, mode: str) -> Tensor:
    length = len(sources)
    if before < 0 or after < 0:
        kept = sources[max(0, -before) : length - max(0, -after)]
        return _padded_axis(kept, max(0, before), max(0, after), mode)
    positions = torch.arange(-before, length + after)
    if mode == "zeros":
        inside = (positions >= 0) & (positions < length)
        return torch.where(inside, sources[positions.clamp(0, length - 1)], ZERO)
    limit = {"reflect": length - 1, "circular": length}.get(mode)
    if limit is not None and max(before, after) > limit:
        raise UserError(f"{mode} padding of {max(before, after)} is more than an input of {length} has")
    if mode == "circular":
        return sources[positions % length]
    if mode == "replicate":
        return sources[positions.clamp(0, length - 1)]
    assert mode == "reflect", mode
    turned = positions.abs()
    return sources[torch.where(turned >= length, 2 * (length - 1) - turned, turned)]


@torch.no_grad()
def _checked(layer: _ConvNd, linear: LinearMap) -> LinearMap:
    """Compare with the layer's own forward pass, where its class has one."""
    if type(layer).forward in PLAIN_FORWARDS:
        return linear
    generator = torch.Generator().manual_seed(0)
    shape = (1, *linear.in_shape)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64).to(linear.weight.device)
    if linear.num_axes == 1:
        inputs = inputs.flatten(2)
    outputs = _in_double(layer, inputs) - _in_double(layer, torch.zeros_like(inputs))
    expected = linear.forward(inputs.reshape(shape))
    if outputs.numel() != expected.numel() or not torch.allclose(outputs.flatten(), expected.flatten(), atol=1e-8):
        raise UserError(f"{type(layer).__name__} has no linear map: it is no convolution with zero padding")
    return linear


def _in_double(layer: nn.Module, inputs: Tensor) -> Tensor:
    trial = copy.deepcopy(layer).double().eval()
    outputs = trial(inputs)
    assert isinstance(outputs, Tensor)
    return outputs


def _times(lengths: Any) -> str:
    return "x".join(map(str, lengths))


def projections(layer: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """The linear maps inside an attention layer that are no modules of their own: query, key and value.

    Yields the suffix of the name and a linear layer with that part of the weight.
    """
    if not isinstance(layer, nn.MultiheadAttention):
        return
    parts: list[Tensor | None] = [layer.q_proj_weight, layer.k_proj_weight, layer.v_proj_weight]
    if layer.in_proj_weight is not None:
        parts = list(layer.in_proj_weight.chunk(3))
    for suffix, weight in zip(("q_proj", "k_proj", "v_proj"), parts, strict=True):
        assert weight is not None
        linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False, device="meta")
        linear.weight = nn.Parameter(weight.detach(), requires_grad=False)
        yield suffix, linear
