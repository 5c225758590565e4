"""Which path a decision takes: pure functions of the intent and of what its slice has cumulatively been used for.

Every replica recomputes them; a trader who calls a critical intent routine is refused. Splitting a large order does
not dodge the spine, because routine use of a symbol adds up over the slice version (reference 3.3, A14).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from protocol.codes import Side
from protocol.messages import Intent

BASIS: Final = 10_000
"""Basis points in one."""
DEFAULT_COLLAR_BPS: Final = 200


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
    return (
        stress
        or notional > critical_notional
        or symbol_used + notional > symbol_limit
        or outside_collar(effective_price(intent, collar_bps), reference, collar_bps)
    )


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


def critical_positions(intents: tuple[Intent, ...], facts: RouteFacts) -> tuple[int, ...]:
    """Positions of the critical intents, each seeing the routine use of those before it.

    Leaving them out leaves a list that is routine as a whole: the trader splits its signals with this very function.
    """
    taken: dict[int, int] = {}
    critical: list[int] = []
    for position, intent in enumerate(intents):
        in_frame = taken.get(intent.symbol, 0)
        if criticality(
            intent,
            critical_notional=facts.critical_notional,
            symbol_used=facts.used_by_symbol(intent.symbol) + in_frame,
            symbol_limit=facts.symbol_limit,
            stress=facts.stress(intent.symbol),
            collar_bps=facts.collar_bps,
            reference_price=facts.reference_price(intent.symbol),
        ):
            critical.append(position)
        else:
            taken[intent.symbol] = in_frame + intent_notional(intent, facts.collar_bps)
    return tuple(critical)
