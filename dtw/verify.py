"""Comparing a claim of nearest neighbours with the search that the verifier ran itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Expected = tuple[NDArray[np.int64], NDArray[np.float64]]
DistancesAt = Callable[[NDArray[np.int64]], NDArray[np.float64]]


@dataclass(frozen=True)
class VerifyResult:
    """``reason`` is empty when ``ok``; otherwise a stable label, then a colon and the operands."""

    ok: bool
    reason: str

    @property
    def label(self) -> str:
        """The countable part of the reason."""
        return self.reason.partition(":")[0]


def _refused(label: str, detail: str) -> VerifyResult:
    return VerifyResult(False, f"{label}: {detail}")


def compare_claim(
    starts: NDArray[Any],
    distances: NDArray[Any],
    expected: Expected,
    distances_at: DistancesAt,
    last_start: int,
    exclusion: int,
    tolerance: float,
) -> VerifyResult:
    """The first reason why the claim is not ``expected``, cheap checks first.

    The labels: malformed, future window, unknown window, overlap, wrong count, wrong distance, wrong order, not
    nearest.
    """
    flaw = _malformed(starts, distances)
    if flaw:
        return _refused("malformed", flaw)
    starts = starts.astype(np.int64)
    flaw_result = _unlawful(starts, last_start, exclusion)
    if flaw_result is not None:
        return flaw_result
    expected_starts, expected_distances = expected
    if len(starts) != len(expected_starts):
        return _refused("wrong count", f"{len(starts)} claimed, {len(expected_starts)} found")
    actual = distances_at(starts)
    wrong = np.flatnonzero(np.abs(distances - actual) > tolerance * np.maximum(1.0, actual))
    if wrong.size:
        at = int(wrong[0])
        return _refused("wrong distance", f"start {starts[at]} claimed {distances[at]!s}, computed {actual[at]!s}")
    if np.array_equal(starts, expected_starts):
        return VerifyResult(True, "")
    if np.array_equal(np.sort(starts), np.sort(expected_starts)):
        return _refused("wrong order", f"claimed {starts.tolist()}, found {expected_starts.tolist()}")
    at = int(np.flatnonzero(starts != expected_starts)[0])
    nearer = f"rank {at} is start {expected_starts[at]} at {expected_distances[at]!s}"
    return _refused("not nearest", f"{nearer}, claimed start {starts[at]} at {actual[at]!s}")


def _malformed(starts: NDArray[Any], distances: NDArray[Any]) -> str:
    if starts.ndim != 1 or starts.shape != distances.shape:
        return f"starts of shape {starts.shape} with distances of shape {distances.shape}"
    if starts.size == 0:
        return ""
    if starts.dtype.kind not in "iu" or distances.dtype.kind not in "fiu":
        return f"starts of {starts.dtype} with distances of {distances.dtype}"
    if not np.isfinite(distances).all():
        return "a distance is not finite"
    return ""


def _unlawful(starts: NDArray[np.int64], last_start: int, exclusion: int) -> VerifyResult | None:
    """What the starts alone give away."""
    if not starts.size:
        return None
    if starts.max() > last_start:
        return _refused("future window", f"start {starts.max()} is after {last_start}")
    if starts.min() < 0:
        return _refused("unknown window", f"start {starts.min()}")
    gaps = np.diff(np.sort(starts))
    if gaps.size and gaps.min() < max(1, exclusion):
        return _refused("overlap", f"two starts are {gaps.min()} apart, at least {max(1, exclusion)} is asked")
    return None
