"""Parts of the search that decide what is compared and when the rest cannot matter any more."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from dtw.bounds import LANE_GROUP
from dtw.lanes import part

PACKING_STEPS: Final = 12
"""Halvings of the cutoff per tightening; what is left is a 4,096th of it."""

REFINING_CELLS: Final = 256
"""Cells of the recurrence that cost as much as it saves, on average, to bound one sample of LANE_GROUP windows."""

Array = NDArray[Any]


@part
def smallest_of_groups(bounds: Array, wanted: int, order: Array) -> int:
    """The window of the smallest bound of each LANE_GROUP, of the ``wanted`` groups where it is smallest.

    Returns how many, fewer than ``wanted`` when there are fewer groups. One from each because neighbouring windows
    resemble each other: the nearest of one place says nothing about the second nearest place.
    """
    groups = (bounds.shape[0] + LANE_GROUP - 1) // LANE_GROUP
    smallest = np.empty(groups, bounds.dtype)
    lanes = np.empty(LANE_GROUP, bounds.dtype)
    for group in range(groups):
        values = bounds[group * LANE_GROUP : (group + 1) * LANE_GROUP]
        smallest[group] = _minimum(values, lanes)
    threshold = np.inf if groups <= wanted else np.partition(smallest, wanted - 1)[wanted - 1]
    size = 0
    for group in range(groups):
        if smallest[group] <= threshold and size < wanted:
            index = group * LANE_GROUP
            while bounds[index] != smallest[group]:
                index += 1
            order[size] = index
            size += 1
    return size


@part
def _minimum(values: Array, lanes: Array) -> Any:
    """Halving instead of one running minimum, which would have to wait for itself."""
    size = values.shape[0]
    if size < LANE_GROUP:
        smallest = values[0]
        for index in range(1, size):
            smallest = min(smallest, values[index])
        return smallest
    for lane in range(LANE_GROUP // 2):
        lanes[lane] = min(values[lane], values[LANE_GROUP // 2 + lane])
    for lane in range(LANE_GROUP // 4):
        lanes[lane] = min(lanes[lane], lanes[LANE_GROUP // 4 + lane])
    smallest = lanes[0]
    for lane in range(1, LANE_GROUP // 4):
        smallest = min(smallest, lanes[lane])
    return smallest


@part
def _packed(starts: Array, values: Array, size: int, gap: int, ceiling: Any, wanted: int) -> bool:
    """Whether ``wanted`` of the ascending starts with values up to the ceiling lie at least ``gap`` apart."""
    count, last = 0, -gap
    for index in range(size):
        if values[index] <= ceiling and starts[index] - last >= gap:
            last = starts[index]
            count += 1
            if count == wanted:
                return True
    return False


@part
def tightened(starts: Array, values: Array, size: int, gap: int, wanted: int, ceiling: Any) -> Any:
    """A smaller ceiling under which ``wanted`` of the found still lie ``gap`` apart, or the old one.

    A choice rules out the starts that lie nearer than the exclusion, ``gap`` in a row at most, its own among them. So
    ``wanted - 1`` choices cannot rule out all of ``wanted`` starts that lie ``gap`` apart, and the last choice is never
    farther than the farthest of those.
    """
    largest = values.dtype.type(0)
    for index in range(size):
        largest = max(largest, values[index])
    high = min(ceiling, largest)
    if not _packed(starts, values, size, gap, high, wanted):
        return ceiling
    low = values.dtype.type(0)
    for _ in range(PACKING_STEPS):
        middle = low + (high - low) / 2
        if _packed(starts, values, size, gap, middle, wanted):
            high = middle
        else:
            low = middle
    return high


@part
def insert(starts: Array, values: Array, size: int, start: int, value: Any) -> None:
    """Insert by ascending start."""
    at = size
    while at > 0 and starts[at - 1] > start:
        starts[at] = starts[at - 1]
        values[at] = values[at - 1]
        at -= 1
    starts[at] = start
    values[at] = value


@part
def compact(starts: Array, values: Array, size: int, cutoff: Any) -> int:
    """Drop what has come to lie above the cutoff; how many are left."""
    kept = 0
    for index in range(size):
        if values[index] <= cutoff:
            starts[kept] = starts[index]
            values[kept] = values[index]
            kept += 1
    return kept


@part
def widened(cutoff: Any, grow: float, shift: float) -> Any:
    """The cutoff, float64, plus what rounding may add to a root below it: a factor, a shift, and a little for the
    rounding of the result to float32."""
    root = np.sqrt(np.float64(cutoff)) * grow + shift
    return root * root * (1.0 + 1e-6)


@part
def worth_refining(bounds: Array, limit: Any, lower: Array, upper: Array) -> bool:
    """Whether bounds of single samples would cost less than comparing the windows that they would refuse."""
    windows, groups = 0, 0
    for group in range(0, bounds.shape[0], LANE_GROUP):
        size = count_within(bounds[group : group + LANE_GROUP], limit)
        windows += size
        groups += size > 0
    cells = 0
    for row in range(lower.shape[0]):
        cells += upper[row] - lower[row]
    return bool(windows * cells > REFINING_CELLS * groups * lower.shape[0])


@part
def count_within(bounds: Array, limit: Any) -> int:
    """How many bounds are within the limit and not infinite, which marks windows that were compared already.

    A sum, where the smallest would say as much to most callers: sums of comparisons are vectors, minima are not.
    """
    size = 0
    for index in range(bounds.shape[0]):
        size += bounds[index] <= limit and bounds[index] < np.inf
    return size


@part
def indices_within(bounds: Array, limit: Any, order: Array) -> int:
    """The windows that ``count_within`` counts, ascending, into ``order``."""
    size = 0
    for group in range(0, bounds.shape[0], LANE_GROUP):
        values = bounds[group : group + LANE_GROUP]
        if count_within(values, limit) > 0:
            for lane in range(values.shape[0]):
                order[size] = group + lane
                size += values[lane] <= limit and values[lane] < np.inf
    return size


@part
def next_block(order: Array, position: int, waiting: int, bounds: Array, limit: Any, chosen: Array) -> Any:
    """The next of the ordered windows still within the limit, into ``chosen``: how many, and where to go on."""
    size = 0
    while position < waiting and size < chosen.shape[0]:
        index = order[position]
        position += 1
        if bounds[index] <= limit:
            chosen[size] = index
            size += 1
    return size, position
