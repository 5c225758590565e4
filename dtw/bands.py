"""Sakoe-Chiba bands as column bounds per row.

A band of ``r`` samples lets row ``i`` meet the columns ``j`` with ``|i - j| <= r``. For unequal lengths the band is
widened on the longer side by the difference, so that a warping path always exists. ``None`` means no band.

Reference: Sakoe, Chiba, "Dynamic programming algorithm optimization for spoken word recognition", 1978, section III.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from dtw.errors import InvalidArgument

Bounds = tuple[NDArray[np.int64], NDArray[np.int64]]


def band_bounds(rows: int, columns: int, band: int | None) -> Bounds:
    """Column bounds per row of a ``rows`` by ``columns`` cost matrix.

    Returns ``(lower, upper)``, int64 arrays of shape ``(rows,)``: row ``i`` covers the columns ``lower[i] <= j <
    upper[i]``. Both are non-decreasing, no row is empty, neighbouring rows touch (``lower[i + 1] <= upper[i]``), the
    first row starts at 0 and the last ends at ``columns``. The banded kernels reuse one row buffer and are right only
    because of this; ``tests/dtw/test_bands.py`` checks it.

    Raises ``InvalidArgument`` for lengths below 1 or a negative band.
    """
    if rows < 1 or columns < 1:
        raise InvalidArgument(f"a cost matrix needs at least one row and one column, not {rows} by {columns}")
    if band is not None and band < 0:
        raise InvalidArgument(f"a band is a number of samples, at least 0, not {band}")
    row = np.arange(rows, dtype=np.int64)
    if band is None:
        return np.zeros(rows, np.int64), np.full(rows, columns, np.int64)
    lower = np.maximum(0, row - band - max(0, rows - columns))
    upper = np.minimum(columns, row + band + max(0, columns - rows) + 1)
    return lower, upper


def band_width_max(bounds: Bounds) -> int:
    """The most cells that one row or one column of the band holds: how often one sample can be matched."""
    lower, upper = bounds
    row_width = int((upper - lower).max())
    columns = np.arange(int(upper[-1]))
    first_row = np.searchsorted(upper, columns, side="right")
    behind_last_row = np.searchsorted(lower, columns, side="right")
    return max(row_width, int((behind_last_row - first_row).max()))


def band_cells(bounds: Bounds) -> int:
    """How many cells of the cost matrix the band holds: the work of one comparison."""
    lower, upper = bounds
    return int((upper - lower).sum())
