"""From packed splits to checkpoints by epoch."""

from transferscope.pipelines.training.pipeline import create_pipeline

__all__ = ["create_pipeline"]
