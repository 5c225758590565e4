"""The venue's process: a matching engine over the replayed prices, reached over the same wire as everybody else.

It keeps its book in memory. A venue that dies takes its book with it, so the supervisor ends the run instead of
restarting it: an executor must never be told that orders which the venue has forgotten were never sent.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

from agents.certificates import Certificates
from agents.public_feed import PublicFeed
from agents.setup import Setup
from orders.venues.latency import DelayQueue
from orders.venues.paper import PaperVenue, VenueConfig
from profiling.clock import now_ns
from profiling.span import span
from profiling.stages import Operation
from protocol.batch import Channel
from protocol.messages import (
    ExecutionReport,
    MarketAdvance,
    Message,
    NewOrder,
    OrderStatusRequest,
    StatusReply,
    StatusRequest,
)
from protocol.peer import Peer
from protocol.roster import Agent


class VenueProcess:
    """``run`` serves executors until ``stop``."""

    def __init__(self, setup: Setup) -> None:
        section = setup.config.file.venue
        config = VenueConfig(
            half_spread_bps=section.half_spread_bps,
            depth_levels=section.depth_levels,
            level_quantity=section.level_quantity,
            fee_bps=section.fee_bps,
            reject_rate=section.reject_rate,
            latency_ns=section.latency_us * 1_000,
            jitter_ns=section.jitter_us * 1_000,
            seed=setup.config.file.seed,
        )
        setup.open_profiler()
        self.setup = setup
        self.log = setup.log
        self.state = "starting"
        self.fault: BaseException | None = None
        self.venue = PaperVenue(len(setup.data.symbols), setup.data.closes, config)
        self._due: DelayQueue[tuple[int, int, ExecutionReport]] = DelayQueue(
            config.latency_ns, config.jitter_ns, config.seed
        )
        self._owners: dict[str, int] = {}
        """Client order id -> the executor whose order it is."""
        self._timer: asyncio.TimerHandle | None = None
        self._stopped = asyncio.Event()
        self.endpoint = setup.endpoint(self._on_message, self._on_peer_change)
        self.feed = PublicFeed(setup, self.status)
        self._certificates = Certificates(setup, self.endpoint, self.feed)

    async def run(self) -> None:
        try:
            await self.endpoint.start()
            await self.feed.start()
            self._certificates.start()
            self.state = "ready"
            await self._stopped.wait()
        finally:
            if self._timer is not None:
                self._timer.cancel()
            self._certificates.stop()
            self.feed.stop()
            await self.endpoint.close()
        if self.fault is not None:
            raise self.fault

    def reload(self) -> None:
        """New certificates are there."""
        self._certificates.reload()

    def stop(self) -> None:
        self._stopped.set()

    def fail(self, error: BaseException) -> None:
        """A defect of ours: end with it."""
        self.fault = self.fault or error
        self.stop()

    def _on_message(self, peer: Peer, trace: int, message: Message) -> None:
        if isinstance(message, StatusRequest):
            body = json.dumps(self.status(detail=bool(message.detail))).encode()
            peer.send(StatusReply(message.nonce, body), channel=Channel.CONTROL)
            return
        with span(Operation.VENUE_MATCH, trace):
            reports = self._match(peer.agent.index, message)
        now = now_ns()
        for report in reports:
            owner = self._owners.get(report.cl_ord_id, peer.agent.index)
            self._due.push((owner, trace, report), now)
        self._deliver()

    def _match(self, executor: int, message: Message) -> tuple[ExecutionReport, ...] | list[ExecutionReport]:
        if isinstance(message, NewOrder):
            self._owners.setdefault(message.cl_ord_id, executor)
            return self.venue.submit(message)
        if isinstance(message, OrderStatusRequest):
            # Everything that was ever said about the order, then where it stands: lost reports come back this way.
            return (*self.venue.history(message.cl_ord_id), self.venue.status(message.cl_ord_id))
        if isinstance(message, MarketAdvance):
            return self.venue.advance(message.market_index)
        self.log.warning("message_ignored", message=type(message).__name__)
        return []

    def _deliver(self) -> None:
        """Send what is due, and come back for the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for executor, trace, report in self._due.due(now_ns()):
            self.endpoint.send(executor, report, channel=Channel.ORDERS, trace=trace)
        deadline = self._due.next_deadline_ns()
        if deadline is not None:
            delay_s = max(0, deadline - now_ns()) / 1e9
            self._timer = asyncio.get_running_loop().call_later(delay_s, self._deliver)

    def _on_peer_change(self, peer: Agent, connected: bool) -> None:
        self.log.info("peer_connected" if connected else "peer_lost", peer=peer.id)

    def status(self, detail: bool) -> dict[str, Any]:
        counts = self.venue.counts
        picture: dict[str, Any] = {
            "id": self.setup.agent.id,
            "role": self.setup.agent.role.value,
            "state": self.state,
            "pid": self.setup.pid,
            "suspects": self.endpoint.suspects,
            "market_index": self.venue.market_index,
            "venue": {name: getattr(counts, name) for name in counts.__slots__},
        }
        if detail:
            picture["wire"] = self.endpoint.statistics()
            picture["feed"] = self.feed.statistics()
        return picture
