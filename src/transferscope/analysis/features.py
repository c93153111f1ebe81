"""Features of named layers, taken while the model runs, after the non-linearity where one follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transferscope.analysis.compiled import compiled
from transferscope.models.activation_layers import Activations
from transferscope.models.layers import WEIGHT_LAYERS, evaluation_mode
from transferscope.models.layouts import Layout, check_layers, find_layouts, first_tensor
from transferscope.system.errors import UserError

Pooling = Literal["pooled", "flattened"]
POOLINGS = ("pooled", "flattened")

Graphs = dict[tuple[object, ...], nn.Module]
"""Compiled passes by layers and images; they take the weights and the images, and put out the features."""


class FeatureExtractor:
    """The outputs of named layers for a batch of images, from one forward pass in evaluation mode.

    A layer without parts, such as a convolution or a normalisation, gives what the activation behind it makes of its
    output, where there is one (`models.activation_layers`): averaged over pixels, the bare convolution of a stem
    would be the mean colour of the image, alike in all models. Features that stay linear in the image are in `linear`.

    layers: name of a feature -> dotted path of the submodule (or a list of paths). features: "pooled" averages over all
    that is no channel, be it pixels, tokens (class and register tokens included) or windows; "flattened" keeps every
    value. Which axis holds the channels is found by trying the network, not from the number of dimensions. A layer that
    runs more than once gives its last output; one that returns several, the first tensor.
    layouts: path -> layout, filled at the first call; extractors of one architecture can share it.
    graphs: compiled passes, likewise; None: the network runs as it is. Compiled, all features of a batch are in memory
    together before the first is reduced.

    Raises UserError for a layer that does not exist (listing those that do), for one that did not run, and for one
    whose output has no axis of examples or, pooled, of channels.
    """

    def __init__(
        self,
        model: nn.Module,
        layers: Mapping[str, str] | Sequence[str],
        *,
        features: Pooling = "pooled",
        layouts: dict[str, Layout] | None = None,
        graphs: Graphs | None = None,
    ) -> None:
        if features not in POOLINGS:
            raise UserError(f"features {features!r}: expected one of {', '.join(POOLINGS)}")
        self.model = model
        self.layers = dict(layers) if isinstance(layers, Mapping) else {path: path for path in layers}
        self.features = features
        self.layouts = {} if layouts is None else layouts
        self.graphs = graphs
        self.linear: frozenset[str] = frozenset()
        self._activated: frozenset[str] | None = None
        check_layers(model, self.layers.values())

    @torch.no_grad()
    def __call__(self, images: Tensor, reduce: Callable[[Tensor], Any] | None = None) -> dict[str, Any]:
        """Feature name -> (num_examples, num_features), or what `reduce` makes of that.

        `reduce` is applied while the model runs, so that a layer's features can be dropped before the next one's exist.
        """
        features: dict[str, Any] = {}
        self._find_layouts(images)
        self._find_activations(images[:2])

        def keep(name: str, value: Tensor) -> None:
            # Without the copy a later in-place operation (ReLU) would change what is only a view of the output.
            features[name] = value.clone() if reduce is None else reduce(value)

        if self.graphs is None:
            self._run(images, keep)
        else:
            for name, value in self._by_graph(images).items():
                features[name] = value if reduce is None else reduce(value)
        return {name: features[name] for name in self.layers}

    def _by_graph(self, images: Tensor) -> dict[str, Tensor]:
        """The features by a compiled pass, which is traced with all hooks on the first batch of a shape."""
        from torch.fx.experimental.proxy_tensor import make_fx  # loads torch's compiler

        assert self.graphs is not None
        weights = [*self.model.parameters(), *self.model.buffers()]
        key = (*self.layers.items(), self._activated, self.features, images.shape, images.stride(), images.dtype)
        if key not in self.graphs:
            traced = make_fx(lambda *given: self._traced(*given))(weights, images)
            self.graphs[key] = compiled(traced)
        return dict(zip(self.layers, self.graphs[key](weights, images), strict=True))

    def _traced(self, weights: list[Tensor], images: Tensor) -> list[Tensor]:
        """The features in order, of a network with these weights and buffers."""
        features: dict[str, Tensor] = {}
        names = [name for name, _ in (*self.model.named_parameters(), *self.model.named_buffers())]
        state = dict(zip(names, weights, strict=True))
        self._run(images, lambda name, value: features.update({name: value.clone()}), state)
        return [features[name] for name in self.layers]

    def _run(self, images: Tensor, keep: Callable[[str, Tensor], None], state: dict[str, Tensor] | None = None) -> None:
        """Pass on each feature, those that an activation follows when it has acted. state: other weights."""

        def flat(name: str, output: Any) -> None:
            layout = self.layouts[self.layers[name]]
            flatten = layout.pooled if self.features == "pooled" else layout.flattened
            keep(name, flatten(first_tensor(output), len(images)))

        self._watched(images, flat, state or {})

    def _watched(self, images: Tensor, keep: Callable[[str, Any], None], state: dict[str, Tensor]) -> None:
        activations = Activations(keep)

        def take(name: str, output: Any) -> None:
            if name in (self._activated or ()):
                activations.watch(name, first_tensor(output))
            else:
                keep(name, output)

        with evaluation_mode(self.model), self._hooks(take), activations:
            torch.func.functional_call(self.model, state, (images,)) if state else self.model(images)

    def _find_activations(self, images: Tensor) -> None:
        """Find the layers without parts that an activation follows, and the features that are linear in the image."""
        if self._activated is not None:
            return
        leaves = {name for name, path in self.layers.items() if not any(self.model.get_submodule(path).children())}
        activated: dict[str, bool] = {}
        activations = Activations(lambda name, _: activated.update({name: True}))
        linear: set[str] = set()

        def see(name: str, output: Any) -> None:
            if name in leaves:
                activations.watch(name, first_tensor(output))
                if not activations.acted and isinstance(self.model.get_submodule(self.layers[name]), WEIGHT_LAYERS):
                    linear.add(name)

        with evaluation_mode(self.model), self._hooks(see), activations:
            self.model(images)
        self._activated = frozenset(activated)
        self.linear = frozenset(linear - activated.keys())

    def _find_layouts(self, images: Tensor) -> None:
        missing = [path for path in dict.fromkeys(self.layers.values()) if path not in self.layouts]
        if missing:
            pooled = self.features == "pooled"
            self.layouts |= find_layouts(self.model, missing, tuple(images.shape[1:]), channels=pooled)

    @contextmanager
    def _hooks(self, keep: Callable[[str, Any], None]) -> Iterator[None]:
        handles = [
            self.model.get_submodule(path).register_forward_hook(
                lambda _module, _inputs, output, name=name: keep(name, output)
            )
            for name, path in self.layers.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
