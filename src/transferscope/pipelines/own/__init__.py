"""Analyses and figures of the user's own."""

from transferscope.pipelines.own.pipeline import create_pipeline

__all__ = ["create_pipeline"]
