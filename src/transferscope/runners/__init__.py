"""Kedro runners that use all of a machine, or of a cluster."""

from transferscope.runners.gpu_runner import GpuRunner

__all__ = ["GpuRunner"]
