"""Kedro runners that use all of a machine, or of a cluster."""

from transferscope.framework.runners.gpu_runner import GpuRunner
from transferscope.framework.runners.ray_runner import RayRunner

__all__ = ["GpuRunner", "RayRunner"]
