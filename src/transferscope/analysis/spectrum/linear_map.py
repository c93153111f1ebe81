"""A convolution as a matrix that is never formed: forward, adjoint, and how its padding copies pixels.

Padding is a list of sources for each axis: which input position every padded position copies, or none for a zero. This
holds for zeros, reflection, replication and circular padding, on either side by any width, and for one after another.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

import torch
import torch.nn.functional as F
from torch import Tensor

ZERO = -1
"""The source of a padded position that holds 0."""

FEW_CHANNELS = 16


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
            rows, columns = map(len, self.sources)
            return self._unpad(shuffled[..., :rows, :columns])
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
            for sources, reach, outputs, step in zip(self.sources, self.reach, self.out_size, self.stride, strict=True)
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
        """True if an axis is padded by zeros alone."""
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


def _gather(values: Tensor, axis: int, sources: Tensor) -> Tensor:
    """Copy positions along an axis; those without a source are zero."""
    gathered = values.index_select(axis, sources.clamp_min(0))
    zeros = (sources == ZERO).nonzero().flatten()
    return gathered.index_fill_(axis, zeros, 0) if len(zeros) else gathered


def _is_contiguous(sources: Tensor) -> bool:
    kept = (sources != ZERO).nonzero().flatten()
    return len(kept) == 0 or int(kept[-1] - kept[0]) == len(kept) - 1
