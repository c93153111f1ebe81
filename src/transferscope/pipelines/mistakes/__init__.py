"""Compare the mistakes that two models share with those that only one of them makes."""

from transferscope.pipelines.mistakes.pipeline import create_pipeline

__all__ = ["create_pipeline"]
