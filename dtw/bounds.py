"""Parts of the search: lower bounds of the distances to LANE_GROUP neighbouring windows at once.

A window of the series is never stored. The samples ``t`` of windows that start at ``i``, ``i + 1``, … lie side by side
in the series itself, so one vector load serves as many windows as it has lanes, and normalising costs a subtraction and
a multiplication by statistics that also lie side by side ("just-in-time z-normalisation", Rakthanmanon et al.,
"Searching and mining trillions of time series subsequences under dynamic time warping", 2012, section 4.2).

``EDGE`` samples at both ends belong to the first of three bounds, all others to the larger of the second and the third
- LB_Kim over shells (sharper than Kim, Park, Chu, 2001, and than the three-point form of the UCR suite): every warping
  path has a cell with ``max(i, j) == k``, for each ``k < EDGE``, and the same from the end. The cheapest is paid.
- LB_Keogh (Keogh, Ratanamahatana, "Exact indexing of dynamic time warping", 2005, section 4.2): a sample of the window
  outside the query's envelope costs at least the square of its excess, as every column has a cell.
- LB_Keogh the other way round: a sample of the query outside the window's envelope, as every row has a cell.
Means of segments stand for their samples (Zhu, Shasha, 2003, section 4.1): the square of an excess is convex, so the
mean of a segment costs no more than its samples do (Jensen).

Everything here is float32 relative to a sample nearby; ``precision.bound_slack`` bounds the error.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtw.lanes import part

EDGE: Final = 4
"""Shells at either end. One more would cost twice what it refuses."""

LANE_GROUP: Final = 64
"""Windows per step of a bound."""

SPAN: Final = 256
"""Windows that share one copy of their samples in float32, relative to the first of them. A multiple of LANE_GROUP."""

CONDITION_MAX: Final = 128.0
"""A window whose neighbourhood reaches farther than this many of its standard deviations has the bound 0: too much of
it would be rounding."""

Array = NDArray[Any]


@part
def _cell(a: Any, b: Any) -> Any:
    return (a - b) * (a - b)


@part
def _shells(q0: Any, q1: Any, q2: Any, q3: Any, c0: Any, c1: Any, c2: Any, c3: Any, far: Any) -> Any:
    """The cheapest cell of each shell, added up. ``far`` holds what a cell 1, 2 and 3 off the diagonal costs beyond its
    difference: 0, or infinity outside the band."""
    one = min(_cell(q1, c1), min(_cell(q1, c0), _cell(q0, c1)) + far[0])
    two = min(_cell(q2, c2), min(_cell(q2, c1), _cell(q1, c2)) + far[0])
    two = min(two, min(_cell(q2, c0), _cell(q0, c2)) + far[1])
    three = min(_cell(q3, c3), min(_cell(q3, c2), _cell(q2, c3)) + far[0])
    three = min(three, min(_cell(q3, c1), _cell(q1, c3)) + far[1])
    three = min(three, min(_cell(q3, c0), _cell(q0, c3)) + far[2])
    return _cell(q0, c0) + one + two + three


@part
def edge_costs(
    query: Array, far: Array, samples: Array, ends: Array, step: int, shift: Array, scale: Array, total: Array
) -> None:
    """The shells of both ends of LANE_GROUP windows into ``total``.

    ``samples`` and ``ends`` hold the windows side by side from their first and from their EDGE last samples on, each
    ``step`` behind the one before; ``far`` is of ``_shells``.
    """
    last = query.shape[0] - 1
    second, third, fourth = samples[step:], samples[2 * step :], samples[3 * step :]
    from_last, from_end, from_back = ends[3 * step :], ends[2 * step :], ends[step:]
    for lane in range(LANE_GROUP):
        origin, unit = shift[lane], scale[lane]
        front = _shells(
            query[0],
            query[1],
            query[2],
            query[3],
            (samples[lane] - origin) * unit,
            (second[lane] - origin) * unit,
            (third[lane] - origin) * unit,
            (fourth[lane] - origin) * unit,
            far,
        )
        back = _shells(
            query[last],
            query[last - 1],
            query[last - 2],
            query[last - 3],
            (from_last[lane] - origin) * unit,
            (from_end[lane] - origin) * unit,
            (from_back[lane] - origin) * unit,
            (ends[lane] - origin) * unit,
            far,
        )
        total[lane] = front + back


@part
def _outside(value: Any, ceiling: Any, floor: Any, zero: Any) -> Any:
    excess = max(max(value - ceiling, floor - value), zero)
    return excess * excess


@part
def segment_costs(
    summary: Array,
    index: int,
    other: int,
    weight: Any,
    other_weight: Any,
    means: Array,
    lows: Array,
    highs: Array,
    step: int,
    shift: Array,
    scale: Array,
    forward: Array,
    backward: Array,
) -> None:
    """Adds the shares of the segments ``index`` and ``other`` to both Keogh bounds of LANE_GROUP windows.

    ``summary`` ``(3, parts)`` holds the means of the query's upper envelope, lower envelope and samples. ``means``,
    ``lows`` and ``highs`` are of the series and its envelopes, before ``shift`` and ``scale``, from the first window's
    first segment on; segments lie ``step`` apart.
    """
    zero = shift.dtype.type(0)
    near_ceiling, near_floor, near_mean = summary[0, index], summary[1, index], summary[2, index]
    far_ceiling, far_floor, far_mean = summary[0, other], summary[1, other], summary[2, other]
    near_means, far_means = means[index * step :], means[other * step :]
    near_lows, far_lows = lows[index * step :], lows[other * step :]
    near_highs, far_highs = highs[index * step :], highs[other * step :]
    for lane in range(LANE_GROUP):
        origin, unit = shift[lane], scale[lane]
        near = _outside((near_means[lane] - origin) * unit, near_ceiling, near_floor, zero)
        far = _outside((far_means[lane] - origin) * unit, far_ceiling, far_floor, zero)
        forward[lane] += weight * near + other_weight * far
        near = _outside(near_mean, (near_highs[lane] - origin) * unit, (near_lows[lane] - origin) * unit, zero)
        far = _outside(far_mean, (far_highs[lane] - origin) * unit, (far_lows[lane] - origin) * unit, zero)
        backward[lane] += weight * near + other_weight * far


@part
def group_bounds(
    query: Array,
    summary: Array,
    far: Array,
    parts: int,
    segment: int,
    samples: Array,
    ends: Array,
    sample_step: int,
    means: Array,
    lows: Array,
    highs: Array,
    step: int,
    shift: Array,
    scale: Array,
    forward: Array,
    backward: Array,
) -> None:
    """Lower bounds of LANE_GROUP windows into ``forward``; the arguments are those of the parts above."""
    zero = query.dtype.type(0)
    for lane in range(LANE_GROUP):
        forward[lane] = zero
        backward[lane] = zero
    weight = query.dtype.type(segment)
    for index in range(0, parts, 2):
        paired = index + 1 < parts  # the last of an odd number is its own partner, and counts once
        segment_costs(
            summary,
            index,
            index + 1 if paired else index,
            weight,
            weight if paired else zero,
            means,
            lows,
            highs,
            step,
            shift,
            scale,
            forward,
            backward,
        )
    for lane in range(LANE_GROUP):
        forward[lane] = max(forward[lane], backward[lane])
    edge_costs(query, far, samples, ends, sample_step, shift, scale, backward)
    for lane in range(LANE_GROUP):
        forward[lane] += backward[lane]


@part
def query_segments(query: Array, band: int, segment: int, parts: int, summary: Array) -> None:
    """Means of the query's upper envelope, lower envelope and samples per segment, into ``summary``."""
    length = query.shape[0]
    weight = query.dtype.type(segment)
    for index in range(parts):
        ceiling, floor, mean = query.dtype.type(0), query.dtype.type(0), query.dtype.type(0)
        for j in range(EDGE + index * segment, EDGE + (index + 1) * segment):
            highest, lowest = query[j], query[j]
            for i in range(max(0, j - band), min(length, j + band + 1)):
                highest = max(highest, query[i])
                lowest = min(lowest, query[i])
            ceiling += highest
            floor += lowest
            mean += query[j]
        summary[0, index] = ceiling / weight
        summary[1, index] = floor / weight
        summary[2, index] = mean / weight


@part
def far_costs(band: int, far: Array) -> None:
    """``far`` of ``edge_costs`` ``(EDGE - 1,)`` for a band."""
    for offset in range(far.shape[0]):
        far[offset] = 0 if offset + 1 <= band else np.inf
