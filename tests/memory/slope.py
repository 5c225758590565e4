"""Whether a series of samples rises. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

POINTS_MAX = 600
"""Slopes of all pairs: more points are thinned out first."""


def theil_sen(times: Sequence[float], values: Sequence[float]) -> float:
    """The median of the slopes between all pairs of samples, in units of a value per unit of time. A third of the
    samples may be anything without moving it much."""
    if len(times) != len(values) or len(times) < 2:
        raise ValueError(f"{len(times)} times and {len(values)} values: at least two of each are needed")
    step = -(-len(times) // POINTS_MAX)
    t, v = np.asarray(times[::step], dtype=float), np.asarray(values[::step], dtype=float)
    first, second = np.triu_indices(len(t), k=1)
    return float(np.median((v[second] - v[first]) / (t[second] - t[first])))
