"""From released intents to planned orders: legs matched ahead of time in the worker thread, ids and debits derived."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from agents.executor.slicing import CurveMatcher, Leg
from agents.voter import Voter
from consensus.route import effective_prices
from orders.gate import Release
from orders.order import PlannedOrder, client_order_id
from profiling.span import span
from profiling.stages import Operation
from protocol.messages import Frame, Intent, NewOrder

CURVES_KEPT_MAX: Final = 64
"""Frames whose curves were matched before their outcome was known."""

Legs = dict[int, tuple[Leg, ...]]
"""Legs by the intent's sequence."""


class Planner:
    """One per executor. ``begin`` while the others still judge a frame, ``orders`` once the gate has spoken."""

    def __init__(self, voter: Voter) -> None:
        self._voter = voter
        self._curves = CurveMatcher(voter.data)
        self._under_way: dict[bytes, asyncio.Future[Legs]] = {}

    def begin(self, digest: bytes, frame: Frame) -> asyncio.Future[Legs]:
        """Match the activity curves of a frame's symbols, once per frame."""
        future = self._under_way.get(digest)
        if future is None:
            future = asyncio.get_running_loop().run_in_executor(self._voter.worker, self._match, frame)
            self._under_way[digest] = future
            while len(self._under_way) > CURVES_KEPT_MAX:
                del self._under_way[next(iter(self._under_way))]
        return future

    async def orders(self, digest: bytes, frame: Frame, releases: Sequence[Release]) -> list[PlannedOrder]:
        """An intent's debit rides on its first leg, so that a restart finds it once."""
        legs_of = await self.begin(digest, frame)
        self._under_way.pop(digest, None)
        return [
            self._planned(frame, release.intent, leg, index, digest, release.spent.notional if index == 0 else 0)
            for release in releases
            for index, leg in enumerate(legs_of[release.intent.sequence])
        ]

    def unsent(self, digest: bytes, frame: Frame, intent: Intent) -> PlannedOrder:
        """The order that an intent would have become, for the record of its end."""
        price = max(intent.limit_price or intent.reference_price, 1)
        return self._planned(frame, intent, Leg(intent.quantity, price), 0, digest, 0)

    def _match(self, frame: Frame) -> Legs:
        limits = effective_prices(frame.intents, self._voter.policy.collar_bps)
        with span(Operation.CURVE_MATCH, frame.cycle, len(limits)):
            return self._curves.legs(frame.intents, limits, frame.market_index)

    def _planned(
        self, frame: Frame, intent: Intent, leg: Leg, index: int, digest: bytes, notional: int
    ) -> PlannedOrder:
        cl_ord_id = client_order_id(self._voter.cluster_id, frame.trader, intent.sequence, index)
        terms = NewOrder(
            cl_ord_id, intent.symbol, intent.side, intent.time_in_force, leg.quantity, leg.price, frame.market_index
        )
        return PlannedOrder(
            terms=terms,
            trader=frame.trader,
            intent=intent.sequence,
            leg=index,
            cycle=frame.cycle,
            decision_digest=digest,
            slice_id=frame.slice_id,
            slice_version=frame.slice_version,
            spent_notional=notional,
        )
