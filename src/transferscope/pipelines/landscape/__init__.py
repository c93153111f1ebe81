"""Measure whether two models lie in one basin of the loss landscape, and which modules matter."""

from transferscope.pipelines.landscape.pipeline import create_pipeline

__all__ = ["create_pipeline"]
