"""How many cells a second the machine's arithmetic could do if nothing else cost anything.

A cell of the recurrence is a subtraction, two minima and a fused multiply-add. This does just those, on values that
stay in registers or come from the nearest cache, so what a kernel reaches of it says what memory, edges and calls take.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.lanes import FASTMATH
from dtw.parallel import in_threads

LANES: Final = 256
STEPS: Final = 4
"""Cells per lane between a load and a store."""
ROUNDS: Final = 20_000

_entry = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

Array = NDArray[Any]


@_entry
def arithmetic(values: Array, tops: Array, lefts: Array, samples: Array, query: Array, rounds: int) -> None:
    """``rounds`` times STEPS cells in each lane of ``values``, all arrays of one dtype."""
    a, b, c, d = query[0], query[1], query[2], query[3]
    for _ in range(rounds):
        for lane in range(values.shape[0]):
            value, top, left, sample = values[lane], tops[lane], lefts[lane], samples[lane]
            value = min(min(value, top), left) + (a - sample) * (a - sample)
            value = min(min(value, top), left) + (b - sample) * (b - sample)
            value = min(min(value, top), left) + (c - sample) * (c - sample)
            values[lane] = min(min(value, top), left) + (d - sample) * (d - sample)


def peak_cells_per_s(dtype: Any, threads: int, repeats: int = 3) -> float:
    """The best of ``repeats``, all threads together."""
    rng = np.random.default_rng(0)
    inputs = [rng.random((4, LANES)).astype(dtype) for _ in range(threads)]
    query = rng.random(STEPS).astype(dtype)

    def run(arrays: Array, rounds: int = ROUNDS) -> None:
        arithmetic(arrays[0], arrays[1], arrays[2], arrays[3], query, rounds)

    run(inputs[0], 1)
    best = float("inf")
    for _ in range(repeats):
        began = time.perf_counter()
        in_threads([partial(run, arrays) for arrays in inputs], threads)
        best = min(best, time.perf_counter() - began)
    return threads * LANES * STEPS * ROUNDS / best
