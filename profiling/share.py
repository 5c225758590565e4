"""Shares rounded so that what is printed still adds up."""

from __future__ import annotations

import math
from collections.abc import Sequence


def tenths_adding_up(shares_percent: Sequence[float]) -> list[float]:
    """Shares rounded to one decimal by largest remainder, so that the printed column adds to the rounded total.

    Plain rounding would let eight honest shares add up to 99.8 or 100.3, and the reader could not tell that from a gap.
    """
    tenths = [math.floor(share * 10) for share in shares_percent]
    missing = round(sum(shares_percent) * 10) - sum(tenths)
    by_remainder = sorted(range(len(tenths)), key=lambda index: (tenths[index] - shares_percent[index] * 10, index))
    for index in by_remainder[: max(0, missing)]:
        tenths[index] += 1
    return [tenth / 10 for tenth in tenths]
