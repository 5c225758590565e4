"""The report's ``portfolio`` object, from a voter's order view."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agents.order_view import OrderView
from protocol.messages import PRICE_SCALE


def portfolio_status(orders: OrderView, symbols: Sequence[str]) -> dict[str, Any]:
    """Money in quote currency; positions by symbol, those that are not flat."""
    portfolio = orders.portfolio
    return {
        "realized_pnl": portfolio.realised / PRICE_SCALE,
        "unrealized_pnl": portfolio.unrealised / PRICE_SCALE,
        "fees": portfolio.fees / PRICE_SCALE,
        "gross_notional": portfolio.gross_notional / PRICE_SCALE,
        "positions": {
            symbols[symbol]: position.quantity
            for symbol, position in portfolio.positions().items()
            if position.quantity
        },
    }
