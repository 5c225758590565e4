"""Mean and deviation of one window, in the order that all exact results rest on. A part of several kernels."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtw.lanes import exact_part

CONSTANT_EPSILON: Final = 1e-12
"""A window whose standard deviation is at most this times its largest magnitude counts as constant."""

Array = NDArray[Any]


@exact_part
def moments(values: Array) -> Any:
    """``(mean, deviation)`` of ``values`` float64 ``(n,)``: the mean relative to the first sample and the population
    standard deviation, 0 for a constant window.

    Two passes. Taking the first sample off before summing makes a constant window exactly zero and keeps a large common
    offset from eating the digits.
    """
    length = values.shape[0]
    origin = values[0]
    total, magnitude = 0.0, 0.0
    for t in range(length):
        total += values[t] - origin
        magnitude = max(magnitude, abs(values[t]))
    mean = total / length
    squares = 0.0
    for t in range(length):
        deviation = (values[t] - origin) - mean
        squares += deviation * deviation
    deviation = np.sqrt(squares / length)
    return mean, deviation if deviation > CONSTANT_EPSILON * magnitude else 0.0
