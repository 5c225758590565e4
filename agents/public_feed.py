"""What an agent tells anybody who can reach its feed port: how it is, and, from the venue, the market's present prices.

Only what stands in ``PUBLIC`` leaves; no orders, positions, limits or addresses. Nothing listens unless ``feed_port``
is set for the agent in ``cluster.toml``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from agents.data.dataset import Dataset
from agents.setup import Setup
from protocol.feed import Feed
from protocol.identity import Identity
from protocol.messages import PRICE_SCALE
from protocol.quic.settings import resolve

PUBLIC: Final = (
    "id", "role", "state", "profile", "voters_connected", "quorum", "quorum_seen", "leader", "term", "commit_index",
    "spine_view", "spine_primary", "spine_executed", "cycle", "market_index",
)  # fmt: skip


def public_view(status: dict[str, Any], data: Dataset) -> dict[str, Any]:
    """The part of a status that may be public, with the closes of the bar that the venue trades at; none before the
    first one, whose index is -1."""
    view: dict[str, Any] = {name: status[name] for name in PUBLIC if name in status}
    if view.get("market_index", -1) >= 0:
        closes = data.closes[view["market_index"]].tolist()
        view["closes"] = {symbol: close / PRICE_SCALE for symbol, close in zip(data.symbols, closes, strict=True)}
    return view


class PublicFeed:
    """The feed of one agent's process, if it has one."""

    def __init__(self, setup: Setup, status: Callable[[bool], dict[str, Any]]) -> None:
        self._setup = setup
        self._status = status
        self._port = setup.config.feed_port(setup.agent)
        self._feed: Feed | None = None
        if self._port:
            self._feed = Feed(setup.identity, self._picture, logger=setup.log, port=setup.datagram_port())

    async def start(self) -> None:
        """Listen. Raises ``UsageError`` when the address cannot be used."""
        if self._feed is not None:
            host = self._setup.options.bind_host or self._setup.agent.host
            self._feed.open(*await resolve(self._setup.agent.id, host, self._port))
            self._setup.log.info("feed_open", port=self._port)

    def stop(self) -> None:
        if self._feed is not None:
            self._feed.close()

    def reload(self, identity: Identity) -> None:
        """New certificates are there."""
        if self._feed is not None:
            self._feed.reload(identity)

    def statistics(self) -> dict[str, int]:
        """Questions and tickets, for the status; empty without a feed."""
        return {} if self._feed is None else self._feed.statistics()

    def _picture(self) -> bytes:
        return json.dumps(public_view(self._status(False), self._setup.data)).encode()
