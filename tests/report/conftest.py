"""The drawn study."""

from drawn_study import decided, drawn, plan

__all__ = ["decided", "drawn", "plan"]
