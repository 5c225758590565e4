"""Libraries of several series that share one clock: the same search in each, at one point in time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dtw.errors import InvalidArgument
from dtw.library import Method, Neighbours, WindowLibrary
from dtw.normalize import checked_array
from dtw.parallel import checked_threads, in_threads


class LibraryBank:
    """One ``WindowLibrary`` per column of ``series_matrix``, float64 ``(n, m)``: rows are time, columns are series."""

    def __init__(self, series_matrix: ArrayLike, window: int, dtype: Any = np.float32) -> None:
        matrix = checked_array(series_matrix, 2, np.float64)
        self.window = window
        self.length, self.columns = matrix.shape
        self.libraries = [WindowLibrary(matrix[:, column], window, dtype) for column in range(self.columns)]

    def prepare(self, band: int | None) -> None:
        """Prepare every library for many searches within a band."""
        for library in self.libraries:
            library.prepare(band)

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
        found: dict[int, Neighbours] = {}

        def search(column: int) -> None:
            query = self.query(column, end_index)
            library = self.libraries[column]
            found[column] = library.nearest(query, k, band, last_start, method=method, exclusion=exclusion)

        in_threads([partial(search, column) for column in wanted], checked_threads(threads))
        return [found[column] for column in wanted]
