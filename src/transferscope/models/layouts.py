"""Axes of a layer's output that hold the examples and the channels, measured by trying the network.

Neither follows from the number of dimensions: (B, C, H, W), (B, H, W, C), (B, tokens, C), (B, C, tokens) and windows
(B * windows, tokens, C) all occur, within one network. Changing one example changes one part of the axis of examples
alone. Changing one entry of a bias, a scale or a row of weights that acts last changes one channel alone, at all
places. So both are found for any layer, whatever its forward pass permutes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.utils._pytree import tree_map

from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

_TRIES = 24
"""Parameters that are tried for a layer, the one that acts last first."""
_PARTS = (1 / 3, 2 / 3, 1 / 10, 1 / 2, 9 / 10, 1 / 5)
"""Places on a parameter whose entries are changed; two of them must agree."""
_CONFINED = 0.6
"""Smallest part of the squared change that lies in one channel; a normalisation behind it may spread a little."""
_APART = 0.05
"""By how much this part must exceed that of one place on any other axis."""


@dataclass(frozen=True)
class Layout:
    """The axes of a layer's output."""

    num_axes: int
    examples: int
    """Axis of the examples."""
    rows_per_example: int = 1
    """Entries of that axis for each example, next to each other; above 1 where a network works in windows."""
    channels: int | None = None
    """Axis of the channels; None where it was not asked for."""

    def pooled(self, output: Tensor, num_examples: int) -> Tensor:
        """(num_examples, num_channels), averaged over all else, in float32 at least."""
        values = self._by_example(output, num_examples)
        assert self.channels is not None
        if self.channels == self.examples:  # one value for each example
            return values.reshape(num_examples, -1)
        # Behind the examples come the rows of each; an axis in front of the examples moves one place up.
        axis = self.channels + (2 if self.channels < self.examples else 1)
        values = values.movedim(axis, 1).flatten(2)
        if values.shape[2] == 1:
            return values[..., 0]
        return values.mean(dim=2, dtype=torch.promote_types(output.dtype, torch.float32))

    def flattened(self, output: Tensor, num_examples: int) -> Tensor:
        """(num_examples, num_values)."""
        return self._by_example(output, num_examples).flatten(1)

    def _by_example(self, output: Tensor, num_examples: int) -> Tensor:
        rows = self.rows_per_example
        if output.ndim != self.num_axes or output.shape[self.examples] != num_examples * rows:
            raise UserError(f"an output of shape {tuple(output.shape)} for {num_examples} images: one gave {rows} rows")
        moved = output.movedim(self.examples, 0)
        return moved.reshape(num_examples, rows, *moved.shape[1:])


def first_tensor(output: Any) -> Tensor:
    """The tensor itself, or the first one of a tuple, list or mapping."""
    while not isinstance(output, Tensor):
        try:
            output = next(iter(output.values() if isinstance(output, Mapping) else output))
        except (TypeError, StopIteration) as error:
            raise UserError(f"an output of type {type(output).__name__} holds no tensor") from error
    return output


def find_layouts(
    model: nn.Module, paths: Iterable[str], image_shape: tuple[int, ...], *, channels: bool = True
) -> dict[str, Layout]:
    """Layouts of the outputs of some submodules, by path, for images of shape (channels, height, width).

    The network is tried on noise with weights of noise, so a layer that training has left dead or without effect has a
    layout, too; its own weights are put back. Costs about four passes on two images, however many layers.
    channels: without it only the axis of examples is looked for.

    Raises UserError that names the layer where examples are mixed or no axis, or more than one, behaves like channels.
    """
    layouts, refused = try_layouts(model, paths, image_shape, channels=channels)
    if refused:
        raise UserError("; ".join(refused.values()))
    return layouts


@torch.no_grad()
def try_layouts(
    model: nn.Module, paths: Iterable[str], image_shape: tuple[int, ...], *, channels: bool = True
) -> tuple[dict[str, Layout], dict[str, str]]:
    """As `find_layouts`; the layers that have no layout, with the reason, are returned beside those that do."""
    paths = tuple(paths)
    check_layers(model, paths)
    layouts: dict[str, Layout] = {}
    refused: dict[str, str] = {}
    with evaluation_mode(model), _noise_for_weights(model):
        trial = _Trial(model, paths, image_shape)
        for path in trial.paths:
            try:
                layout = trial.examples(path)
                layouts[path] = trial.with_channels(path, layout) if channels else layout
            except UserError as error:
                refused[path] = str(error)
    return layouts, refused


def check_layers(model: nn.Module, paths: Iterable[str]) -> None:
    """Raise a UserError that lists the layers of the model where one of `paths` is none of them."""
    existing = dict(model.named_modules())
    missing = [path for path in paths if path not in existing or not path]
    if missing:
        known = ", ".join(name for name in existing if name)
        raise UserError(f"no layer {', '.join(missing)} in {type(model).__name__}; its layers are: {known}")


@contextmanager
def _noise_for_weights(model: nn.Module) -> Iterator[None]:
    """Every parameter away from 0 and every channel alive; the model's own values come back."""
    kept = [(tensor, tensor.clone()) for tensor in (*model.parameters(), *model.buffers())]
    generator = torch.Generator().manual_seed(0)
    try:
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.copy_(_noise(parameter, generator))
        for layer in model.modules():
            if isinstance(layer, _BatchNorm):
                layer.reset_running_stats()
        yield
    finally:
        for tensor, values in kept:
            tensor.copy_(values)


def _noise(parameter: Tensor, generator: torch.Generator) -> Tensor:
    if _vector_axis(parameter) is not None or parameter.numel() == 1:
        return torch.rand(parameter.shape, generator=generator) + 0.5
    fan_in = max(parameter.numel() // parameter.shape[0], 1)
    return torch.randn(parameter.shape, generator=generator) / fan_in**0.5


def _vector_axis(parameter: Tensor) -> int | None:
    """The axis of a parameter such as (C,), (C, 1, 1) or (1, 1, C) that has more than one entry; None for others."""
    axes = [axis for axis, size in enumerate(parameter.shape) if size > 1]
    return axes[0] if len(axes) == 1 else None


@dataclass
class _Call:
    """The last call of a layer: what went in and came out, and which modules with parameters ran before its end."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Tensor
    ran_before: list[str]


class _Trial:
    """Passes of noise through a network, and what the layers put out."""

    def __init__(self, model: nn.Module, paths: tuple[str, ...], image_shape: tuple[int, ...]) -> None:
        self.model, self.paths = model, paths
        self.layers = dict(model.named_modules())
        weight = next(model.parameters())
        generator = torch.Generator().manual_seed(1)
        images = torch.randn(3, *image_shape, generator=generator).to(weight)
        self.images = images[:2]
        self.calls = self._run(self.images)
        silent = [path for path in paths if path not in self.calls]
        if silent:
            name = type(model).__name__
            raise UserError(f"layer {', '.join(silent)} took no part in the forward pass of {name}")
        self.changed = {path: call.output for path, call in self._run(images[::2]).items()}

    def _run(self, images: Tensor) -> dict[str, _Call]:
        calls: dict[str, _Call] = {}
        given: dict[str, tuple[Any, Any]] = {}
        order: list[str] = []

        def before(path: str) -> Callable[[nn.Module, Any, Any], None]:
            def keep(_: nn.Module, args: Any, kwargs: Any) -> None:
                given[path] = tree_map(_copied, (args, kwargs))

            return keep

        def after(path: str) -> Callable[[nn.Module, Any, Any], None]:
            def keep(layer: nn.Module, _: Any, output: Any) -> None:
                if layer._parameters:
                    order.append(path)
                if path in given:
                    calls[path] = _Call(*given[path], first_tensor(output).clone(), list(order))

            return keep

        handles = [self.layers[path].register_forward_pre_hook(before(path), with_kwargs=True) for path in self.paths]
        handles += [layer.register_forward_hook(after(path)) for path, layer in self.layers.items() if path]
        try:
            self.model(images)
        finally:
            for handle in handles:
                handle.remove()
        return calls

    def examples(self, path: str) -> Layout:
        before, after = self.calls[path].output, self.changed[path]
        changed = before != after
        for axis, size in enumerate(before.shape):
            rows, rest = divmod(size, 2)
            along = changed.movedim(axis, 0).flatten(1).any(dim=1)
            if rest == 0 and not along[:rows].any() and along[rows:].any():
                return Layout(before.ndim, axis, rows)
        raise UserError(
            f"layer {path} of {type(self.model).__name__} puts out {tuple(before.shape)} for two images: no axis "
            "holds the examples, so its features have no similarity; choose other layers"
        )

    def with_channels(self, path: str, layout: Layout) -> Layout:
        shape = tuple(self.calls[path].output.shape)
        axes = [axis for axis, size in enumerate(shape) if size > 1 and axis != layout.examples]
        if len(axes) <= 1 and layout.rows_per_example == 1:
            others = [axis for axis in range(len(shape)) if axis != layout.examples]
            return replace(layout, channels=(axes or others or [layout.examples])[0])
        for parameter, axis, inside in self._acting_last(path):
            # Some entries may act on nothing, as those in front of a ReLU that is never active.
            places = (self._place(path, layout, parameter, axis, part, inside) for part in _PARTS)
            first, second, *_ = *islice(filter(None, places), 2), None, None
            if first and second and first[0] == second[0] and first[1] != second[1]:
                return replace(layout, channels=first[0])
        raise UserError(
            f"layer {path} of {type(self.model).__name__} puts out {shape} for two images, and no axis behaves like "
            "channels: choose other layers, or flattened features instead of pooled ones"
        )

    def _acting_last(self, path: str) -> Iterator[tuple[Tensor, int, bool]]:
        """Parameters that may act on single channels of the layer's output, from the last one back.

        With the axis of their entries, and whether they lie inside the layer.
        """
        tried = 0
        for name in dict.fromkeys(reversed(self.calls[path].ran_before)):
            layer = self.layers[name]
            own = [p for p in layer.parameters(recurse=False) if p.is_floating_point()]
            vectors = [(p, axis) for p in reversed(own) if (axis := _vector_axis(p)) is not None]
            rows = [] if vectors or not isinstance(layer, _ConvNd | nn.Linear) else [p for p in own if p.ndim >= 2][:1]
            for parameter, axis in (*vectors, *((p, int(isinstance(layer, _ConvTransposeNd))) for p in rows)):
                yield parameter, axis, f"{name}.".startswith(f"{path}.")
                tried += 1
                if tried == _TRIES:
                    return

    def _place(
        self, path: str, layout: Layout, parameter: Tensor, axis: int, part: float, inside: bool
    ) -> tuple[int, int] | None:
        """The axis, and the place on it, to which a change of one entry of a parameter is confined."""
        entry = parameter.select(axis, int(part * parameter.shape[axis]))
        kept = entry.clone()
        entry.add_(1.0 if _vector_axis(parameter) is not None else kept)
        try:
            change = (self._output(path, inside) - self.calls[path].output).double().square()
        finally:
            entry.copy_(kept)
        total = float(change.sum())
        if not 0 < total < math.inf:
            return None
        shares: list[tuple[float, int, int]] = []
        for place, size in enumerate(change.shape):
            if size > 1 and (place != layout.examples or layout.rows_per_example > 1):
                along = change.movedim(place, 0).flatten(1).sum(dim=1) / total
                shares.append((float(along.max()), place, int(along.argmax())))
        shares.sort(reverse=True)
        share, own, at = shares[0]
        apart = len(shares) == 1 or share - shares[1][0] >= _APART
        return (own, at) if share >= _CONFINED and apart and own != layout.examples else None

    def _output(self, path: str, inside: bool) -> Tensor:
        """The layer's output now: by itself on what went in before, or in a whole pass where that may change."""
        if not inside:
            return self._run(self.images)[path].output
        call = self.calls[path]
        args, kwargs = tree_map(_copied, (call.args, call.kwargs))
        return first_tensor(self.layers[path](*args, **kwargs))


def _copied(value: Any) -> Any:
    """In-place operations must not reach what is kept."""
    return value.clone() if isinstance(value, Tensor) else value
