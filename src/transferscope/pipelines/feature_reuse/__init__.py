"""Feature reuse on shuffled images, its controls, and which epoch of the pre-trained model to start from."""

from transferscope.pipelines.feature_reuse.pipeline import create_pipeline

__all__ = ["create_pipeline"]
