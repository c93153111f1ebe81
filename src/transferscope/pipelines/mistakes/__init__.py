"""Which mistakes two models share, and which only one of them makes."""

from transferscope.pipelines.mistakes.pipeline import create_pipeline

__all__ = ["create_pipeline"]
