"""The executor: releases certified orders to the venue, exactly once, and tells the swarm what became of them.

Order of events, which no switch changes: gate, journal (durable), bytes. After a restart: journal, venue, then anything
new. A timer never decides what happened to an order; only the venue's word does.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar, cast

from agents.clock import wall_ns
from agents.executor.planner import Planner
from agents.voter import Voter, VoterRole
from consensus.effects import FrameRecord, FrameSettled
from consensus.pbft.certificate import verify_certificate as verify_slot_certificate
from orders.gate import Gate, Release, Spent
from orders.journal import Journal
from orders.lifecycle import AbsentAtVenue, Alarm, Applied, QueryNeeded
from orders.order import PlannedOrder
from orders.states import OrderState
from orders.venues.paper import PAPER_CAPABILITIES
from profiling.clock import now_ns
from profiling.span import frame_key, mark, span
from profiling.span import record as record_span
from profiling.stages import Operation
from protocol.batch import Channel
from protocol.codes import DenyCode
from protocol.errors import Unavailable
from protocol.messages import (
    CommittedSlot,
    Denial,
    ExecutionReport,
    Frame,
    Intent,
    MarketAdvance,
    Message,
    OrderEventsHead,
    OrderEventsRequest,
    OrderStatusRequest,
    SliceGrant,
)
from protocol.roster import Agent, Role

T = TypeVar("T")

ANSWER_TIMEOUT_NS: Final = 2_000_000_000
"""An order about which the venue says nothing for so long is UNKNOWN, and asked about."""
WATCH_INTERVAL_S: Final = 0.25
EVENTS_PER_READ: Final = 256
RECONCILE_TIMEOUT_S: Final = 10.0


@dataclass(slots=True)
class _FrameOrders:
    """What the gate let through of one frame, on its way out."""

    frame: Frame
    digest: bytes
    settled_ns: int
    releases: list[Release] = field(default_factory=list)
    orders: list[PlannedOrder] = field(default_factory=list)


class Executor(VoterRole):
    """Role of an executor process. Everything that touches the journal runs in one thread of its own, in order."""

    def attach(self, voter: Voter) -> None:
        super().attach(voter)
        setup = voter.setup
        self._journal = Journal.open(setup.data_dir / "orders.db", voter.cluster_id, voter.own)
        state = self._journal.load()
        self.ledger = state.ledger
        self._must_query = list(state.must_query)
        self._considered = {(order.trader, order.intent) for order in state.planned}
        spent = [Spent(o.trader, o.intent, o.slice_id, o.slice_version, o.spent_notional) for o in state.planned]
        replica = voter.replica
        self.gate = Gate(
            voter.cluster_id,
            voter.own,
            replica.quorum.size,
            replica.voters,
            setup.verifier.verify,
            self._verify_slot,
            setup.bodies().decode_frame,
            voter.budget,
            spent,
            voter.policy.collar_bps,
        )
        self._planner = Planner(voter)
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._outbox: deque[_FrameOrders | MarketAdvance] = deque()
        """What is to leave for the venue, in this order: a day must not end before its orders have left."""
        self._deferred: list[FrameSettled] = []
        self._reports: list[ExecutionReport] = []
        self._reports_scheduled = False
        self._work = asyncio.Event()
        self._answered = asyncio.Event()
        self._reconciled = asyncio.Event()
        self.alarms: list[str] = []
        self._venue = setup.config.with_role(Role.VENUE)[0].index
        self._venue_connected = asyncio.Event()

        for event in self._journal.events_from(1, state.next_sequence):
            voter.orders.on_event(event)

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.voter.spawn(self._reconcile(), "reconcile")
        self.voter.spawn(self._release_loop(), "release")
        self.voter.spawn(self._watch(), "watch")

    async def close(self) -> None:
        await asyncio.get_running_loop().run_in_executor(self._disk, self._journal.close)
        self._disk.shutdown(wait=False)

    def _verify_slot(self, slot: CommittedSlot) -> str | None:
        voter = self.voter
        verify = voter.setup.verifier.verify
        return verify_slot_certificate(slot, voter.cluster_id, voter.replica.voters, voter.spine_quorum.size, verify)

    async def _in_journal(self, call: Callable[..., T], *arguments: Any) -> T:
        return await self._loop.run_in_executor(self._disk, partial(call, *arguments))

    # --- decisions become orders -------------------------------------------------------------------------------------

    def settled(self, settled: FrameSettled) -> None:
        record = settled.record
        if record.settled:
            mark(Operation.CERTIFIED, record.opened_ns, record.frame.cycle, frame_key(record.digest))
        self._consider(settled)

    def granted(self, grant: SliceGrant) -> None:
        self._retry_deferred()

    def _retry_deferred(self) -> None:
        deferred, self._deferred = self._deferred, []
        for settled in deferred:
            self._consider(settled)

    def _consider(self, settled: FrameSettled) -> None:
        """Ask the gate about every approved intent that has not been dealt with, in any life of this executor."""
        record = settled.record
        frame = record.frame
        batch = _FrameOrders(frame, record.digest, now_ns())
        lapsed: list[tuple[Intent, DenyCode]] = []
        for position, code in enumerate(settled.codes):
            intent = frame.intents[position]
            key = (frame.trader, intent.sequence)
            if code != DenyCode.APPROVED or key in self._considered:
                continue
            with span(Operation.GATE_CHECK, frame.cycle):
                answer = self.gate.check(
                    frame, record.digest, record.command, position, settled.certificate, record.slot, wall_ns()
                )
            if isinstance(answer, Release):
                self._considered.add(key)
                batch.releases.append(answer)
            elif answer.code == DenyCode.SLICE_UNKNOWN and wall_ns() < frame.expires_at_ns:
                self._deferred.append(settled)  # the spine is a moment behind the lane here
                break
            else:
                self._considered.add(key)
                lapsed.append((intent, answer.code))
                self.voter.log.warning("gate_refused", intent=intent.sequence, code=answer.code.name, why=answer.reason)
        if batch.releases:
            self._outbox.append(batch)
            self._work.set()
        for intent, code in lapsed:
            self.voter.spawn(self._lapse([self._planner.unsent(record.digest, frame, intent)], code), "lapse")

    def inspect(self, record: FrameRecord) -> tuple[Denial, ...]:
        """No denials of its own; the legs are planned while the others still judge, so that they cost no time."""
        self._planner.begin(record.digest, record.frame)
        return ()

    def peer_changed(self, peer: Agent, connected: bool) -> None:
        if peer.index == self._venue:
            self._venue_connected.set() if connected else self._venue_connected.clear()

    # --- release -----------------------------------------------------------------------------------------------------

    async def _release_loop(self) -> None:
        """Release what the gate let through: all that is waiting at once, or one order after the other."""
        await self._reconciled.wait()
        sequential = self.voter.setup.switches.orders == "sequential"
        while True:
            await self._work.wait()
            self._work.clear()
            while self._outbox:
                following = self._outbox.popleft()
                if isinstance(following, MarketAdvance):
                    self._to_venue(following, 0)
                    continue
                batches = [following]
                while self._outbox and isinstance(self._outbox[0], _FrameOrders):
                    batches.append(cast(_FrameOrders, self._outbox.popleft()))
                for batch in batches:
                    batch.orders = await self._planner.orders(batch.digest, batch.frame, batch.releases)
                await (self._release_in_turn(batches) if sequential else self._release_together(batches))

    async def _release_together(self, batches: list[_FrameOrders]) -> None:
        orders = [order for batch in batches for order in batch.orders]
        if orders:
            await self._release(orders, batches[-1].frame.cycle)
        for batch in batches:
            mark(Operation.RELEASED, batch.settled_ns, batch.frame.cycle, frame_key(batch.digest))

    async def _release_in_turn(self, batches: list[_FrameOrders]) -> None:
        for batch in batches:
            for order in batch.orders:
                await self._release([order], batch.frame.cycle)
                await self._confirmation_of(order)
            mark(Operation.RELEASED, batch.settled_ns, batch.frame.cycle, frame_key(batch.digest))

    async def _release(self, orders: Sequence[PlannedOrder], cycle: int) -> None:
        for order in orders:
            self.ledger.open(order)
        started = now_ns()
        await self._in_journal(self._journal.write_ahead, orders)
        record_span(Operation.JOURNAL_WRITE, started, now_ns(), cycle, len(orders))
        with span(Operation.ORDER_RELEASE, cycle, len(orders)):
            for order in orders:
                if self.ledger.mark_sending(order.terms.cl_ord_id, now_ns()):
                    self._to_venue(order.terms, cycle)

    async def _confirmation_of(self, order: PlannedOrder) -> None:
        """Wait for the venue's first word about an order (sequential release only)."""
        while not self.ledger.orders[order.terms.cl_ord_id].confirmed:
            self._answered.clear()
            await self._answered.wait()

    async def _lapse(self, orders: Sequence[PlannedOrder], code: DenyCode) -> None:
        for order in orders:
            if order.terms.cl_ord_id not in self.ledger.orders:
                self.ledger.open(order)
            self.ledger.mark_lapsed(order.terms.cl_ord_id, code)
        for event in await self._in_journal(self._journal.lapse, orders, code):
            self.voter.publish(event)

    def _to_venue(self, message: Message, cycle: int) -> bool:
        return self.voter.endpoint.send(self._venue, message, channel=Channel.ORDERS, trace=cycle)

    # --- the venue's word --------------------------------------------------------------------------------------------

    def message(self, sender: Agent, message: Message, trace: int) -> None:
        if isinstance(message, ExecutionReport) and sender.role is Role.VENUE:
            self._reports.append(message)
            if not self._reports_scheduled:
                self._reports_scheduled = True
                self.voter.spawn(self._take_reports(), "reports")
        elif isinstance(message, OrderEventsRequest):
            self.voter.spawn(self._repeat_events(sender.index, message.from_sequence), "events")
        elif isinstance(message, MarketAdvance) and sender.role is Role.TRADER:
            self._outbox.append(message)
            self._work.set()
        else:
            super().message(sender, message, trace)

    async def _take_reports(self) -> None:
        """Everything that the venue said since the last turn: apply, journal in one transaction, tell the swarm."""
        while self._reports:
            reports, self._reports = self._reports, []
            applied: list[Applied] = []
            for report in reports:
                for effect in self.ledger.on_report(report):
                    self._perform(effect, applied)
            if applied:
                started = now_ns()
                events = await self._in_journal(self._journal.append_reports, applied)
                cycle = applied[-1].order.planned.cycle
                record_span(Operation.REPORT_JOURNAL, started, now_ns(), cycle, len(applied))
                for event in events:
                    self.voter.publish(event)
            self._answered.set()
        self._reports_scheduled = False

    def _perform(self, effect: object, applied: list[Applied]) -> None:
        if isinstance(effect, Applied):
            applied.append(effect)
        elif isinstance(effect, QueryNeeded):
            self._to_venue(OrderStatusRequest(effect.cl_ord_id), 0)
        elif isinstance(effect, AbsentAtVenue):
            self.voter.spawn(self._absent(effect.cl_ord_id), "absent")
        elif isinstance(effect, Alarm):
            self.alarms.append(f"{effect.kind.value}:{effect.order.cl_ord_id}")
            self.voter.log.error("order_alarm", alarm=effect.kind.value, order=effect.order.cl_ord_id)

    async def _absent(self, cl_ord_id: str) -> None:
        """The venue has proof that it never got the order: send it again under its id, or let it lapse if too late."""
        order = self.ledger.orders[cl_ord_id].planned
        record = self.voter.replica.frames.get(order.decision_digest)
        late = record is None or wall_ns() >= record.frame.expires_at_ns
        if late or not PAPER_CAPABILITIES.may_resend:
            await self._lapse([order], DenyCode.GATE_EXPIRED)
            return
        await self._in_journal(self._journal.write_resend, [cl_ord_id])
        if self.ledger.mark_sending(cl_ord_id, now_ns()):
            self._to_venue(order.terms, order.cycle)

    async def _repeat_events(self, peer: int, from_sequence: int) -> None:
        sequence = from_sequence
        while events := await self._in_journal(self._journal.events_from, sequence, EVENTS_PER_READ):
            for event in events:
                self.voter.endpoint.send(peer, event, channel=Channel.ORDERS, trace=event.cycle)
            sequence = events[-1].sequence + 1
        head = OrderEventsHead(self.voter.own, self._journal.next_sequence)
        self.voter.endpoint.send(peer, head, channel=Channel.ORDERS)

    # --- recovery and watching ---------------------------------------------------------------------------------------

    async def _reconcile(self) -> None:
        """After a start: learn from the venue what became of every order that may be alive, before sending anything."""
        async with asyncio.timeout(RECONCILE_TIMEOUT_S * 3):
            await self._venue_connected.wait()
        pending = set(self._must_query)
        deadline = self._loop.time() + RECONCILE_TIMEOUT_S
        while pending:
            for cl_ord_id in pending:
                self._to_venue(OrderStatusRequest(cl_ord_id), 0)
            self._answered.clear()
            try:
                await asyncio.wait_for(self._answered.wait(), 1.0)
            except TimeoutError:
                if self._loop.time() > deadline:
                    raise Unavailable(f"venue does not answer about {len(pending)} orders; is it running?") from None
            unknown = set(self.ledger.unresolved())
            pending = {cl_ord_id for cl_ord_id in pending if cl_ord_id in unknown}
        self.voter.log.info("reconciled", queried=len(self._must_query))
        self._reconciled.set()

    async def _watch(self) -> None:
        """Name what is overdue UNKNOWN and ask the venue; try deferred frames again."""
        while True:
            await asyncio.sleep(WATCH_INTERVAL_S)
            self._retry_deferred()
            for cl_ord_id in self.ledger.overdue(now_ns(), ANSWER_TIMEOUT_NS):
                self.ledger.mark_unknown(cl_ord_id)
                self.voter.log.warning("order_unknown", order=cl_ord_id)
            for cl_ord_id in self.ledger.unresolved():
                if self.ledger.orders[cl_ord_id].state is OrderState.UNKNOWN:
                    self._to_venue(OrderStatusRequest(cl_ord_id), 0)

    def status(self, detail: bool) -> dict[str, Any]:
        counts = self.ledger.counts()
        picture: dict[str, Any] = {
            "orders": {name: getattr(counts, name) for name in counts.__slots__ if name != "ignored"},
            "orders_outstanding": counts.working + counts.unknown + len(self._outbox) + len(self._deferred),
            "reconciled": self._reconciled.is_set(),
            "gate": self.gate.status(),
        }
        if detail:
            picture["alarms"] = self.alarms[-20:]
            picture["reports_ignored"] = counts.ignored
        return picture
