"""Checking series and z-normalising windows.

Each window is normalised on its own with two passes in float64 (mean, then population standard deviation), relative to
its first sample. No running sums: those lose digits after a jump and would make a window depend on where the series
began. A window whose standard deviation is at most ``CONSTANT_EPSILON`` times its largest magnitude is constant: all
zeros.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw import reference
from dtw.errors import InvalidArgument, InvalidSeries

MAGNITUDE_MAX: Final = 1e150
"""Larger samples are refused: their squares would overflow float64."""


def checked_array(values: ArrayLike, dimensions: int, dtype: Any = None) -> NDArray[Any]:
    """A C-contiguous writeable float array, the only kind the kernels take, or ``InvalidSeries``.

    ``dtype`` None keeps float32 and turns every other real type into float64. Only writeable arrays leave here because
    numba compiles a second time for read-only ones.
    """
    array = np.asarray(values)
    if array.ndim != dimensions:
        raise InvalidSeries(f"expected {dimensions} dimension(s), not {array.ndim}")
    if array.dtype.kind not in "fiu":
        raise InvalidSeries(f"expected real numbers, not {array.dtype}")
    if array.size == 0:
        raise InvalidSeries("the series is empty")
    target = dtype or (np.float32 if array.dtype == np.float32 else np.float64)
    _refuse_unusable(array)
    return np.require(array, target, ["C_CONTIGUOUS", "ALIGNED", "WRITEABLE"])


def _refuse_unusable(array: NDArray[Any]) -> None:
    """Compare in the given type, before a conversion could turn a large number infinite."""
    if array.dtype.kind == "f" and float(array.min()) >= -MAGNITUDE_MAX and float(array.max()) <= MAGNITUDE_MAX:
        return  # no array as large as the data for the usual case; what is not a number fails both
    usable = np.abs(array) <= MAGNITUDE_MAX if array.dtype.itemsize >= 8 else np.isfinite(array)
    if usable.all():
        return
    position = np.unravel_index(int(np.argmin(usable)), array.shape)
    value = array[position]
    reason = f"{value} is too large to be squared" if np.isfinite(value) else f"{value} is not finite"
    raise InvalidSeries(reason, int(position[-1] if array.ndim == 1 else position[0]))


def checked_channels(values: ArrayLike) -> NDArray[np.float64]:
    """A series ``(n,)`` or ``(n, channels)`` as checked float64 ``(n, channels)``."""
    dimensions = np.ndim(values)
    array: NDArray[np.float64] = checked_array(values, 2 if dimensions == 2 else 1, np.float64)
    return array.reshape(array.shape[0], -1)


def checked_series(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """``values`` as float64 ``(n,)`` with ``n >= window``, all finite.

    Raises ``InvalidSeries`` (the index of the first bad sample) and ``InvalidArgument`` for a window below 2.
    """
    if window < 2:
        raise InvalidArgument(f"a window holds at least 2 samples, not {window}")
    series = checked_array(values, 1, np.float64)
    if series.shape[0] < window:
        raise InvalidSeries(f"{series.shape[0]} samples are too short for a window of {window}")
    return series


def normalized_windows(values: ArrayLike, window: int) -> NDArray[np.float64]:
    """All z-normalised sliding windows of a series ``(n,)``: float64 ``(n - window + 1, window)``."""
    series = checked_series(values, window)
    starts = np.arange(series.shape[0] - window + 1, dtype=np.int64)
    out = np.empty((starts.shape[0], window), np.float64)
    reference.normalize_windows(series, starts, out)
    return out


def normalized(values: ArrayLike) -> NDArray[np.float64]:
    """One z-normalised window float64 ``(n,)`` of ``values`` ``(n,)``, n >= 2."""
    window = checked_array(values, 1, np.float64).shape[0]
    window_only: NDArray[np.float64] = normalized_windows(values, window)[0]
    return window_only
