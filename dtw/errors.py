"""What callers of the matching room can get wrong."""

from __future__ import annotations


class InvalidArgument(ValueError):
    """A parameter is outside its range, or shapes do not fit together."""


class InvalidSeries(ValueError):
    """The data cannot be matched: empty, too short, not numeric, not finite or too large.

    ``index`` is the first offending position along the first axis (the sample of a series, the row of a matrix), or
    None when no single one is at fault.
    """

    def __init__(self, reason: str, index: int | None = None) -> None:
        super().__init__(reason if index is None else f"{reason} at index {index}")
        self.reason = reason
        self.index = index
