"""The part of a barrier that a way leaves, with intervals over the choice of examples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from transferscope.system.errors import UserError


@dataclass(frozen=True)
class Remaining:
    """A part of the straight line's barrier with its percentile bootstrap interval; NaN where there is no barrier."""

    left: float
    left_low: float
    left_high: float


def remaining(
    alphas: ArrayLike, straight: ArrayLike, way: ArrayLike, *, higher_is_better: bool, confidence: float = 0.95
) -> Remaining:
    """The barrier along a way divided by that along the straight line, 0 where the way is never below the chord.

    Both barriers are the largest gap to the chord of the same ends. The quotient is one of resamples of the same
    examples, so that what both curves share cancels. It is NaN unless the middle of the straight line lies below the
    chord in all but 1 - confidence of the resamples: a part of nothing says nothing.

    Args:
        alphas: (num_alphas,) from 0 to 1, in order, both ends and .5 among them.
        straight, way: (1 + num_resamples, num_alphas), the metric on all examples and then under every resample.

    Raises:
        UserError: If alphas lack an end or the middle, or shapes differ.
    """
    at = np.asarray(alphas, dtype=np.float64)
    curves = [np.atleast_2d(np.asarray(values, dtype=np.float64)) for values in (straight, way)]
    if not {0.0, 0.5, 1.0} <= set(at.tolist()) or (np.diff(at) <= 0).any():
        raise UserError("what remains of a barrier needs alphas in order with 0, 0.5 and 1 among them")
    if curves[0].shape != curves[1].shape or curves[0].shape[1:] != at.shape:
        raise UserError(f"curves of shapes {curves[0].shape} and {curves[1].shape} at {len(at)} alphas")
    gaps = [_gaps(at, values, higher_is_better) for values in curves]
    middle = gaps[0][:, at.tolist().index(0.5)]
    lowest = np.percentile(middle[1:], 100 * (1 - confidence)) if len(middle) > 1 else middle[0]
    if not lowest > 0:
        return Remaining(np.nan, np.nan, np.nan)
    heights = [gap.max(axis=1) for gap in gaps]
    # A few resamples may have no barrier at all: of nothing no part is left.
    parts = np.divide(heights[1], heights[0], out=np.full_like(heights[0], np.nan), where=heights[0] > 0)
    if len(parts) == 1 or np.isnan(heights[1]).any():
        return Remaining(float(parts[0]), np.nan, np.nan)
    low, high = np.nanpercentile(parts[1:], [50 * (1 - confidence), 50 * (1 + confidence)])
    return Remaining(float(parts[0]), float(low), float(high))


def _gaps(alphas: NDArray[np.float64], values: NDArray[np.float64], higher_is_better: bool) -> NDArray[np.float64]:
    """Gaps to the chord, above 0 where worse, (rows, num_alphas); 0 at the ends."""
    chord = (1 - alphas) * values[:, :1] + alphas * values[:, -1:]
    gaps = chord - values if higher_is_better else values - chord
    gaps[:, [0, -1]] = 0
    return gaps
