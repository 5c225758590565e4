"""The search among the windows of a series: cheap lower bounds for all, dearer ones for fewer, the recurrence for few.

After the UCR suite (Rakthanmanon et al., 2012, section 4), turned by a right angle: where that asks one bound after the
other of one window, this asks one bound of LANE_GROUP neighbouring windows at once. Reordering and early abandoning of
a bound would only help single windows, and a step for 32 of them is done before a branch would have been predicted.

Like every kernel that computes in lanes, this proposes and ``reference.choose_nearest`` decides.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.bounds import EDGE, LANE_GROUP, SPAN, far_costs, group_bounds, query_segments
from dtw.choice import (
    compact,
    count_within,
    indices_within,
    insert,
    next_block,
    smallest_of_groups,
    tightened,
    widened,
    worth_refining,
)
from dtw.lanes import FASTMATH, LANES, compare_block, exact_part, part
from dtw.moments import moments

_entry = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

Array = NDArray[Any]


@_entry
def window_bounds(
    query: Array,
    segment: int,
    band: int,
    spans: Array,
    shifts: Array,
    scales: Array,
    usable: Array,
    first: int,
    last: int,
    limit: Any,
    bounds: Array,
) -> None:
    """Lower bounds, float32, of the distances from ``query`` (float32, z-normalised, at least ``2 * EDGE`` samples) to
    the windows ``first <= i < last``: raises ``bounds`` ``(at least last,)`` to them. ``first`` is a multiple of SPAN.

    ``spans`` to ``usable`` come from ``moving.fill_spans`` for that segment and that band. Groups of windows whose old
    bounds are all above ``limit`` keep them.
    """
    parts = (query.shape[0] - 2 * EDGE) // segment
    summary = np.zeros((3, parts), query.dtype)
    query_segments(query, band, segment, parts, summary)
    far = np.empty(EDGE - 1, query.dtype)
    far_costs(band, far)
    shift, scale = np.zeros(LANE_GROUP, query.dtype), np.zeros(LANE_GROUP, query.dtype)
    forward, backward = np.zeros(LANE_GROUP, query.dtype), np.zeros(LANE_GROUP, query.dtype)
    for group in range(first, last, LANE_GROUP):
        size = min(LANE_GROUP, last - group)
        results = bounds[group : group + size]
        if count_within(results, limit) == 0:
            continue
        shift[:size] = shifts[group : group + size]
        scale[:size] = scales[group : group + size]
        local = spans[group // SPAN]
        at = group % SPAN
        group_bounds(
            query,
            summary,
            far,
            parts,
            segment,
            local[0, at:],
            local[0, at + query.shape[0] - EDGE :],
            1,
            local[1, at + EDGE :],
            local[2, at + EDGE :],
            local[3, at + EDGE :],
            segment,
            shift,
            scale,
            forward,
            backward,
        )
        trusted = usable[group : group + size]
        for lane in range(size):
            bound = forward[lane] * trusted[lane]
            results[lane] = bound if bound > results[lane] else results[lane]  # false for what is not a number


@_entry
def row_bounds(
    query: Array,
    segment: int,
    band: int,
    edges: Array,
    means: Array,
    lows: Array,
    highs: Array,
    bounds: Array,
) -> None:
    """Lower bounds, float32, of the distances from ``query`` (float32, at least ``2 * EDGE`` samples) to rows that are
    summarised column by column: ``edges`` ``(2 * EDGE, count)`` the first and the last samples, the others ``(parts,
    count)`` means over segments of the rows and of their envelopes. ``count`` is a multiple of LANE_GROUP.
    """
    count, parts = edges.shape[1], means.shape[0]
    summary = np.zeros((3, parts), query.dtype)
    query_segments(query, band, segment, parts, summary)
    far = np.empty(EDGE - 1, query.dtype)
    far_costs(band, far)
    shift, scale = np.zeros(LANE_GROUP, query.dtype), np.ones(LANE_GROUP, query.dtype)
    forward, backward = np.zeros(LANE_GROUP, query.dtype), np.zeros(LANE_GROUP, query.dtype)
    for group in range(0, count, LANE_GROUP):
        group_bounds(
            query,
            summary,
            far,
            parts,
            segment,
            edges.reshape(-1)[group:],
            edges[EDGE:].reshape(-1)[group:],
            count,
            means.reshape(-1)[group:],
            lows.reshape(-1)[group:],
            highs.reshape(-1)[group:],
            count,
            shift,
            scale,
            forward,
            backward,
        )
        results = bounds[group : group + LANE_GROUP]
        for lane in range(LANE_GROUP):
            results[lane] = forward[lane] if forward[lane] > 0 else 0


@exact_part
def _gather(
    series: Array,
    stride: int,
    means: Array,
    inverses: Array,
    chosen: Array,
    size: int,
    rows: Array,
    block: Array,
) -> None:
    """Interleave ``size`` windows, normalised if there are means; the lanes behind repeat the last, so that none delays
    abandoning. Moments that are not known yet, and so 0, are found and kept.

    In two steps, ``rows`` ``(LANES, window)`` between them: storing each sample where it belongs is slower.
    """
    length = rows.shape[1]
    for lane in range(LANES):
        index = chosen[min(lane, size - 1)]
        samples, row = series[index * stride : index * stride + length], rows[lane]
        if means.shape[0] == 0:
            for t in range(length):
                row[t] = samples[t]
        else:
            # Either, because another thread may have stored only one of them yet; finding them again does no harm.
            if means[index] == 0.0 or inverses[index] == 0.0:
                mean, deviation = moments(samples)
                means[index] = mean
                inverses[index] = 1.0 / deviation if deviation > 0.0 else 0.0
            origin, mean, inverse = samples[0], means[index], inverses[index]
            for t in range(length):
                row[t] = ((samples[t] - origin) - mean) * inverse
    for t in range(length):
        target = block[t * LANES : (t + 1) * LANES]
        for lane in range(LANES):
            target[lane] = rows[lane, t]


@part
def _visit(
    query: Array,
    block: Array,
    chosen: Array,
    size: int,
    lower: Array,
    upper: Array,
    cutoff: Any,
    starts: Array,
    values: Array,
    found: int,
    row: Array,
    diagonal: Array,
    left: Array,
) -> int:
    """Compare a block; what lies within the cutoff goes to the found. Returns how many those are now."""
    if not compare_block(query, block, lower, upper, cutoff, row, diagonal, left):
        return found
    results = row[query.shape[0] * LANES :]
    for lane in range(size):
        if results[lane] <= cutoff:
            insert(starts, values, found, chosen[lane], results[lane])
            found += 1
    return found


@part
def _refine(
    query: Array,
    band: int,
    spans: Array,
    shifts: Array,
    scales: Array,
    usable: Array,
    bounds: Array,
    limit: Any,
    lower: Array,
    upper: Array,
) -> None:
    """Raise bounds to those of single samples, if there are spans for it and it saves more than it costs."""
    if spans.shape[0] > 0 and worth_refining(bounds, limit, lower, upper):
        window_bounds(query, 1, band, spans, shifts, scales, usable, 0, bounds.shape[0], limit, bounds)


@_entry
def nearest_windows(
    query: Array,
    query_single: Array,
    band: int,
    series: Array,
    stride: int,
    means: Array,
    inverses: Array,
    spans: Array,
    shifts: Array,
    scales: Array,
    usable: Array,
    bounds: Array,
    lower: Array,
    upper: Array,
    k: int,
    gap: int,
    cutoff: Any,
    slack: Array,
    shared: Array,
    starts: Array,
    values: Array,
    counts: Array,
) -> int:
    """Propose the windows that can be among the k nearest when chosen ones are to lie ``(gap + 1) / 2`` apart.

    Window i begins at ``series[i * stride]`` and is normalised, unless ``means`` and ``inverses`` are empty. Those keep
    the moments of windows that were compared before; others are 0.
    ``query`` ``(n,)`` is z-normalised in the dtype of the search, ``query_single`` the same in float32, ``bounds``
    ``(count,)`` what ``window_bounds`` made of segments; it is used up. ``slack`` float64 ``(4,)``: a cutoff is
    ``(sqrt(d) * slack[0] + slack[1]) ** 2`` for the distance d of the last of the k, a limit for bounds the same of
    the cutoff with the other two. ``shared`` float64 ``(1,)`` is the smallest cutoff of all threads that search parts
    of the same windows: whoever has k near ones spares the others their far ones.

    ``starts`` int64 and ``values`` ``(count + 1,)`` get the proposals, ascending, and the number of them is returned.
    ``counts`` int64 ``(3,)``: windows that the bound of segments, the bound of samples and the recurrence were left
    with.
    """
    count, length = bounds.shape[0], query.shape[0]
    row = np.empty((length + 1) * LANES, query.dtype)
    diagonal, left = np.empty(LANES, query.dtype), np.empty(LANES, query.dtype)
    block, rows = np.empty(length * LANES, query.dtype), np.empty((LANES, length), query.dtype)
    order, chosen = np.empty(count + LANES, np.int64), np.empty(LANES, np.int64)
    found = 0
    limit = np.float32(widened(cutoff, slack[2], slack[3]))
    waiting, position, refined = smallest_of_groups(bounds, max(LANES, 4 * k), order), 0, False
    while True:
        size, position = next_block(order, position, waiting, bounds, limit, chosen)
        if size > 0:
            _gather(series, stride, means, inverses, chosen, size, rows, block)
            before = found
            found = _visit(query, block, chosen, size, lower, upper, cutoff, starts, values, found, row, diagonal, left)
            counts[2] += size
            if found > before:
                kept = tightened(starts, values, found, gap, k, cutoff)
                cutoff = min(cutoff, query.dtype.type(widened(kept, slack[0], slack[1])))
                shared[0] = min(shared[0], cutoff)
                found = compact(starts, values, found, cutoff)
        elif refined:
            return found
        cutoff = min(cutoff, query.dtype.type(shared[0]))
        limit = min(limit, np.float32(widened(cutoff, slack[2], slack[3])))
        if position == waiting and not refined:
            refined, position = True, 0
            for index in range(waiting):
                bounds[order[index]] = np.inf
            counts[0] = counts[2] + count_within(bounds, limit)
            _refine(query_single, band, spans, shifts, scales, usable, bounds, limit, lower, upper)
            waiting = indices_within(bounds, limit, order)
            counts[1] = counts[2] + waiting
