"""Networks that were trained for seconds, and their cards."""

from compared_networks import case, trained

__all__ = ["case", "trained"]
