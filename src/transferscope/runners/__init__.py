"""Kedro runners that use all of a machine."""

from transferscope.runners.cores_runner import CoresRunner

__all__ = ["CoresRunner"]
