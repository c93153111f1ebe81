"""The inputs that a convolution stretches most: right singular vectors of its largest values, as images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from torch import Tensor, nn

from transferscope.analysis.spectrum.layer import layer_spectrum
from transferscope.models.layers import trace_conv_inputs
from transferscope.system.errors import UserError

COLOURS = 3
"""Channels that are kept together, as those of a colour image; of more channels the strongest is kept."""


def top_vectors(
    model: nn.Module,
    input_size: int | tuple[int, int],
    modules: Sequence[str],
    *,
    top: int = 6,
    seed: int = 0,
) -> pd.DataFrame:
    """Right singular vectors of the `top` largest values of 2-d convolutions, as the images that they are.

    input_size: pixels of an image (H, W), or of a square. Returns one row for each pixel: columns module; rank, from 1;
    value, the singular value; channel, row and column of the layer's input; amplitude, of a vector of length 1 whose
    largest entry is positive; share, the part of the squared length that is in this channel. Layers of up to three
    input channels have all of them, others the one of the largest share. Values that nearly agree have any basis of
    their span. The padding is the layer's own; a circular map has plane waves.

    Raises UserError where a module is no 2-d convolution that the forward pass reaches.
    """
    inputs = trace_conv_inputs(model, input_size)
    parts = []
    for name in modules:
        layer = dict(model.named_modules()).get(name)
        if name not in inputs or not isinstance(layer, nn.Conv2d):
            known = ", ".join(other for other, entering in inputs.items() if entering.kind == "conv")
            raise UserError(f"{name} is no 2-d convolution of {type(model).__name__}: there are {known}")
        shape = (layer.in_channels, inputs[name].height, inputs[name].width)
        spectrum = layer_spectrum(layer, shape, top=top, smallest=0, seed=seed, vectors=True, envelope=False)
        assert spectrum.top_vectors is not None
        for rank, (value, vector) in enumerate(zip(spectrum.top_values, spectrum.top_vectors, strict=True), 1):
            parts.append(_pixels(vector).assign(module=name, rank=rank, value=float(value)))
    columns = ["module", "rank", "value", "channel", "row", "column", "amplitude", "share"]
    return pd.concat(parts, ignore_index=True)[columns] if parts else pd.DataFrame(columns=columns)


def _pixels(vector: Tensor) -> pd.DataFrame:
    """The channels that are kept of an image (C, H, W)."""
    image = vector.double().numpy()
    image = image * np.sign(image.flat[np.abs(image).argmax()])
    shares = np.square(image).sum((1, 2)) / np.square(image).sum()
    kept = np.arange(len(image)) if len(image) <= COLOURS else shares.argmax(keepdims=True)
    channel, row, column = (part.ravel() for part in np.meshgrid(kept, *map(np.arange, image.shape[1:]), indexing="ij"))
    amplitude = image[channel, row, column]
    return pd.DataFrame(
        {"channel": channel, "row": row, "column": column, "amplitude": amplitude, "share": shares[channel]}
    )
