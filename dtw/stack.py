"""Series of one length side by side, prepared for a band, and the search of several of them in one call."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dtw.bands import Bounds
from dtw.columns import search_columns
from dtw.precision import Slack, rounded_up
from dtw.query import Neighbours, Pruning, gap_of


class Stack(NamedTuple):
    """Series of one length, prepared for a band, a row each: what ``columns.search_columns`` takes of them."""

    series: NDArray[np.float64]
    means: NDArray[np.float64]
    inverses: NDArray[np.float64]
    segment: int
    reach: int
    coarse: tuple[NDArray[np.float32], ...]
    fine: tuple[NDArray[np.float32], ...]
    bounds: Bounds
    slack: Slack
    limits: NDArray[np.float64]

    @classmethod
    def joined(cls, stacks: list[Stack]) -> Stack:
        """One stack of all rows of stacks that are prepared alike."""
        coarse = zip(*(stack.coarse for stack in stacks), strict=True)
        fine = zip(*(stack.fine for stack in stacks), strict=True)
        return stacks[0]._replace(
            series=np.concatenate([stack.series for stack in stacks]),
            means=np.concatenate([stack.means for stack in stacks]),
            inverses=np.concatenate([stack.inverses for stack in stacks]),
            coarse=tuple(np.concatenate(rows) for rows in coarse),
            fine=tuple(np.concatenate(rows) for rows in fine),
        )

    def nearest(
        self,
        queries: NDArray[np.float64],
        columns: NDArray[np.int64],
        k: int,
        count: int,
        cutoff: float,
        exclusion: int,
        dtype: Any,
    ) -> list[Neighbours]:
        """The k nearest of the first ``count`` windows of ``series[column]`` to each raw query ``(m, window)``."""
        chosen = np.empty((len(columns), min(k, count)), np.int64)
        distances, counts = np.empty(chosen.shape), np.zeros((len(columns), 5), np.int64)
        search_columns(
            queries,
            columns,
            (self.series, self.means, self.inverses),
            self.segment,
            self.reach,
            self.coarse,
            self.fine,
            self.bounds,
            count,
            gap_of(exclusion),
            exclusion,
            cutoff,
            rounded_up(self.slack.ceiling(cutoff), dtype),
            self.limits,
            chosen,
            distances,
            counts,
        )
        return [
            Neighbours(chosen[row, :found], distances[row, :found], Pruning(count, *steps))
            for row, (*steps, found) in enumerate(counts.tolist())
        ]
