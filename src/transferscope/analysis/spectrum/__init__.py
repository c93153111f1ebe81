from transferscope.analysis.spectrum.circular import Method, conv_singular_values, linear_singular_values

__all__ = ["Method", "conv_singular_values", "linear_singular_values"]
