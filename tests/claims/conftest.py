"""The drawn study."""

from drawn_study import drawn, plan

__all__ = ["drawn", "plan"]
