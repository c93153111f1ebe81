"""The singular values of every layer."""

from transferscope.pipelines.spectrum.pipeline import create_pipeline

__all__ = ["create_pipeline"]
