"""Features of named layers, taken while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn

from transferscope.models.layers import evaluation_mode
from transferscope.system.errors import UserError

Pooling = Literal["pooled", "flattened"]
POOLINGS = ("pooled", "flattened")


class FeatureExtractor:
    """The outputs of named layers for a batch of images, from one forward pass in evaluation mode.

    layers: name of a feature -> dotted path of the submodule (or a list of paths). features: "pooled" averages a
    convolution's output (B, C, H, W) over its pixels and a transformer's (B, T, D) over its tokens; "flattened" keeps
    every value. A layer that runs more than once gives its last output; one that returns several, the first tensor.

    Raises UserError for a layer that does not exist (listing those that do) and for one that did not run.
    """

    def __init__(
        self, model: nn.Module, layers: Mapping[str, str] | Sequence[str], *, features: Pooling = "pooled"
    ) -> None:
        if features not in POOLINGS:
            raise UserError(f"features {features!r}: expected one of {', '.join(POOLINGS)}")
        self.model = model
        self.layers = dict(layers) if isinstance(layers, Mapping) else {path: path for path in layers}
        self.features = features
        existing = dict(model.named_modules())
        missing = [path for path in self.layers.values() if path not in existing or not path]
        if missing:
            known = ", ".join(name for name in existing if name)
            raise UserError(f"no layer {', '.join(missing)} in {type(model).__name__}; its layers are: {known}")

    @torch.no_grad()
    def __call__(self, images: Tensor, reduce: Callable[[Tensor], Any] | None = None) -> dict[str, Any]:
        """Feature name -> (num_examples, num_features), or what `reduce` makes of that.

        `reduce` is applied while the model runs, so that a layer's features can be dropped before the next one's exist.
        """
        found: dict[str, Any] = {}

        def keep(name: str, output: Any) -> None:
            value = _flat(_first_tensor(output), self.features)
            # Without the copy a later in-place operation (ReLU) would change what is only a view of the output.
            found[name] = value.clone() if reduce is None else reduce(value)

        with evaluation_mode(self.model), self._hooks(keep):
            self.model(images)
        silent = [path for name, path in self.layers.items() if name not in found]
        if silent:
            raise UserError(
                f"layer {', '.join(silent)} took no part in the forward pass of {type(self.model).__name__}"
            )
        return {name: found[name] for name in self.layers}

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


def _first_tensor(output: Any) -> Tensor:
    while not isinstance(output, Tensor):
        output = next(iter(output.values() if isinstance(output, Mapping) else output))
    return output


def _flat(output: Tensor, features: Pooling) -> Tensor:
    """(num_examples, num_features) in the output's own floating-point type, pooled in float32 at least."""
    if features == "flattened" or output.ndim == 2:
        return output.flatten(1)
    if output.ndim == 3:
        return output.mean(dim=1, dtype=torch.promote_types(output.dtype, torch.float32))
    return output.flatten(2).mean(dim=2, dtype=torch.promote_types(output.dtype, torch.float32))
