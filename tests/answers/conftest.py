"""Networks that were trained for seconds, their cards, and the drawn study."""

from compared_networks import case, trained
from drawn_study import drawn, plan

__all__ = ["case", "drawn", "plan", "trained"]
