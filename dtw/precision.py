"""How far a searched distance may lie from the exact one, so that a fast search can propose and an exact one decide."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dtw.bands import Bounds, band_width_max
from dtw.bounds import CONDITION_MAX


@dataclass(frozen=True)
class Slack:
    """A bound between computed and exact squared distance of two z-normalised windows, in root space.

    Invariant: ``sqrt(computed) <= sqrt(exact) * (1 + relative) + absolute`` and the same with both exchanged.

    Why: a z-normalised window of length n has the norm ``sqrt(n)``, and a warping path repeats a sample at most
    ``width`` times, so rounding the inputs moves the difference vector of any path by at most
    ``2 * u * sqrt(width * n)`` (triangle inequality). Adding at most 2 n non-negative terms in any order and with or
    without fused operations costs a relative ``(2 n + 2) * u`` of the square. It holds for every path, hence for the
    minimum. ``u`` is half of ``epsilon``; the formulas use the whole, which also covers the exact kernel's own float64
    rounding.
    """

    relative: float
    absolute: float

    @classmethod
    def of(cls, window: int, bounds: Bounds, dtype: Any, norm: float | None = None) -> Slack:
        """``norm`` is the largest norm of a series of ``window`` samples; None stands for z-normalised ones."""
        epsilon = float(np.finfo(dtype).eps)
        largest = math.sqrt(window) if norm is None else norm
        absolute = 2.0 * epsilon * math.sqrt(band_width_max(bounds)) * largest
        return cls(relative=(2 * window + 8) * epsilon, absolute=absolute)

    def grow(self) -> float:
        """With ``shift``: the factor that takes a computed root past every computed root of an equal exact distance."""
        return (1.0 + 2.0 * self.relative) ** 2

    def shift(self) -> float:
        return 3.0 * self.absolute * self.grow()

    def ceiling(self, exact: float) -> float:
        """No computed distance of an exact distance up to ``exact`` lies above this."""
        return float((math.sqrt(exact) * self.grow() + self.shift()) ** 2)

    def floors(self, computed: NDArray[Any]) -> NDArray[np.float64]:
        """Lower bounds of the exact distances, same shape, float64."""
        roots = np.sqrt(computed.astype(np.float64))
        return np.asarray(np.maximum(0.0, (roots - self.absolute) / (1.0 + 2.0 * self.relative)) ** 2)


def bound_slack(window: int) -> tuple[float, float]:
    """``(relative, absolute)`` such that a computed bound of ``cascade.window_bounds`` satisfies
    ``sqrt(bound) <= sqrt(exact) * (1 + relative) + absolute``.

    Why: samples and the window's mean are rounded to float32 relative to a sample nearby, so with magnitudes up to
    CONDITION_MAX standard deviations (others are not bounded at all). Rounding both, their difference and its product
    with the scale moves a normalised value by at most ``10 * CONDITION_MAX`` units; the query and its envelope, with
    values up to ``sqrt(window)``, add ``4 * sqrt(window)``. A bound is the square of the norm of at most ``window``
    such terms, and a minimum or maximum of terms moves no farther than they do.
    """
    epsilon = float(np.finfo(np.float32).eps)
    root = math.sqrt(window)
    return (2 * window + 8) * epsilon, epsilon * root * (10.0 * CONDITION_MAX + 4.0 * root)


def rounded_up(value: float, dtype: Any) -> Any:
    """The smallest convenient number of ``dtype`` not below ``value``; infinity past its largest."""
    kind = np.dtype(dtype).type
    if value >= float(np.finfo(dtype).max):
        return kind(np.inf)
    return np.nextafter(kind(value), kind(np.inf))
