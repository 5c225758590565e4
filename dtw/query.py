"""What a search is asked and what it answers."""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtw.errors import InvalidArgument

Method = Literal["lanes", "scalar"]


class Pruning(NamedTuple):
    """How many windows each step of a search was left with. Each step is dearer than the one before."""

    windows: int
    after_segment_bound: int
    after_sample_bound: int
    compared: int
    proposed: int

    def refused_share(self) -> float:
        """The share of windows that never reached the recurrence."""
        return 1.0 - self.compared / self.windows if self.windows else 0.0


class Neighbours(NamedTuple):
    """Nearest first. ``starts`` int64 ``(k',)`` and ``distances`` float64 ``(k',)``, squared; ``k'`` may be below k."""

    starts: NDArray[np.int64]
    distances: NDArray[np.float64]
    pruning: Pruning = Pruning(0, 0, 0, 0, 0)


def gap_of(exclusion: int) -> int:
    """A choice rules out at most this many starts in a row, its own among them; see ``cascade``."""
    return 2 * max(exclusion, 1) - 1


def shared_by(shared: NDArray[np.float64], k: int, count: int) -> NDArray[np.float64]:
    """The cutoff that a part of ``count`` windows shares with others: one of its own if it holds fewer than k, since
    all of its windows together say nothing of the k nearest."""
    return shared if count >= k else np.full(1, np.inf)


def checked_dtype(dtype: Any) -> np.dtype[Any]:
    """The search dtype, float32 or float64, or ``InvalidArgument``."""
    chosen: np.dtype[Any] = np.dtype(dtype)
    if chosen not in (np.dtype(np.float32), np.dtype(np.float64)):
        raise InvalidArgument(f"searches run in float32 or float64, not {chosen}")
    return chosen


def checked_k(k: int) -> int:
    """``k``, or ``InvalidArgument`` unless it is at least 1."""
    if k < 1:
        raise InvalidArgument(f"k is at least 1, not {k}")
    return int(k)


def checked_cutoff(cutoff: float) -> float:
    """``cutoff``, or ``InvalidArgument`` unless it is a squared distance."""
    if math.isnan(cutoff) or cutoff < 0:
        raise InvalidArgument(f"a cutoff is a squared distance, at least 0, not {cutoff}")
    return float(cutoff)


def checked_exclusion(exclusion: int) -> int:
    """``exclusion``, or ``InvalidArgument`` unless it is a number of samples."""
    if exclusion < 0:
        raise InvalidArgument(f"an exclusion is a number of samples, at least 0, not {exclusion}")
    return int(exclusion)
