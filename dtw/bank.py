"""Libraries of several series that share one clock: the same search in each, at one point in time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw.errors import InvalidArgument
from dtw.library import WindowLibrary
from dtw.normalize import checked_array
from dtw.parallel import in_threads, slices
from dtw.query import Method, Neighbours, checked_dtype, checked_exclusion, checked_k
from dtw.stack import Stack


class LibraryBank:
    """One ``WindowLibrary`` per column of ``series_matrix``, float64 ``(n, m)``: rows are time, columns are series."""

    def __init__(self, series_matrix: ArrayLike, window: int, dtype: Any = np.float32) -> None:
        matrix = checked_array(series_matrix, 2, np.float64)
        self.window = window
        self.dtype = checked_dtype(dtype)
        self.length, self.columns = matrix.shape
        self.libraries = [WindowLibrary(matrix[:, column], window, dtype) for column in range(self.columns)]
        self._stacks: dict[int | None, Stack] = {}

    def prepare(self, band: int | None) -> None:
        """Prepare for many searches within a band."""
        for library in self.libraries:
            library.prepare(band)
        self._stacked(band)

    def _stacked(self, band: int | None) -> Stack:
        """The libraries' stacks as one. They go on with its rows, so that nothing is kept twice."""
        if band not in self._stacks:
            self._stacks[band] = Stack.joined([library.stacked(band) for library in self.libraries])
            for row, library in enumerate(self.libraries):
                library.rest_on(self._stacks[band], row, band)
        return self._stacks[band]

    def last_start(self, end_index: int, horizon: int) -> int:
        """The last candidate start that a query ending at ``end_index`` (its last sample) may see; negative when none.

        The candidate's window and its horizon end before the query's window begins:
        ``start + window + horizon <= end_index - window + 1``. So a neighbour's outcome shares no sample with the
        query.
        """
        if not self.window - 1 <= end_index < self.length:
            raise InvalidArgument(f"a query ends between {self.window - 1} and {self.length - 1}, not at {end_index}")
        if horizon < 0:
            raise InvalidArgument(f"a horizon is a number of samples, at least 0, not {horizon}")
        return end_index - 2 * self.window - horizon + 1

    def query(self, column: int, end_index: int) -> NDArray[np.float64]:
        """The raw window of ``column`` whose last sample is at ``end_index``."""
        return self.libraries[column].series[end_index - self.window + 1 : end_index + 1]

    def nearest_all(
        self,
        end_index: int,
        k: int,
        band: int | None,
        horizon: int,
        exclusion: int,
        columns: Sequence[int] | None = None,
        method: Method = "lanes",
        threads: int = 1,
    ) -> list[Neighbours]:
        """The k nearest past windows of each column's own window that ends at ``end_index``, in the order of
        ``columns``, which ``threads`` share."""
        last_start = self.last_start(end_index, horizon)
        wanted = range(self.columns) if columns is None else columns
        if any(not 0 <= column < self.columns for column in wanted):
            raise InvalidArgument(f"columns lie between 0 and {self.columns - 1}, not {list(wanted)}")
        if method != "lanes" or last_start < 0:
            return [
                self.libraries[column].nearest(
                    self.query(column, end_index), k, band, last_start, method=method, exclusion=exclusion
                )
                for column in wanted
            ]
        return self._search(
            np.array(wanted, np.int64),
            end_index,
            checked_k(k),
            band,
            last_start + 1,
            checked_exclusion(exclusion),
            threads,
        )

    def _search(
        self,
        wanted: NDArray[np.int64],
        end_index: int,
        k: int,
        band: int | None,
        count: int,
        exclusion: int,
        threads: int,
    ) -> list[Neighbours]:
        stack = self._stacked(band)
        queries = np.ascontiguousarray(stack.series[wanted, end_index - self.window + 1 : end_index + 1])
        parts = slices(len(wanted), threads, 1)
        found: list[list[Neighbours]] = [[] for _ in parts]

        def search(slot: int, part: slice) -> None:
            found[slot] = stack.nearest(queries[part], wanted[part], k, count, math.inf, exclusion, self.dtype)

        in_threads([partial(search, slot, part) for slot, part in enumerate(parts)], len(parts))
        return [each for part in found for each in part]
