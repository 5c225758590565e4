"""The batch kernels: one query against many candidates, or one pair. They take canonical arrays only; ``api.py`` and
``library.py`` validate.

Rules for all compiled functions of this room
- Entries are called from Python and kept in numba's disk cache; parts are inlined into entries. numba notices a changed
  source by the file of the entry alone, so parts live in the files that ``cache.PARTS`` names: their contents are part
  of the cache directory's name.
- No kernel starts a thread: many agent processes share the cores. All entries release the GIL, so callers run them in a
  worker thread.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from dtw.lanes import FASTMATH, LANES, compare_block

_entry = njit(nogil=True, cache=True, fastmath=FASTMATH, error_model="numpy")

Array = NDArray[Any]


@_entry
def distance_rows(query: Array, rows: Array, lower: Array, upper: Array, cutoff: Any, out: Array) -> None:
    """Distances ``(count,)`` from ``query`` ``(n,)`` to each row of ``rows`` ``(count, m)``, all of one dtype.

    Those above the cutoff come out infinite; a block whose lanes are all above it is abandoned.
    """
    count, length = rows.shape
    row = np.empty((length + 1) * LANES, query.dtype)
    diagonal = np.empty(LANES, query.dtype)
    left = np.empty(LANES, query.dtype)
    block = np.empty(length * LANES, query.dtype)
    for first in range(0, count, LANES):
        size = min(LANES, count - first)
        for lane in range(LANES):
            source = rows[first + min(lane, size - 1)]
            for t in range(length):
                block[t * LANES + lane] = source[t]
        finished = compare_block(query, block, lower, upper, cutoff, row, diagonal, left)
        for lane in range(size):
            value = row[length * LANES + lane]
            out[first + lane] = value if finished and value <= cutoff else query.dtype.type(np.inf)
