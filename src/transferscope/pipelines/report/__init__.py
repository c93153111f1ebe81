"""All results gathered, the claims decided, the report written."""

from transferscope.pipelines.report.pipeline import create_pipeline

__all__ = ["create_pipeline"]
