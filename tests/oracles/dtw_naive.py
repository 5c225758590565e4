"""Obvious twins of the matching room: full matrices, plain Python floats, no cleverness.

The operations come in the same order as in the reference kernels, so float64 results must agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def in_band(i: int, j: int, rows: int, columns: int, band: int | None) -> bool:
    """Whether a cell of a ``rows`` by ``columns`` matrix lies in the band, by the definition."""
    if band is None:
        return True
    return -band - max(0, rows - columns) <= j - i <= band + max(0, columns - rows)


def distance(a: Sequence[float], b: Sequence[float], band: int | None = None) -> float:
    """Squared DTW distance over the full cost matrix."""
    n, m = len(a), len(b)
    return distance_within(a, b, [[in_band(i, j, n, m, band) for j in range(m)] for i in range(n)])


def distance_within(a: Sequence[float], b: Sequence[float], allowed: Sequence[Sequence[bool]]) -> float:
    """Squared DTW distance over the cells that a dense mask allows."""
    costs = [[(float(x) - float(y)) * (float(x) - float(y)) for y in b] for x in a]
    return cheapest(costs, allowed)


def distance_of_costs(costs: Sequence[Sequence[float]], band: int | None = None) -> float:
    """The cheapest way through a matrix of costs within a band."""
    n, m = len(costs), len(costs[0])
    return cheapest(costs, [[in_band(i, j, n, m, band) for j in range(m)] for i in range(n)])


def cheapest(costs: Sequence[Sequence[float]], allowed: Sequence[Sequence[bool]]) -> float:
    """The recurrence, cell by cell, over a matrix of costs."""
    n, m = len(costs), len(costs[0])
    matrix = [[math.inf] * (m + 1) for _ in range(n + 1)]
    matrix[0][0] = 0.0
    for i in range(n):
        for j in range(m):
            if allowed[i][j]:
                best = min(matrix[i][j], matrix[i][j + 1], matrix[i + 1][j])
                matrix[i + 1][j + 1] = best + costs[i][j]
    return matrix[n][m]


def normalized(values: Sequence[float]) -> list[float]:
    """z-normalised window; zeros when the deviation is negligible against the largest magnitude."""
    shifted = [float(value) - float(values[0]) for value in values]
    mean = 0.0
    for value in shifted:
        mean += value
    mean /= len(values)
    squares = 0.0
    for value in shifted:
        squares += (value - mean) * (value - mean)
    deviation = math.sqrt(squares / len(values))
    if deviation <= 1e-12 * max(abs(float(value)) for value in values):
        return [0.0] * len(values)
    return [(value - mean) / deviation for value in shifted]


def nearest(
    query: Sequence[float],
    series: Sequence[float],
    k: int,
    band: int | None,
    last_start: int,
    exclusion: int = 0,
    cutoff: float = math.inf,
) -> list[tuple[float, int]]:
    """Greedy choice from the sorted list of all (distance, start) pairs."""
    window = len(query)
    pattern = normalized(query)
    starts = range(min(last_start, len(series) - window) + 1)
    ranked = sorted((distance(pattern, normalized(series[s : s + window]), band), s) for s in starts)
    chosen: list[tuple[float, int]] = []
    for value, start in ranked:
        if len(chosen) == k or value > cutoff:
            break
        if all(abs(start - other) >= exclusion for _, other in chosen):
            chosen.append((value, start))
    return chosen
