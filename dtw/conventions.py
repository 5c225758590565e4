"""Our conventions and those of other libraries: plain arithmetic, so that a user of both can compare like with like.

Ours: squared costs, no root, a band ``r`` in samples (``|i - j| <= r``, see ``bands.py``). Theirs, as read in their
sources and held by ``tests/peers``:

| library | distance | band |
|---|---|---|
| aeon 1.6 | squared | a fraction ``w`` of the length: ``int(w * n)`` samples; None or 1.0 is none |
| dtaidistance 2.5 | root | ``window = r + 1`` samples; None is none |
| tslearn 0.10 | root | ``sakoe_chiba_radius = r`` with ``global_constraint="sakoe_chiba"`` |
| wildboar 1.2, rows | root | a fraction ``w`` of the shorter length: ``floor(w * n)`` is ``r + 1``; 1.0 is none |
| wildboar 1.2, scaled subsequences | root | a fraction ``w`` of the query: ``floor(w * n)`` is ``r``; 1.0 is none |

For unequal lengths dtaidistance, tslearn and wildboar widen the band as we do; aeon bends it along the diagonal.

A fraction is aimed at the middle of the interval that means ``r`` samples, half a sample away from either edge, so
that rounding the product cannot reach one. ``0.1 * 30`` is ``3.0000000000000004``, but ``0.29 * 100`` is less than 29.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw.errors import InvalidArgument


def rooted(squared_distances: ArrayLike) -> NDArray[np.float64]:
    """Distances with a root, same shape, of ours without."""
    return np.asarray(np.sqrt(_checked(squared_distances)))


def squared(rooted_distances: ArrayLike) -> NDArray[np.float64]:
    """Our distances, same shape, of those with a root."""
    values = _checked(rooted_distances)
    return np.asarray(values * values)


def _checked(distances: ArrayLike) -> NDArray[np.float64]:
    values = np.asarray(distances, np.float64)
    if not (values >= 0).all():
        raise InvalidArgument("a distance is at least 0 and not NaN")
    return values


def aeon_window(band: int | None, rows: int, columns: int) -> float | None:
    """``window`` of aeon for series of ``rows`` and ``columns`` samples.

    Raises ``InvalidArgument`` for a real band between unequal lengths: aeon has no such band.
    """
    if _is_whole(band, rows, columns):
        return None
    if rows != columns:
        raise InvalidArgument(f"aeon has no band of {band} samples for unequal lengths {rows} and {columns}")
    return _fraction(band, rows)


def dtaidistance_window(band: int | None, rows: int, columns: int) -> int | None:
    """``window`` of dtaidistance for series of ``rows`` and ``columns`` samples."""
    return None if _is_whole(band, rows, columns) else _samples(band) + 1


def tslearn_radius(band: int | None, rows: int, columns: int) -> int | None:
    """``sakoe_chiba_radius`` of tslearn; None stands for no ``global_constraint``."""
    return None if _is_whole(band, rows, columns) else _samples(band)


def wildboar_r(band: int | None, rows: int, columns: int) -> float:
    """``r`` of wildboar's metric ``dtw`` between whole series of ``rows`` and ``columns`` samples."""
    if _is_whole(band, rows, columns):
        return 1.0
    return _fraction(_samples(band) + 1, min(rows, columns))


def wildboar_subsequence_r(band: int | None, length: int) -> float:
    """``r`` of wildboar's metric ``dtw`` with ``scale=True`` for a query of ``length`` samples."""
    return 1.0 if _is_whole(band, length, length) else _fraction(band, length)


def _is_whole(band: int | None, rows: int, columns: int) -> bool:
    """Whether the band leaves nothing out, None included."""
    if min(rows, columns) < 1:
        raise InvalidArgument(f"a series has at least 1 sample; the lengths are {rows} and {columns}")
    return band is None or _samples(band) >= min(rows, columns) - 1


def _samples(band: int | None) -> int:
    if band is None or band < 0:
        raise InvalidArgument(f"a band is a number of samples, at least 0, not {band}")
    return int(band)


def _fraction(samples: int | None, length: int) -> float:
    """What times ``length``, rounded down, is ``samples``; at most 1."""
    return min(1.0, (_samples(samples) + 0.5) / length)
