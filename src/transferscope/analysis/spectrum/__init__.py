"""Singular values of layers: of the circular map that the paper takes, and of the map that a network computes."""

from transferscope.analysis.spectrum.circular import Method, conv_singular_values, linear_singular_values
from transferscope.analysis.spectrum.layer import Counts, LayerSpectrum, Padding, layer_spectrum
from transferscope.analysis.spectrum.network import network_spectrum
from transferscope.analysis.spectrum.vectors import top_vectors

__all__ = [
    "Counts",
    "LayerSpectrum",
    "Method",
    "Padding",
    "conv_singular_values",
    "layer_spectrum",
    "linear_singular_values",
    "network_spectrum",
    "top_vectors",
]
