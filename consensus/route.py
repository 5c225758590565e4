"""Which path a decision takes: pure functions of the intent and of what its slice has cumulatively been used for.

Every replica recomputes them; a trader who calls a critical intent routine is refused. Splitting a large order does
not dodge the spine, because routine use of a symbol adds up over the slice version.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from protocol.codes import Side
from protocol.messages import Intent, Intents

BASIS: Final = 10_000
"""Basis points in one."""
DEFAULT_COLLAR_BPS: Final = 200
QUANTITY_EXACT: Final = 2**21
PRICE_EXACT: Final = 2**40
"""Up to these magnitudes, and collars up to ``BASIS``, no product below leaves 64 bits."""


def collar_price(side: int, reference_price: int, collar_bps: int) -> int:
    """The worst price within the collar, rounded towards the reference: never outside."""
    if side == Side.BUY:
        return reference_price * (BASIS + collar_bps) // BASIS
    return -(-reference_price * (BASIS - collar_bps) // BASIS)


def effective_price(intent: Intent, collar_bps: int) -> int:
    """The limit price under which the intent reaches the venue: its own, or the collar's for a market order."""
    return intent.limit_price or collar_price(intent.side, intent.reference_price, collar_bps)


def intent_notional(intent: Intent, collar_bps: int) -> int:
    """Value the intent may take, in the price's unit: market orders count at the collar price.

    A sale may fill above its limit, so it counts at the reference price at least: a low limit does not make it small.
    """
    price = effective_price(intent, collar_bps)
    return intent.quantity * (price if intent.side == Side.BUY else max(price, intent.reference_price))


def effective_prices(intents: Intents, collar_bps: int) -> list[int]:
    """``effective_price`` of every row, in one pass over the columns."""
    if not _exact(intents, collar_bps):
        return [effective_price(intents[position], collar_bps) for position in range(len(intents))]
    prices: list[int] = _effective_column(intents.array, collar_bps).tolist()
    return prices


def intent_notionals(intents: Intents, collar_bps: int) -> list[int]:
    """``intent_notional`` of every row, in one pass over the columns."""
    if not _exact(intents, collar_bps):
        return [intent_notional(intents[position], collar_bps) for position in range(len(intents))]
    rows = intents.array
    price = _effective_column(rows, collar_bps)
    at_least = np.where(rows["side"] == Side.BUY, price, np.maximum(price, rows["reference_price"]))
    notionals: list[int] = (rows["quantity"] * at_least).tolist()
    return notionals


def _exact(intents: Intents, collar_bps: int) -> bool:
    """May numpy do the arithmetic? It wraps around where Python's own numbers grow, and peers choose the numbers."""
    rows, bound = intents.array, PRICE_EXACT
    prices = (rows["limit_price"], rows["reference_price"])
    inside = [not len(rows) or (-bound <= column.min() and column.max() <= bound) for column in prices]
    quantity = rows["quantity"]
    small = not len(rows) or (quantity.min() >= -QUANTITY_EXACT and quantity.max() <= QUANTITY_EXACT)
    return all(inside) and bool(small) and 0 <= collar_bps <= BASIS


def _effective_column(rows: NDArray[np.void], collar_bps: int) -> NDArray[np.int64]:
    limit, reference = rows["limit_price"], rows["reference_price"]
    bought = reference * (BASIS + collar_bps) // BASIS
    sold = -(-reference * (BASIS - collar_bps) // BASIS)
    column: NDArray[Any] = np.where(limit != 0, limit, np.where(rows["side"] == Side.BUY, bought, sold))
    return column


def outside_collar(price: int, reference_price: int, collar_bps: int) -> bool:
    """Is ``price`` further from the reference than the collar allows, either way?"""
    return abs(price - reference_price) * BASIS > reference_price * collar_bps


def criticality(
    intent: Intent,
    *,
    critical_notional: int,
    symbol_used: int,
    symbol_limit: int,
    stress: bool,
    collar_bps: int = DEFAULT_COLLAR_BPS,
    reference_price: int | None = None,
) -> bool:
    """Must this intent take the spine?

    When it is worth more than ``critical_notional``; when the routine use of its symbol in this slice version
    (``symbol_used``, without it) would pass ``symbol_limit``; when the present matches a stress episode; or when its
    price is outside the soft collar. ``reference_price`` is the judge's own; by default the intent's.
    """
    notional = intent_notional(intent, collar_bps)
    reference = intent.reference_price if reference_price is None else reference_price
    apart = outside_collar(effective_price(intent, collar_bps), reference, collar_bps)
    return stress or apart or notional > critical_notional or symbol_used + notional > symbol_limit


@dataclass(frozen=True, slots=True)
class RouteFacts:
    """What one judge knows when it routes a frame."""

    symbol_limit: int
    """``SliceGrant.symbol_notional_limit`` of the frame's slice version."""
    used_by_symbol: Callable[[int], int]
    """Routine use of a symbol under that version, without this frame: ``BudgetBook.used_by_symbol``."""
    stress: Callable[[int], bool]
    """Does the present of this symbol match a stress episode?"""
    critical_notional: int
    reference_price: Callable[[int], int | None] = lambda symbol: None
    """The judge's own reference price of a symbol; None takes the intent's word."""
    collar_bps: int = DEFAULT_COLLAR_BPS


def critical_positions(intents: Intents, facts: RouteFacts) -> tuple[int, ...]:
    """Positions of the critical intents, each seeing the routine use of those before it.

    Leaving them out leaves a list that is routine as a whole: the trader splits its signals with this very function.
    """
    taken: dict[int, int] = {}
    critical: list[int] = []
    prices, notionals = effective_prices(intents, facts.collar_bps), intent_notionals(intents, facts.collar_bps)
    symbols, stated = intents.array["symbol"].tolist(), intents.array["reference_price"].tolist()
    for position, (symbol, price, notional) in enumerate(zip(symbols, prices, notionals, strict=True)):
        used = facts.used_by_symbol(symbol) + taken.get(symbol, 0)
        own = facts.reference_price(symbol)
        reference = stated[position] if own is None else own
        if (
            facts.stress(symbol)
            or outside_collar(price, reference, facts.collar_bps)
            or notional > facts.critical_notional
            or used + notional > facts.symbol_limit
        ):
            critical.append(position)
        else:
            taken[symbol] = taken.get(symbol, 0) + notional
    return tuple(critical)
