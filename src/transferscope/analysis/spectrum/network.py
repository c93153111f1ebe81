"""The spectra of all layers of a network as a table, at the sizes that its forward pass gives them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode

from transferscope.analysis.spectrum.circular import next_multiples
from transferscope.analysis.spectrum.heavy_tail import fit_power_law, layer_eigenvalues
from transferscope.analysis.spectrum.layer import LayerSpectrum, Padding, layer_spectrum
from transferscope.analysis.spectrum.layer_map import linear_map, projections
from transferscope.analysis.spectrum.linear_map import LinearMap
from transferscope.analysis.spectrum_summary import THRESHOLDS
from transferscope.models.layers import evaluation_mode, image_channels
from transferscope.system.errors import UserError

logger = logging.getLogger(__name__)

COLUMNS = ("module", "layer", "padding", "folded", "method", "top_status", "smallest_status", "counts_status", "note")
NONE = "none"
"""The method of a layer without a spectrum; the note says why."""


@dataclass
class _Trace:
    """Facts about the layers that a forward pass shows."""

    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of a layer's input, without the batch; in order of the forward pass."""
    scales: dict[str, Tensor] = field(default_factory=dict)
    """Factor of a layer's outputs directly behind it."""


def network_spectrum(
    model: nn.Module,
    input_size: int | tuple[int, int] | Tensor,
    *,
    padding: Padding = "network",
    folded: bool = False,
    thresholds: Sequence[float] = THRESHOLDS,
    top: int = 20,
    smallest: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """One row for each layer with a weight of two or more dimensions, in the order of the forward pass, and "all".

    input_size: pixels of an image (H, W), or an example with its batch. padding: as of `layer_spectrum`; where a
    stride does not divide the input, circular padding takes the next size that it does, and the note says so. folded:
    whether a BatchNorm, or a gain that the network multiplies a layer's output with directly behind it, is part of its
    map. Columns: module; layer, its type; padding; folded; method and what of it is exact, converged, bounded or
    estimated; note; frobenius; spectral_norm; norm_bound (certified); ratio and stable_rank; smallest; alpha (see
    `heavy_tail`); count_below_<t>, low_below_<t> and high_below_<t> for each threshold; num_values.

    A layer that has no spectrum has a row with method "none" and the reason. "all" has all layers side
    by side. Raises UserError where no layer has a spectrum, or a weight is not finite, and names the layer.
    """
    trace = _traced(model, input_size)
    rows: list[dict[str, Any]] = []
    for name, layer, weight_of, reason in _layers(model, trace):
        if reason:
            rows.append({"module": name, "layer": type(layer).__name__, "method": NONE, "note": reason})
            continue
        scale = trace.scales.get(name) if folded else None
        try:
            linear = linear_map(weight_of, _shape(trace, name, weight_of), scale)
        except UserError as error:
            if "not finite" in str(error):
                raise UserError(f"layer {name}: {error}") from error
            rows.append({"module": name, "layer": type(layer).__name__, "method": NONE, "note": str(error)})
            continue
        linear, note = _fitting(linear) if padding == "circular" else (linear, "")
        spectrum = layer_spectrum(linear, padding=padding, top=top, smallest=smallest, seed=seed)
        rows.append(
            {"module": name, "layer": type(layer).__name__, "folded": scale is not None, "note": note}
            | _summary(spectrum, thresholds)
            | {"alpha": fit_power_law(layer_eigenvalues(_matrix(linear))).alpha}
        )
    table = pd.DataFrame(rows).assign(padding=padding)
    if "num_values" not in table:
        raise UserError("the model has no layer with a linear map")
    table["folded"] = table["folded"].fillna(False).astype(bool)
    table = pd.concat([table, pd.DataFrame([_whole(table)])], ignore_index=True)
    return table[[*COLUMNS, *(name for name in table.columns if name not in COLUMNS)]]


def _matrix(linear: LinearMap) -> Tensor:
    weight = linear.weight
    return weight.flatten(1) if linear.num_axes == 0 else weight


def _summary(spectrum: LayerSpectrum, thresholds: Sequence[float]) -> dict[str, Any]:
    counts = spectrum.counts_below(thresholds)
    numbers: dict[str, Any] = {
        "method": spectrum.method,
        "top_status": spectrum.top_status,
        "smallest_status": spectrum.smallest_status,
        "counts_status": spectrum.counts_status,
        "frobenius": spectrum.frobenius,
        "spectral_norm": float(spectrum.top_values[0]),
        "norm_bound": spectrum.norm_bound,
        "ratio": spectrum.ratio,
        "stable_rank": spectrum.ratio**2,
        "smallest": float(spectrum.smallest_values[-1]) if len(spectrum.smallest_values) else float("nan"),
    }
    for name, part in zip(("count", "low", "high"), counts, strict=True):
        numbers |= {f"{name}_below_{limit:g}": float(value) for limit, value in zip(thresholds, part, strict=True)}
    return numbers | {"num_values": spectrum.num_values}


def _whole(table: pd.DataFrame) -> dict[str, Any]:
    """The row of all layers side by side; the bars of the layers are added, which is more than they need."""
    known = table[table["num_values"].notna()]
    added = [name for name in known.columns if "_below_" in name or name == "num_values"]
    frobenius, largest = float(np.sqrt((known["frobenius"] ** 2).sum())), float(known["spectral_norm"].max())
    ratio = frobenius / largest if largest else float("nan")
    status = {
        name: "exact" if (known[name] == "exact").all() else "estimated"
        for name in ("top_status", "smallest_status", "counts_status")
    }
    return {
        "module": "all", "layer": "", "padding": table["padding"].iloc[0], "folded": bool(known["folded"].any()),
        "method": "", "note": "", **status, "frobenius": frobenius, "spectral_norm": largest,
        "norm_bound": float(known["norm_bound"].max()), "ratio": ratio, "stable_rank": ratio**2,
        "smallest": float(known["smallest"].min()), "alpha": float(known["alpha"].mean()),
        **{name: float(known[name].sum()) for name in added},
    }  # fmt: skip


def _fitting(linear: LinearMap) -> tuple[LinearMap, str]:
    """The map at the next input size that the stride divides, and a note where that is another one."""
    size = next_multiples(linear.in_size, linear.stride)
    if size == linear.in_size:
        return linear, ""
    return replace(linear, in_size=size), f"input size {linear.in_size} taken as {size}, a multiple of the stride"


def _shape(trace: _Trace, name: str, layer: nn.Module) -> tuple[int, ...]:
    """Shape of a layer's input; a linear layer's map is that of one position."""
    return (layer.in_features,) if isinstance(layer, nn.Linear) else trace.shapes[name]


def _layers(model: nn.Module, trace: _Trace) -> Iterator[tuple[str, nn.Module, nn.Module, str]]:
    """Name, layer, the module that holds its weight, and why it has no spectrum (empty where it has one)."""
    modules = dict(model.named_modules())
    for name in [*trace.shapes, *(name for name in modules if name not in trace.shapes)]:
        layer = modules[name]
        if isinstance(layer, nn.MultiheadAttention):
            for suffix, projection in projections(layer):
                yield f"{name}.{suffix}", layer, projection, ""
        elif name in trace.shapes or isinstance(layer, nn.Linear):
            reason = "" if name in trace.shapes or _is_of_attention(name, modules) else "the forward pass skips it"
            yield name, layer, layer, reason
        elif isinstance(layer, _ConvNd):
            yield name, layer, layer, "the forward pass skips it"
        elif any(weight.ndim >= 2 for weight in layer.parameters(recurse=False)):
            yield name, layer, layer, f"{type(layer).__name__} is no convolution and no linear layer"


def _is_of_attention(name: str, modules: dict[str, nn.Module]) -> bool:
    """torch's attention multiplies with the weight of its output projection without calling it."""
    return isinstance(modules.get(name.rpartition(".")[0]), nn.MultiheadAttention)


def _traced(model: nn.Module, input_size: int | tuple[int, int] | Tensor) -> _Trace:
    trace, watch = _Trace(), _Scales()
    example = _example(model, input_size)
    with evaluation_mode(model), torch.enable_grad(), _hooks(model, trace, watch), watch:
        try:
            model(example)
        except (RuntimeError, ValueError, AssertionError, TypeError) as error:
            shape = "x".join(map(str, example.shape[1:]))
            raise UserError(f"{type(model).__name__} cannot take an input of {shape}: {error}") from error
    trace.scales = {name: torch.stack(parts).prod(0) for name, parts in watch.scales.items()}
    return trace


def _example(model: nn.Module, input_size: int | tuple[int, int] | Tensor) -> Tensor:
    parameter = next(model.parameters(), None)
    if parameter is None:
        raise UserError(f"{type(model).__name__} has no layer with a weight")
    if isinstance(input_size, Tensor):
        return input_size.to(parameter.device)
    size = (input_size, input_size) if isinstance(input_size, int) else tuple(input_size)
    if len(size) != 2 or min(size) < 1:
        raise UserError(f"input_size {input_size}: expected one or two whole numbers of at least 1")
    return torch.zeros(1, image_channels(model), *size, device=parameter.device, dtype=parameter.dtype)


@contextmanager
def _hooks(model: nn.Module, trace: _Trace, watch: _Scales) -> Iterator[None]:
    def enters(name: str, layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        axes = len(layer.kernel_size) if isinstance(layer, _ConvNd) else 0
        shape = tuple(inputs[0].shape)
        trace.shapes.setdefault(name, shape[-axes - 1 :])

    def leaves(name: str, output: Any, channels: int, axis: int) -> None:
        watch.follow(output, name, channels, axis)

    handles = []
    for name, layer in model.named_modules():
        if isinstance(layer, _ConvNd | nn.Linear):
            handles.append(layer.register_forward_pre_hook(lambda m, i, n=name: enters(n, m, i)))
            channels = layer.out_features if isinstance(layer, nn.Linear) else layer.out_channels
            axis = -1 if isinstance(layer, nn.Linear) else -len(layer.kernel_size) - 1
            handles.append(layer.register_forward_hook(lambda m, i, o, n=name, c=channels, a=axis: leaves(n, o, c, a)))
        elif isinstance(layer, _BatchNorm):
            handles.append(layer.register_forward_hook(lambda m, i, o: watch.normalised(m, i[0], o)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Scales(TorchFunctionMode):
    """Follows the outputs of layers to a BatchNorm or to a parameter that they are multiplied with directly."""

    def __init__(self) -> None:
        super().__init__()
        self.scales: dict[str, list[Tensor]] = {}
        self._followed: dict[int, tuple[Tensor, str, int, int]] = {}

    def follow(self, output: Any, name: str, channels: int, axis: int) -> None:
        if isinstance(output, Tensor) and name not in self.scales:
            self._followed[id(output)] = (output, name, channels, axis)

    def normalised(self, norm: _BatchNorm, given: Tensor, output: Tensor) -> None:
        """A BatchNorm in evaluation mode multiplies with gain over deviation."""
        if id(given) not in self._followed or norm.running_var is None:
            return
        _, name, channels, axis = self._followed.pop(id(given))
        gain = torch.ones(channels) if norm.weight is None else norm.weight.detach()
        self._multiplied(name, channels, gain.double() / (norm.running_var.double() + norm.eps).sqrt())
        self._followed[id(output)] = (output, name, channels, axis)

    def _multiplied(self, name: str, channels: int, scale: Tensor) -> None:
        self.scales.setdefault(name, []).append(scale.detach().double().flatten().expand(channels).clone())

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func in _MULTIPLICATIONS and len(args) == 2:
            for value, gain in (args, args[::-1]):
                followed = self._followed.get(id(value)) if isinstance(value, Tensor) else None
                if followed is not None and _is_gain(gain, followed[2], followed[3], value.ndim):
                    _, name, channels, axis = self._followed.pop(id(value))
                    self._multiplied(name, channels, gain)
                    self._followed[id(result)] = (result, name, channels, axis)
                    break
        return result


_MULTIPLICATIONS = (torch.mul, Tensor.mul, Tensor.mul_, Tensor.__mul__, Tensor.__rmul__, Tensor.__imul__)


def _is_gain(gain: Any, channels: int, axis: int, ndim: int) -> bool:
    """True if a factor is a parameter, or a view of one, of one value or of one a channel."""
    if not isinstance(gain, Tensor):
        return False
    base = gain if gain._base is None else gain._base
    if not isinstance(base, nn.Parameter):
        return False
    if gain.numel() == 1:
        return True
    shape = (1,) * (ndim - gain.ndim) + tuple(gain.shape)
    return gain.numel() == channels and len(shape) == ndim and shape[axis] == channels
