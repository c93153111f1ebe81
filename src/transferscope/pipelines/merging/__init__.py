"""Models merged into one, held against the best of them, their ensemble and a model trained on all their images."""

from transferscope.pipelines.merging.pipeline import create_pipeline

__all__ = ["create_pipeline"]
