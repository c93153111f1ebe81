"""From images as distributed to packed splits."""

from transferscope.pipelines.data_prep.pipeline import create_pipeline

__all__ = ["create_pipeline"]
