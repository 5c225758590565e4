"""Daily closes of many symbols, checked at the door: what the agents replay, search and mark to.

A data set is the same in every agent, and its SHA-256 stands in each report. Nothing downstream checks again.
"""

from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE

GAP_DAYS_MAX: Final = 10
"""The longest real pause in the US series is seven calendar days (September 2001); more means missing rows."""

BARS_MIN: Final = 200

PRICE_MAX: Final = 1e9
"""Beyond it a price in 1/10,000 times a quantity could leave 64 bits."""

Line = tuple[int, list[str]]
"""A row and the number of its line in the file."""


@dataclass(frozen=True)
class Dataset:
    """``closes``: int64 [bars, symbols] in 1/10,000 of the quote currency; ``log_closes``: float64, same shape."""

    name: str
    synthetic: bool
    sha256: str
    symbols: tuple[str, ...]
    dates: tuple[date, ...]
    closes: NDArray[np.int64]
    log_closes: NDArray[np.float64]

    @property
    def bars(self) -> int:
        return int(self.closes.shape[0])

    def describe(self) -> dict[str, object]:
        """The report's ``data`` object."""
        return {"name": self.name, "synthetic": self.synthetic, "sha256": self.sha256}


def parse_csv(name: str, content: bytes, synthetic: bool = False) -> Dataset:
    """A table ``Date,SYM1,SYM2,…`` with one close per symbol and ascending ISO dates.

    Raises ``UsageError`` naming row and column for a missing, non-finite or non-positive price, a repeated or
    descending date, a gap of more than ``GAP_DAYS_MAX`` days, or a row of the wrong width.
    """
    try:
        reader = csv.reader(io.StringIO(content.decode("utf-8-sig")))
        lines: list[Line] = []
        number = 1
        for cells in reader:
            lines.append((number, cells))
            number = reader.line_num + 1  # a quoted cell may span lines
    except UnicodeDecodeError:
        raise UsageError(
            f"{name}: not a UTF-8 text file; expected a CSV table with Date and one column a symbol"
        ) from None
    except csv.Error as error:
        raise UsageError(f"{name}: line {reader.line_num}: {error}; correct that line") from None
    rows = [row for _, row in lines]
    if not rows or len(rows[0]) < 2 or rows[0][0].strip().lower() != "date":
        raise UsageError(f"{name}: the first line must be `Date,SYMBOL,…`; add that header")
    symbols = tuple(cell.strip() for cell in rows[0][1:])
    if len(set(symbols)) != len(symbols) or "" in symbols:
        raise UsageError(f"{name}: symbols in the header must be present and distinct; correct line 1")
    body = [(number, row) for number, row in lines[1:] if row]
    if len(body) < BARS_MIN:
        raise UsageError(f"{name}: {len(body)} rows are too few to search in; at least {BARS_MIN} are needed")
    dates = _dates(name, body)
    prices = _prices_at_once(len(symbols), body) if b"_" not in content else None
    if prices is None:
        prices = _prices(name, symbols, body)
    closes = np.rint(prices * PRICE_SCALE).astype(np.int64)
    if (closes <= 0).any():
        row_index, column = (int(value) for value in np.argwhere(closes <= 0)[0])
        raise UsageError(
            f"{name}: line {body[row_index][0]}, {symbols[column]}: price rounds to zero in 1/{PRICE_SCALE}; rescale it"
        )
    digest = hashlib.sha256(content).hexdigest()
    return Dataset(name, synthetic, digest, symbols, dates, closes, np.log(closes / PRICE_SCALE))


def load_csv(path: Path, name: str) -> Dataset:
    """Read a file of ``parse_csv``'s form."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist; fetch the data with `swarm data fetch` or correct data.path"
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); check its permissions") from None
    return parse_csv(name or path.name, content)


def _dates(name: str, body: list[Line]) -> tuple[date, ...]:
    dates: list[date] = []
    for number, row in body:
        try:
            day = date.fromisoformat(row[0].strip())
        except ValueError:
            raise UsageError(f"{name}: line {number}: {row[0]!r:.40} is not an ISO date; write YYYY-MM-DD") from None
        if dates and day <= dates[-1]:
            raise UsageError(f"{name}: line {number}: {day} does not follow {dates[-1]}; sort the rows, one per day")
        if dates and (day - dates[-1]).days > GAP_DAYS_MAX:
            raise UsageError(
                f"{name}: line {number}: a gap of {(day - dates[-1]).days} days after {dates[-1]}; fill in the rows"
            )
        dates.append(day)
    return tuple(dates)


def _prices_at_once(symbol_count: int, body: list[Line]) -> NDArray[np.float64] | None:
    """A good table in one conversion; None for any other, which ``_prices`` then takes apart to name the fault."""
    if any(len(row) != symbol_count + 1 for _, row in body):
        return None
    try:
        prices = np.fromiter(
            (float(cell) for _, row in body for cell in row[1:]), np.float64, len(body) * symbol_count
        ).reshape(len(body), symbol_count)
    except ValueError:
        return None
    return prices if bool((np.isfinite(prices) & (prices > 0) & (prices <= PRICE_MAX)).all()) else None


def _prices(name: str, symbols: tuple[str, ...], body: list[Line]) -> NDArray[np.float64]:
    prices = np.empty((len(body), len(symbols)))
    for row_index, (number, row) in enumerate(body):
        if len(row) != len(symbols) + 1:
            raise UsageError(f"{name}: line {number} has {len(row) - 1} prices for {len(symbols)} symbols; fill it in")
        for column, cell in enumerate(row[1:]):
            prices[row_index, column] = _price(name, number, symbols[column], cell)
    return prices


def _price(name: str, line: int, symbol: str, cell: str) -> float:
    try:
        if "_" in cell:  # Python reads 1_5 as 15; a table means something else
            raise ValueError
        price = float(cell)
    except ValueError:
        raise UsageError(
            f"{name}: line {line}, {symbol}: {cell!r:.40} is not a price; fill in or drop the row"
        ) from None
    if price > PRICE_MAX and np.isfinite(price):
        raise UsageError(
            f"{name}: line {line}, {symbol}: price {cell.strip():.40} is above {PRICE_MAX:,.0f}; rescale the column"
        )
    if not np.isfinite(price) or price <= 0:
        raise UsageError(
            f"{name}: line {line}, {symbol}: price {cell.strip():.40} is not finite and positive; mend or drop the row"
        )
    return price
