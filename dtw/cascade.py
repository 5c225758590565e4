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

from dtw.bounds import EDGE, LANE_GROUP, SPAN, edge_costs, far_costs, group_bounds, query_segments
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

_inner = njit(nogil=True, fastmath=FASTMATH, error_model="numpy")
"""Called by entries, but too large to be inlined into each of them."""

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

    ``spans`` to ``usable`` come from ``moving.fill_samples`` and ``moving.fill_segments`` for that segment and that
    band. Groups of windows whose old bounds are all above ``limit`` keep them.
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
def edge_bounds(
    query: Array, band: int, spans: Array, shifts: Array, scales: Array, usable: Array, bounds: Array
) -> None:
    """The first of the bounds alone, LB_Kim over shells, into ``bounds`` ``(count,)``; arguments as of
    ``window_bounds``."""
    far = np.empty(EDGE - 1, query.dtype)
    far_costs(band, far)
    shift, scale = np.zeros(LANE_GROUP, query.dtype), np.zeros(LANE_GROUP, query.dtype)
    total = np.zeros(LANE_GROUP, query.dtype)
    for group in range(0, bounds.shape[0], LANE_GROUP):
        size = min(LANE_GROUP, bounds.shape[0] - group)
        shift[:size] = shifts[group : group + size]
        scale[:size] = scales[group : group + size]
        samples = spans[group // SPAN, 0, group % SPAN :]
        edge_costs(query, far, samples, samples[query.shape[0] - EDGE :], 1, shift, scale, total)
        results, trusted = bounds[group : group + size], usable[group : group + size]
        for lane in range(size):
            bound = total[lane] * trusted[lane]
            results[lane] = bound if bound > 0 else 0  # also for what is not a number


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
    abandoning. Moments that are not known yet, and so 0, are found and kept, unless there is but one slot for them.

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
            slot = index if means.shape[0] > 1 else 0
            # Either, because another thread may have stored only one of them yet; finding them again does no harm.
            if means.shape[0] == 1 or means[slot] == 0.0 or inverses[slot] == 0.0:
                mean, deviation = moments(samples)
                means[slot] = mean
                inverses[slot] = 1.0 / deviation if deviation > 0.0 else 0.0
            origin, mean, inverse = samples[0], means[slot], inverses[slot]
            for t in range(length):
                row[t] = ((samples[t] - origin) - mean) * inverse
    for t in range(length):
        target = block[t * LANES : (t + 1) * LANES]
        for lane in range(LANES):
            target[lane] = rows[lane, t]


@part
def scratch_of(query: Array) -> Any:
    """What ``compare_within`` works in: the row of the recurrence and its two edges, a block, the same as rows, and
    which windows they are."""
    length = query.shape[0]
    return (
        np.empty((length + 1) * LANES, query.dtype),
        np.empty(LANES, query.dtype),
        np.empty(LANES, query.dtype),
        np.empty(length * LANES, query.dtype),
        np.empty((LANES, length), query.dtype),
        np.empty(LANES, np.int64),
    )


@_inner
def compare_within(
    query: Array,
    windows: Any,
    stride: int,
    order: Array,
    waiting: int,
    bounds: Array,
    found: int,
    cutoff: Any,
    band: Any,
    k: int,
    gap: int,
    slack: Array,
    shared: Array,
    starts: Array,
    values: Array,
    counts: Array,
    scratch: Any,
) -> Any:
    """Compare the first ``waiting`` windows of ``order`` whose bounds are within the cutoff of that time; what lies
    within the cutoff goes to the found. Returns how many those are now, and the cutoff. See ``nearest_windows``.

    ``windows``: series, means and inverses. ``band``: lower and upper. The bounds of compared windows become infinite.
    """
    row, diagonal, left, block, rows, chosen = scratch
    results, position = row[query.shape[0] * LANES :], 0
    while True:
        cutoff = min(cutoff, query.dtype.type(shared[0]))
        limit = np.float32(widened(cutoff, slack[2], slack[3]))
        size, position = next_block(order, position, waiting, bounds, limit, chosen)
        if size == 0:
            return found, cutoff
        counts[2] += size
        _gather(windows[0], stride, windows[1], windows[2], chosen, size, rows, block)
        finished = compare_block(query, block, band[0], band[1], cutoff, row, diagonal, left)
        before = found
        for lane in range(size):
            bounds[chosen[lane]] = np.inf
            if finished and results[lane] <= cutoff:
                insert(starts, values, found, chosen[lane], results[lane])
                found += 1
        if found > before:
            kept = tightened(starts, values, found, gap, k, cutoff)
            cutoff = min(cutoff, query.dtype.type(widened(kept, slack[0], slack[1])))
            shared[0] = min(shared[0], cutoff)
            found = compact(starts, values, found, cutoff)


@part
def _refine(
    query: Array,
    reach: int,
    fine: Any,
    bounds: Array,
    limit: Any,
    band: Any,
) -> None:
    """Raise bounds to those of single samples, if there are spans for it and it saves more than it costs."""
    spans, shifts, scales, usable = fine
    if spans.shape[0] > 0 and worth_refining(bounds, limit, band[0], band[1]):
        window_bounds(query, 1, reach, spans, shifts, scales, usable, 0, bounds.shape[0], limit, bounds)


@_entry
def nearest_windows(
    query: Array,
    query_single: Array,
    reach: int,
    windows: Any,
    stride: int,
    fine: Any,
    bounds: Array,
    band: Any,
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

    ``windows`` are series, means and inverses: window i begins at ``series[i * stride]`` and is normalised, unless the
    others are empty. Those keep the moments of windows that were compared before; others are 0. With one slot nothing
    is kept. ``fine``: what ``window_bounds`` takes for single samples, or empty arrays. ``band``: lower and upper.

    ``query`` ``(n,)`` is z-normalised in the dtype of the search, ``query_single`` the same in float32, ``bounds``
    ``(count,)`` what ``window_bounds`` made of segments; it is used up. ``slack`` float64 ``(4,)``: a cutoff is
    ``(sqrt(d) * slack[0] + slack[1]) ** 2`` for the distance d of the last of the k, a limit for bounds the same of
    the cutoff with the other two. ``shared`` float64 ``(1,)`` is the smallest cutoff of all threads that search parts
    of the same windows: whoever has k near ones spares the others their far ones.

    ``starts`` int64 and ``values`` ``(count + 1,)`` get the proposals, ascending, and the number of them is returned.
    ``counts`` int64 ``(3,)``: windows that the bound of segments, the bound of samples and the recurrence were left
    with.
    """
    order = np.empty(bounds.shape[0] + LANES, np.int64)
    fixed = (band, k, gap, slack, shared, starts, values, counts, scratch_of(query))
    waiting = smallest_of_groups(bounds, max(LANES, 4 * k), order)
    found, cutoff = compare_within(query, windows, stride, order, waiting, bounds, 0, cutoff, *fixed)
    limit = np.float32(widened(cutoff, slack[2], slack[3]))
    counts[0] = counts[2] + count_within(bounds, limit)
    _refine(query_single, reach, fine, bounds, limit, band)
    waiting = indices_within(bounds, limit, order)
    counts[1] = counts[2] + waiting
    return int(compare_within(query, windows, stride, order, waiting, bounds, found, cutoff, *fixed)[0])
