"""The spectrum of one layer's map: exact where it decomposes, else its ends, its density and certified bounds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import sqrt
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from transferscope.analysis.spectrum.circular import conv_singular_values, next_multiples
from transferscope.analysis.spectrum.density import Density, density
from transferscope.analysis.spectrum.exact import (
    DENSE_BYTES,
    DENSE_FLOPS,
    dense_bytes,
    dense_flops,
    dense_top_vectors,
    dense_values,
    direct_sum_values,
    is_direct_sum,
)
from transferscope.analysis.spectrum.krylov import TopValues, top_values
from transferscope.analysis.spectrum.layer_map import linear_map
from transferscope.analysis.spectrum.linear_map import LinearMap
from transferscope.analysis.spectrum.smallest import SHIFTED_FLOPS, shifted_flops, smallest_values
from transferscope.analysis.spectrum_summary import count_below
from transferscope.system.errors import UserError

Padding = Literal["network", "circular"]
Method = Literal["auto", "dense", "lanczos"]
PADDINGS = ("network", "circular")
LAYER_METHODS = ("auto", "dense", "lanczos")
CONVERGED = 1e-6
"""Largest error of a converged value, as a part of the largest one."""
SLACK = 1 + 1e-9
"""For rounding, in bounds that are exact in exact arithmetic."""


class Counts(NamedTuple):
    """Numbers of singular values below thresholds, float64 (num_thresholds,), with the ends of their error bars."""

    estimate: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


@dataclass(frozen=True)
class Envelope:
    """Certified bounds from the circular map on the padded input, of which the layer's map is a part.

    A matrix without some of its rows and columns has smaller singular values, and not smaller ones than those of the
    whole that come as many places later (interlacing). A padding that copies a pixel c times stretches by at most the
    root of c.
    """

    values: NDArray[np.float64]
    """Singular values of the circular map, descending."""
    multiplicities: NDArray[np.int64]
    stretch: float
    num_left_out: int
    """Rows and columns of the circular map that are not the layer's."""

    @property
    def norm(self) -> float:
        """At least the largest singular value."""
        return float(self.values[0]) * self.stretch * SLACK

    def counts_below(self, thresholds: NDArray[np.float64], num_values: int) -> tuple[NDArray[np.float64], ...]:
        """Certified ends, low and high, of the number of the layer's values below each threshold."""
        total = int(self.multiplicities.sum())
        lower, upper = thresholds / self.stretch / SLACK, thresholds * SLACK
        below_scaled = count_below(self.values, self.multiplicities, lower)
        below = count_below(self.values, self.multiplicities, upper)
        low = num_values - (total - below_scaled)
        high = num_values - (total - below - self.num_left_out)
        return np.clip(low, 0, num_values).astype(float), np.clip(high, 0, num_values).astype(float)


@dataclass(frozen=True)
class LayerSpectrum:
    """The singular values of a layer's linear map."""

    top_values: Tensor
    """float64, descending: the largest ones, each as often as it occurs."""
    smallest_values: Tensor
    """float64, descending: the smallest ones; one upper bound of all where `smallest_status` is bounded."""
    num_values: int
    """All singular values: the smaller side of the map's matrix."""
    norm_bound: float
    """Certified: at least the largest singular value."""
    frobenius: float
    """Root of the sum of the squares of all singular values."""
    method: str
    """The way to the values: `circular` (by frequency), `direct sum`, `dense`, `lanczos`, `zero` (weights)."""
    top_status: str
    """`exact`, `converged` (to 1e-6 of the largest) or `estimated`."""
    smallest_status: str
    """`exact`, `converged` or `bounded`."""
    counts_status: str
    """`exact` or `estimated`."""
    top_vectors: Tensor | None = None
    """float64 (num, *input shape of the layer) right singular vectors of the largest values, where asked for."""
    values: Tensor | None = None
    """All values, float64 and descending, where they are exact."""
    multiplicities: Tensor | None = None
    """int64, how often each of `values` occurs."""
    density: Density | None = None
    """The density, where the values are not all known."""
    envelope: Envelope | None = None

    @property
    def ratio(self) -> float:
        """Frobenius norm over the largest value; its square is the stable rank."""
        largest = float(self.top_values[0])
        return self.frobenius / largest if largest else float("nan")

    def counts_below(self, thresholds: ArrayLike, confidence: float = 0.95) -> Counts:
        """Number of singular values strictly below each threshold: estimate, low and high (equal where exact)."""
        limits = np.atleast_1d(np.asarray(thresholds, dtype=np.float64))
        if not np.isfinite(limits).all() or (limits <= 0).any():
            raise UserError(f"thresholds {limits.tolist()}: expected positive numbers")
        if self.values is not None and self.multiplicities is not None:
            exact = count_below(self.values, self.multiplicities, limits).astype(float)
            return Counts(exact, exact, exact)
        assert self.density is not None
        estimate, low, high = (part * self.num_values for part in self.density.shares_below(limits, confidence))
        for certain_low, certain_high in self._certain(limits):
            low, high = np.maximum(low, certain_low), np.minimum(high, certain_high)
            low, high = np.minimum(low, certain_high), np.maximum(high, certain_low)
        return Counts(np.clip(estimate, low, high), low, high)

    def _certain(self, limits: NDArray[np.float64]) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
        """Bounds of counts from the circular map and from the largest and smallest values."""
        bounds = []
        if self.envelope is not None:
            low, high = self.envelope.counts_below(limits, self.num_values)
            bounds.append((low, high))
        above = (self.top_values.numpy()[:, None] >= limits).sum(0)
        all_known = limits > float(self.top_values[-1])
        known = self.num_values - above
        if self.top_status != "estimated":
            bounds.append((np.where(all_known, known, 0.0), known.astype(float)))
        return bounds


def layer_spectrum(
    layer: nn.Module | LinearMap,
    input_shape: Sequence[int] = (),
    *,
    padding: Padding = "network",
    top: int = 20,
    smallest: int = 20,
    seed: int = 0,
    scale: Tensor | None = None,
    method: Method = "auto",
    vectors: bool = False,
    envelope: bool = True,
) -> LayerSpectrum:
    """The singular values of the linear map that a layer computes for one example.

    layer: a convolution or transposed convolution with 1 to 3 axes, a linear layer, or an `nn.Sequential` of padding
    layers and one of these (see `linear_map`); input_shape: (C, H, W), without the batch. padding: "network" is the
    layer as it is; "circular" wraps around at a stride that must divide the input, as `conv_singular_values`. top and
    smallest: how many values of either end. scale: (c_out,), a BatchNorm or gain folded in. vectors: whether the right
    singular vectors of the largest values are kept.

    method "auto": exact where the map is a direct sum over positions or circular, or where a dense decomposition costs
    at most 2e10 operations; else Lanczos. The largest values are then good to 1e-6 of the largest, counts have error
    bars, and `norm_bound` and the bars are tightened by the circular map on the padded input (`envelope=False` leaves
    that out). The smallest ones are given by shift and invert where the matrix has at most some 5,000 rows; else, and
    with `smallest=0`, there is an upper bound of the smallest.

    Raises UserError where the layer has no linear map, the weight is empty or not finite, the input does not fit the
    kernel or, with circular padding, the stride, or where vectors of a layer of zeros are wanted.
    """
    for name, value, known in (("padding", padding, PADDINGS), ("method", method, LAYER_METHODS)):
        if value not in known:
            raise UserError(f"{name} {value!r}: expected one of {', '.join(known)}")
    if top < 1 or smallest < 0:
        raise UserError(f"top {top}, smallest {smallest}: expected whole numbers, top of at least 1")
    linear = layer if isinstance(layer, LinearMap) else linear_map(layer, tuple(input_shape), scale)
    if padding == "circular":
        return _exact(linear, *_circular(linear), "circular", top, smallest)
    if not bool(linear.weight.any()):
        if vectors:
            raise UserError("the weight is zero: every input is a singular vector, ask for none")
        nothing = torch.zeros(1, dtype=torch.float64), torch.tensor([linear.num_values])
        return _exact(linear, *nothing, "zero", top, smallest)
    if method == "auto" and is_direct_sum(linear):
        spectrum = _exact(linear, *direct_sum_values(linear), "direct sum", top, smallest)
    elif method == "auto" and _is_circular(linear):
        spectrum = _exact(linear, *_circular(linear), "circular", top, smallest)
    elif method == "dense" or (method == "auto" and _is_small(linear)):
        spectrum = _exact(linear, *dense_values(linear), "dense", top, smallest)
    else:
        return _by_lanczos(linear, top, smallest, seed, vectors=vectors, with_envelope=envelope)
    return replace(spectrum, top_vectors=_vectors(linear, top, seed)) if vectors else spectrum


def _is_small(linear: LinearMap) -> bool:
    return dense_flops(linear) <= DENSE_FLOPS and dense_bytes(linear) <= DENSE_BYTES


def _is_circular(linear: LinearMap) -> bool:
    """True if the layer's own padding wraps around, with outputs at all multiples of a stride that divides the size."""
    for axis, (sources, size, step, outputs) in enumerate(
        zip(linear.sources, linear.in_size, linear.stride, linear.out_size, strict=True)
    ):
        start = int(sources[0])
        wrapped = (torch.arange(len(sources)) + start) % size
        whole = size % step == 0 and outputs == size // step and len(sources) <= size + linear.reach[axis] - 1
        if not (whole and torch.equal(sources.cpu(), wrapped)):
            return False
    return True


def _circular(linear: LinearMap) -> tuple[Tensor, Tensor]:
    return conv_singular_values(
        linear.weight, linear.in_size, stride=linear.stride, dilation=linear.dilation, groups=linear.groups
    )


def _exact(
    linear: LinearMap, values: Tensor, multiplicities: Tensor, method: str, top: int, smallest: int
) -> LayerSpectrum:
    order = torch.argsort(values, descending=True, stable=True)
    values, multiplicities = values[order], multiplicities[order]
    largest = torch.repeat_interleave(values, multiplicities.clamp_max(top))[:top]
    least = torch.repeat_interleave(values, multiplicities.clamp_max(max(1, smallest)))
    frobenius = sqrt(float((multiplicities * values.square()).sum()))
    return LayerSpectrum(
        top_values=largest, smallest_values=least[max(0, len(least) - max(1, smallest)) :],
        num_values=int(multiplicities.sum()), norm_bound=float(values[0]) * SLACK, frobenius=frobenius, method=method,
        top_status="exact", smallest_status="exact", counts_status="exact", values=values,
        multiplicities=multiplicities,
    )  # fmt: skip


def _by_lanczos(
    linear: LinearMap, top: int, smallest: int, seed: int, *, vectors: bool, with_envelope: bool
) -> LayerSpectrum:
    estimate = density(linear, seed)
    certified = bounds(linear) if with_envelope else None
    frobenius = linear.frobenius()
    largest = _largest(linear, estimate, top, seed, vectors=vectors)
    converged = largest.error <= CONVERGED * float(largest.values[0])
    if smallest and shifted_flops(linear) <= SHIFTED_FLOPS:
        least, status = smallest_values(linear, smallest, seed), "converged"
    else:
        least, status = torch.tensor([estimate.smallest()], dtype=torch.float64), "bounded"
    bound = certified.norm if certified is not None else frobenius * SLACK
    return LayerSpectrum(
        top_values=largest.values, smallest_values=least, num_values=linear.num_values,
        norm_bound=min(bound, frobenius * SLACK),
        frobenius=frobenius, method="lanczos", top_status="converged" if converged else "estimated",
        smallest_status=status, counts_status="estimated", density=estimate, envelope=certified,
        top_vectors=None if largest.vectors is None else _as_inputs(linear, largest.vectors, largest.values),
    )  # fmt: skip


def bounds(linear: LinearMap) -> Envelope:
    """Certified bounds of a map from the circular map on its padded input."""
    padded = tuple(max(len(part), reach) for part, reach in zip(linear.sources, linear.reach, strict=True))
    torus = next_multiples(padded, linear.stride)
    values, multiplicities = conv_singular_values(
        linear.weight, torus, stride=linear.stride, dilation=linear.dilation, groups=linear.groups
    )
    pixels, outputs = 1, 1
    for length, step in zip(torus, linear.stride, strict=True):
        pixels, outputs = pixels * length, outputs * (length // step)
    channels = linear.in_shape[0]
    left_out = channels * pixels - linear.num_inputs + linear.out_shape[0] * outputs - linear.num_outputs
    return Envelope(values.numpy(), multiplicities.numpy(), sqrt(linear.copies), left_out)


def _vectors(linear: LinearMap, top: int, seed: int) -> Tensor:
    """Right singular vectors of an exactly known map: dense where it is small, else by Lanczos."""
    if _is_small(linear) and not linear.transposed:
        return dense_top_vectors(linear, top)[1].cpu()
    largest = _largest(linear, density(linear, seed), top, seed, vectors=True)
    assert largest.vectors is not None
    return _as_inputs(linear, largest.vectors, largest.values)


def _largest(linear: LinearMap, seen: Density, top: int, seed: int, *, vectors: bool) -> TopValues:
    return top_values(linear, top, seen.edge(max(8, top // 2)), seen.largest(), seed, vectors=vectors)


def _as_inputs(linear: LinearMap, vectors: Tensor, values: Tensor) -> Tensor:
    """Singular vectors of the smaller side as those of the layer's input, of length 1."""
    of_inputs = linear.num_inputs <= linear.num_outputs
    if of_inputs == linear.transposed:
        mapped = linear.forward(vectors) if linear.transposed else linear.adjoint(vectors)
        vectors = mapped / values.clamp_min(torch.finfo(torch.float64).tiny).to(mapped).reshape(
            -1, *[1] * (mapped.ndim - 1)
        )
    return vectors.contiguous().cpu()
