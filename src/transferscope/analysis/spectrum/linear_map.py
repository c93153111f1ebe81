"""The linear map that a layer computes: its forward pass without bias, its adjoint, and how its padding copies pixels.

Padding is a list of sources for each axis: which input position every padded position copies, or none for a zero. This
holds for zeros, reflection, replication and circular padding, on either side by any width, and for one after another.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.padding import _CircularPadNd, _ConstantPadNd, _ReflectionPadNd, _ReplicationPadNd

from transferscope.models.linear_calls import PLAIN_FORWARDS, computed_weight, linear_call
from transferscope.system.errors import UserError

ZERO = -1
"""The source of a padded position that holds 0."""

FEW_CHANNELS = 16

_MODES = {
    _ConstantPadNd: "zeros",
    _ReflectionPadNd: "reflect",
    _ReplicationPadNd: "replicate",
    _CircularPadNd: "circular",
}


@dataclass(frozen=True, kw_only=True)
class LinearMap:
    """A convolution without bias as a matrix of `num_outputs` rows and `num_inputs` columns that is never formed.

    A linear layer is a 1x1 convolution of one pixel. A transposed convolution is the transpose of a convolution, with
    the same singular values: `transposed` says that inputs and outputs of the layer are outputs and inputs of the map.
    """

    weight: Tensor
    """(c_out, c_in/groups, *kernel), two or three axes."""
    sources: tuple[Tensor, ...]
    """int64 (padded length,) for each axis: the input position, or -1 for a zero."""
    in_size: tuple[int, ...]
    out_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int = 1
    transposed: bool = False
    num_axes: int = 2
    """Axes of the layer itself: 0 for a linear layer; 1-d convolutions have a first axis of length 1 before theirs."""

    @cached_property
    def in_shape(self) -> tuple[int, ...]:
        return (self.weight.shape[1] * self.groups, *self.in_size)

    @cached_property
    def out_shape(self) -> tuple[int, ...]:
        return (self.weight.shape[0], *self.out_size)

    @property
    def num_inputs(self) -> int:
        return prod(self.in_shape)

    @property
    def num_outputs(self) -> int:
        return prod(self.out_shape)

    @property
    def num_values(self) -> int:
        """Number of singular values: the smaller side of the matrix."""
        return min(self.num_inputs, self.num_outputs)

    @property
    def flops(self) -> int:
        """Floating-point operations of one forward pass; the adjoint has as many."""
        return 2 * self.weight.numel() * prod(self.out_size)

    @property
    def reach(self) -> tuple[int, ...]:
        """Length of the kernel along each axis, with its gaps."""
        return tuple(d * (k - 1) + 1 for d, k in zip(self.dilation, self.weight.shape[2:], strict=True))

    def to(self, dtype: torch.dtype) -> LinearMap:
        """The map with its weight in another precision, in the order of memory that is quickest for it."""
        channels_last = dtype == torch.float32 and self.weight.ndim == 4
        order = torch.channels_last if channels_last else torch.contiguous_format
        return replace(self, weight=self.weight.to(dtype).contiguous(memory_format=order))

    def forward(self, inputs: Tensor) -> Tensor:
        """Apply the map: (n, c_in, *in_size) to (n, c_out, *out_size)."""
        convolution = F.conv2d if len(self.in_size) == 2 else F.conv3d
        if self._symmetric is not None:
            width, _ = self._symmetric
            return convolution(inputs, self.weight, None, self.stride, width, self.dilation, self.groups)
        padded, weight, stride = self._pad(inputs), self.weight, self.stride
        if self._phased is not None:
            more = [(-length) % stride[0] for length in reversed(padded.shape[2:])]
            padded = F.pixel_unshuffle(F.pad(padded, [0, more[0], 0, more[1]]), stride[0])
            weight, stride = self._phased, (1, 1)
        outputs = convolution(padded, weight, None, stride, 0, self.dilation, self.groups)
        return outputs[(slice(None), slice(None), *(slice(size) for size in self.out_size))]

    def adjoint(self, outputs: Tensor) -> Tensor:
        """Apply the transpose: (n, c_out, *out_size) to (n, c_in, *in_size)."""
        if self._phased is not None:
            shuffled = F.pixel_shuffle(F.conv_transpose2d(outputs, self._phased), self.stride[0])
            height, width = map(len, self.sources)
            return self._unpad(shuffled[..., :height, :width])
        transposed = F.conv_transpose2d if len(self.in_size) == 2 else F.conv_transpose3d
        if self._symmetric is not None:
            width, unread = self._symmetric
            return transposed(outputs, self.weight, None, self.stride, width, unread, self.groups, self.dilation)
        padded = transposed(outputs, self.weight, None, self.stride, 0, 0, self.groups, self.dilation)
        return self._unpad(padded)

    @cached_property
    def _phased(self) -> Tensor | None:
        """The weight for an input that is sorted by its position modulo the stride, where this is quicker.

        With few input channels, as in a stem, a transposed convolution with a stride takes four times as long.
        """
        step = self.stride[0]
        square = len(self.in_size) == 2 and step > 1 and self.stride == (step, step) and self.dilation == (1, 1)
        if not square or self.groups > 1 or self.weight.shape[1] > FEW_CHANNELS:
            return None
        more = [(-length) % step for length in reversed(self.weight.shape[2:])]
        widened = F.pad(self.weight, [0, more[0], 0, more[1]])
        return F.pixel_unshuffle(widened, step).contiguous(memory_format=torch.channels_last)

    @cached_property
    def _symmetric(self) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
        """Width of the zeros on both sides and what no tap reads at the end, along each axis, where torch pads so."""
        if self._phased is not None or not all(self._plain):
            return None
        before, after = self._zeros[-2::-2], self._zeros[-1::-2]
        unread = tuple(
            len(sources) - reach - (outputs - 1) * step
            for sources, reach, outputs, step in zip(
                self.sources, self.reach, self.out_size, self.stride, strict=True
            )
        )
        fits = all(0 <= rest < step for rest, step in zip(unread, self.stride, strict=True))
        return (tuple(before), unread) if fits and before == after else None

    def _pad(self, inputs: Tensor) -> Tensor:
        for axis, sources in enumerate(self.sources):
            if not self._is_plain(axis):
                inputs = _gather(inputs, axis + 2, sources)
        return F.pad(inputs, self._zeros) if any(self._zeros) else inputs

    def _unpad(self, padded: Tensor) -> Tensor:
        """The adjoint of `_pad`; positions that no tap reads are missing from `padded` and count as zeros."""
        for axis, (sources, size) in enumerate(zip(self.sources, self.in_size, strict=True)):
            read = sources[: padded.shape[axis + 2]]
            if self._is_plain(axis):
                start = int((sources == ZERO).int().argmin())
                part = padded.narrow(axis + 2, start, min(size, len(read) - start))
            else:
                kept = (read != ZERO).nonzero().flatten()
                shape = [*padded.shape]
                shape[axis + 2] = size
                part = padded.new_zeros(shape).index_add_(axis + 2, read[kept], padded.index_select(axis + 2, kept))
            missing = size - part.shape[axis + 2]
            after = [0, 0] * (len(self.in_size) - axis - 1) + [0, missing]
            padded = F.pad(part, after) if missing else part
        return padded

    def _is_plain(self, axis: int) -> bool:
        """Whether an axis is padded by zeros alone."""
        return self._plain[axis]

    @cached_property
    def _plain(self) -> tuple[bool, ...]:
        return tuple(
            torch.equal(sources[sources != ZERO].cpu(), torch.arange(size)) and _is_contiguous(sources)
            for sources, size in zip(self.sources, self.in_size, strict=True)
        )

    @cached_property
    def _zeros(self) -> list[int]:
        """Widths of the zeros for torch's `pad`, which takes the last axis first."""
        widths: list[int] = []
        for axis, sources in reversed(list(enumerate(self.sources))):
            before = int((sources != ZERO).int().argmax()) if self._plain[axis] else 0
            after = len(sources) - before - self.in_size[axis] if self._plain[axis] else 0
            widths += [before, after]
        return widths

    def read(self, axis: int) -> Tensor:
        """int64 (out_size, kernel) along an axis: the input position that each tap of each output reads, or -1."""
        starts = self.stride[axis] * torch.arange(self.out_size[axis])
        taps = self.dilation[axis] * torch.arange(self.weight.shape[2 + axis])
        return self.sources[axis].cpu()[starts[:, None] + taps]

    @property
    def copies(self) -> int:
        """The most often that the padding copies an input position; 1 for zeros."""
        return prod(int(sources[sources != ZERO].bincount().max()) for sources in self.sources)

    def frobenius(self) -> float:
        """The Frobenius norm of the matrix, exactly.

        Two taps meet in an entry where they read one input position; how often is a product over the axes.
        """
        taps = self.weight.double().flatten(2).movedim(-1, 0).flatten(1)
        meetings = torch.ones(1, 1, dtype=torch.float64, device=taps.device)
        for axis in range(len(self.in_size)):
            read = self.read(axis)
            meets = (read[:, :, None] == read[:, None, :]) & (read[:, :, None] != ZERO)
            meetings = torch.kron(meetings, meets.sum(0).double().to(taps.device))
        return float(((taps @ taps.T) * meetings).sum().clamp_min(0).sqrt())


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
def _checked(layer: _ConvNd, found: LinearMap) -> LinearMap:
    """Compare with the layer's own forward pass, where its class has one."""
    if type(layer).forward in PLAIN_FORWARDS:
        return found
    generator = torch.Generator().manual_seed(0)
    shape = (1, *found.in_shape)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float64).to(found.weight.device)
    if found.num_axes == 1:
        inputs = inputs.flatten(2)
    outputs = _in_double(layer, inputs) - _in_double(layer, torch.zeros_like(inputs))
    expected = found.forward(inputs.reshape(shape))
    if outputs.numel() != expected.numel() or not torch.allclose(outputs.flatten(), expected.flatten(), atol=1e-8):
        raise UserError(f"{type(layer).__name__} has no linear map: it is no convolution with zero padding")
    return found


def _in_double(layer: nn.Module, inputs: Tensor) -> Tensor:
    import copy

    trial = copy.deepcopy(layer).double().eval()
    outputs = trial(inputs)
    assert isinstance(outputs, Tensor)
    return outputs


def _gather(values: Tensor, axis: int, sources: Tensor) -> Tensor:
    """Copy positions along an axis; those without a source are zero."""
    gathered = values.index_select(axis, sources.clamp_min(0))
    zeros = (sources == ZERO).nonzero().flatten()
    return gathered.index_fill_(axis, zeros, 0) if len(zeros) else gathered


def _is_contiguous(sources: Tensor) -> bool:
    kept = (sources != ZERO).nonzero().flatten()
    return len(kept) == 0 or int(kept[-1] - kept[0]) == len(kept) - 1


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
