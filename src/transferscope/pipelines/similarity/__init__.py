"""Similarity of models in their features and in their weights."""

from transferscope.pipelines.similarity.pipeline import create_pipeline

__all__ = ["create_pipeline"]
