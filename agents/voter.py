"""The body that trader, risk and executor share: a process that votes.

It wires the pure machines to this process's socket, disk, clock and worker thread, and nothing more. What a role adds
comes in as a ``Role``: hooks for its own messages, its own checks before a vote, and its own work.
"""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, Final

import numpy as np

from agents.certificates import Certificates
from agents.clock import wall_ns
from agents.order_view import OrderView
from agents.public_feed import PublicFeed
from agents.setup import Setup
from agents.stress import StressMatcher
from agents.tally import DecisionTally
from agents.verification import RoutePolicy, common_denials, debits_of, deny_all, merge_denials, route_facts
from agents.voter_status import voter_status
from consensus.assembly import ReplicaParts, build_replica
from consensus.callbacks import Callbacks
from consensus.effects import Effects, FrameRecord, FrameSettled
from consensus.machine import BROADCAST, Outgoing
from consensus.replica import REPLICA_MESSAGES
from consensus.route import effective_price
from consensus.runner import Runner
from consensus.storage import Storage
from dtw.warmup import warmup
from orders.states import OrderState
from profiling.clock import now_ns
from profiling.span import frame_key, mark, span
from profiling.stages import Operation
from protocol.batch import Channel
from protocol.codes import DenyCode, Path
from protocol.errors import RunFailure
from protocol.messages import (
    Denial,
    ExecutionReport,
    Message,
    OrderEvent,
    OrderEventsHead,
    OrderEventsRequest,
    SliceGrant,
    StatusReply,
    StatusRequest,
    Submit,
)
from protocol.peer import Peer
from protocol.roster import Agent, Role

SUPERSEDED: Final = "superseded"
"""What peers say to the older one of two processes with one id."""
HAND_OVER_S: Final = 0.2
"""How long a leader that stops waits for its successor."""
EVENTS_RETRY_S: Final = 0.5
"""How often a gap in an executor's event stream is asked about."""


class VoterRole:
    """What a role adds to a voter; the defaults add nothing. Methods run on the event loop and must not block."""

    def attach(self, voter: Voter) -> None:
        """Build everything that the hooks need; the voter's machines exist, nothing runs yet."""
        self.voter = voter

    async def start(self) -> None:
        """Begin the role's own work; the machines run."""

    async def close(self) -> None:
        """Before the machines stop."""

    def inspect(self, record: FrameRecord) -> tuple[Denial, ...]:
        """The role's own denials by what it knows of orders and positions: on the event loop, so it must be quick."""
        return ()

    def repeat_claims(self, record: FrameRecord) -> tuple[Denial, ...]:
        """Denials by recomputing what the trader claims: in the worker thread, touching nothing that the loop changes.

        Called only where ``repeats_claims`` is true."""
        return ()

    repeats_claims: bool = False

    def settled(self, settled: FrameSettled) -> None:
        """Some intents of a frame have their outcome."""

    def coordinated(self, record: FrameRecord) -> None:
        """The separate coordination round of a frame is over."""

    def granted(self, grant: SliceGrant) -> None:
        """The spine granted a slice."""

    def event(self, event: OrderEvent) -> None:
        """An executor's event took effect in ``voter.orders``."""

    def message(self, sender: Agent, message: Message, trace: int) -> None:
        """A message that is nobody else's."""
        self.voter.log.warning("message_ignored", sender=sender.id, message=type(message).__name__)

    def peer_changed(self, peer: Agent, connected: bool) -> None:
        """A connection came or went."""

    def status(self, detail: bool) -> dict[str, Any]:
        return {}


class Voter:
    """One voting agent. ``run`` lasts until ``stop`` is called; a failure of the disk or of our own code ends it."""

    def __init__(self, setup: Setup, role: VoterRole) -> None:
        self.setup = setup
        self.role = role
        self.own = setup.agent.index
        self.cluster_id = setup.roster.cluster_id
        self.data = setup.data
        self.log = setup.log
        self.state = "starting"
        self.fault: BaseException | None = None
        self.policy = RoutePolicy.of(setup.config.file, setup.switches.consensus)
        self.stress = StressMatcher(setup.data, setup.config.file.consensus.stress_distance)
        self.orders = OrderView(setup.config.file.venue.fee_bps)
        self.tally = DecisionTally()
        self.worker = ThreadPoolExecutor(1, thread_name_prefix="dtw")
        self.storage = Storage(setup.data_dir, self.cluster_id, setup.agent.id, setup.store_witness())
        self.stored = self.storage.load()
        setup.open_profiler()
        warmed = warmup(dtypes=(np.float32,))  # what agents search in; the rest is compiled if it is ever used
        self.log.info("kernels_ready", seconds=round(warmed.seconds, 3), compiled=warmed.compiled)
        parts: ReplicaParts = build_replica(setup.replica_settings(), self.stored)
        self.replica = parts.replica
        self.budget = parts.budget
        self.spine_quorum = parts.spine_quorum
        callbacks = Callbacks(self._send, self._perform, self.fail)
        self.runner = Runner(self.replica, self.storage, callbacks)
        self.endpoint = setup.endpoint(self._on_message, self._on_peer_change)
        self.feed = PublicFeed(setup, self.status)
        self._certificates = Certificates(setup, self.endpoint, self.feed)
        self._stopped = asyncio.Event()
        self._awaiting_grant: list[FrameRecord] = []
        self._events_timer: asyncio.TimerHandle | None = None
        self._background: set[asyncio.Task[Any]] = set()
        role.attach(self)

    # --- life --------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Start everything, serve until stopped, close everything. Raises what made the agent fail."""
        try:
            await self.endpoint.start()
            await self.feed.start()
            self._certificates.start()
            self.replica.restored(now_ns())
            self.runner.start()
            self.state = "connecting"
            self._ask_for_events()
            await self.role.start()
            if self.state == "connecting":
                self.state = "ready"
            await self._stopped.wait()
            await self._hand_over()
        finally:
            await self._close()
        if self.fault is not None:
            raise self.fault

    async def _hand_over(self) -> None:
        """A leader that stops in good order leaves no gap: another stands at once, not after an election timeout."""
        if self.fault is not None or self.replica.hand_over(now_ns()) is None:
            return
        self.runner.touch()
        with suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S):
                while self.replica.raft.leader == self.own:  # noqa: ASYNC110  # the machine knows no event
                    await asyncio.sleep(0.005)

    def reload(self) -> None:
        """New certificates are there."""
        self._certificates.reload()

    def stop(self) -> None:
        self._stopped.set()

    def spawn(self, work: Any, name: str) -> asyncio.Task[Any]:
        """Run a coroutine of a role; its failure is the agent's failure, never a line in a log."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._background.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[Any]) -> None:
        self._background.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.fail(error)

    async def _close(self) -> None:
        if self._events_timer is not None:
            self._events_timer.cancel()
        for task in list(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        await self.role.close()
        await self.runner.close()
        self._certificates.stop()
        self.feed.stop()
        await self.endpoint.close()
        self.worker.shutdown(wait=False, cancel_futures=True)
        self.storage.close()

    def fail(self, error: BaseException) -> None:
        """Stop loudly; a replica that cannot keep its promises durable must not go on making them."""
        if self.fault is None:
            self.fault = error
            self.log.error("agent_failed", error=f"{type(error).__name__}: {error}")
        self.stop()

    # --- submitting --------------------------------------------------------------------------------------------------

    def submit(self, submit: Submit, trace: int) -> None:
        """Hand a command to every voter, ourselves included."""
        with span(Operation.FRAME_BROADCAST, trace):
            self.endpoint.broadcast(submit, channel=Channel.CONSENSUS, trace=trace)
        self.runner.step(self.own, submit, trace)

    def publish(self, event: OrderEvent) -> None:
        """An executor tells every voter, itself included, about an order."""
        self.endpoint.broadcast(event, channel=Channel.ORDERS, trace=event.cycle)
        self._on_order_event(event)

    # --- the replica's effects ---------------------------------------------------------------------------------------

    def _send(self, outgoing: Outgoing, trace: int) -> None:
        if outgoing.destination == BROADCAST:
            self.endpoint.broadcast(outgoing.message, channel=Channel.CONSENSUS, trace=trace)
        else:
            self.endpoint.send(outgoing.destination, outgoing.message, channel=Channel.CONSENSUS, trace=trace)

    def _perform(self, effects: Effects) -> None:
        for record in effects.verify:
            self._verify(record)
        for grant in effects.grants:
            self._granted(grant)
        for record in effects.coordinated:
            self.role.coordinated(record)
        for settled in effects.settled:
            self._settled(settled)

    def _verify(self, record: FrameRecord) -> None:
        frame = record.frame
        if frame.path == Path.LANE and self._grant_is_coming(record):
            self._awaiting_grant.append(record)
            return None
        started = now_ns()
        facts = route_facts(self.policy, self.budget, frame.slice_id, self.data, self.stress, frame.market_index)
        denials = common_denials(frame, self.policy, self.budget, lambda: facts, wall_ns())
        denials = merge_denials(denials, self.role.inspect(record))
        if not self.role.repeats_claims or len(denials) == len(frame.intents):
            return self._verdict(record, denials, started)
        future = asyncio.get_running_loop().run_in_executor(self.worker, self.role.repeat_claims, record)
        future.add_done_callback(lambda done: self._checked(record, denials, started, done))
        return None

    def _grant_is_coming(self, record: FrameRecord) -> bool:
        """The frame names the slice's next version: the spine may be a moment behind the lane here."""
        current = self.budget.current(record.frame.slice_id)
        following = 1 if current is None else current.version + 1
        return record.frame.slice_version == following and wall_ns() < record.frame.expires_at_ns

    def _checked(
        self, record: FrameRecord, denials: tuple[Denial, ...], started: int, done: asyncio.Future[tuple[Denial, ...]]
    ) -> None:
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self.fail(error)
            return
        self._verdict(record, merge_denials(denials, done.result()), started)

    def _verdict(self, record: FrameRecord, denials: tuple[Denial, ...], started: int) -> None:
        debits = debits_of(record.frame, self.policy)
        self.replica.verdict(record.digest, denials, debits, now_ns())
        mark(Operation.FRAME_VERIFIED, started, record.frame.cycle, frame_key(record.digest))
        self.runner.touch()

    def _settled(self, settled: FrameSettled) -> None:
        frame = settled.record.frame
        for position, code in enumerate(settled.codes):
            if code is None:
                continue
            intent = frame.intents[position]
            self.tally.settle(frame.trader, intent.sequence, frame.path, code)
            if code == DenyCode.APPROVED:
                price = max(effective_price(intent, self.policy.collar_bps), 1)
                self.orders.commit(frame.trader, intent, frame.cycle, price)
        with span(Operation.DECISION_APPLY, frame.cycle):
            self.role.settled(settled)

    def _granted(self, grant: SliceGrant) -> None:
        self.log.info("slice_granted", slice=grant.slice_id, version=grant.version, limit=grant.notional_limit)
        waiting, self._awaiting_grant = self._awaiting_grant, []
        for record in waiting:
            self._verify(record)
        self.role.granted(grant)

    def expire_waiting(self) -> None:
        """Frames that waited for a grant which did not come in time are denied."""
        waiting, self._awaiting_grant = self._awaiting_grant, []
        for record in waiting:
            if wall_ns() < record.frame.expires_at_ns:
                self._awaiting_grant.append(record)
            else:
                self._verdict(record, deny_all(record.frame, DenyCode.SLICE_UNKNOWN), now_ns())

    # --- messages ----------------------------------------------------------------------------------------------------

    def _on_message(self, peer: Peer, trace: int, message: Message) -> None:
        if isinstance(message, OrderEvent):
            self._on_order_event(message) if message.executor == peer.agent.index else self._forged(peer, message)
        elif isinstance(message, OrderEventsHead):
            self.orders.on_head(message)
        elif isinstance(message, StatusRequest):
            self._answer_status(peer, message)
        elif peer.agent.votes and not isinstance(message, (ExecutionReport, OrderEventsRequest)):
            self._on_voter_message(peer, message, trace)
        else:
            self.role.message(peer.agent, message, trace)

    def _on_voter_message(self, peer: Peer, message: Message, trace: int) -> None:
        if type(message) in REPLICA_MESSAGES:
            self.runner.step(peer.agent.index, message, trace)
        else:
            self.role.message(peer.agent, message, trace)

    def _forged(self, peer: Peer, message: OrderEvent) -> None:
        self.orders.ignored["event_of_another_executor"] += 1
        self.log.warning("event_forged", sender=peer.agent.id, executor=message.executor)

    def _on_order_event(self, event: OrderEvent) -> None:
        with span(Operation.REPORT_APPLY, event.cycle):
            applied = self.orders.on_event(event)
        for each in applied:
            if each.state != OrderState.LAPSED:
                self.tally.released(each.trader, each.intent)
            with span(Operation.POSITION_UPDATE, each.cycle):
                self.role.event(each)

    def _answer_status(self, peer: Peer, request: StatusRequest) -> None:
        body = json.dumps(self.status(detail=bool(request.detail))).encode()
        peer.send(StatusReply(request.nonce, body), channel=Channel.CONTROL)

    def _on_peer_change(self, peer: Agent, connected: bool) -> None:
        self.log.info("peer_connected" if connected else "peer_lost", peer=peer.id)
        if connected and peer.votes:
            self.runner.peer_connected(peer.index)
        if connected and peer.role is Role.EXECUTOR:
            self._request_events(peer.index)
        self.role.peer_changed(peer, connected)

    # --- the executors' event streams --------------------------------------------------------------------------------

    def _ask_for_events(self) -> None:
        """Close gaps, and notice an executor whose last event was lost with nothing after it."""
        self._events_timer = asyncio.get_running_loop().call_later(EVENTS_RETRY_S, self._ask_for_events)
        self.expire_waiting()
        self._stop_if_superseded()
        for executor in self.setup.config.with_role(Role.EXECUTOR):
            if executor.index == self.own or executor.index not in self.endpoint.connected:
                continue
            if self.orders.has_gap(executor.index) or not self.orders.caught_up(executor.index):
                self._request_events(executor.index)

    def _stop_if_superseded(self) -> None:
        """A newer process has our id: two of one must not both sign, and peers listen to the newer one."""
        if any(self.endpoint.last_refusal(agent.index) == SUPERSEDED for agent in self.setup.roster.voters):
            me = self.setup.agent.id
            self.fail(RunFailure(f"another process runs as '{me}'; stop one of the two, or give it its own id"))

    def _request_events(self, executor: int) -> None:
        request = OrderEventsRequest(self.orders.next_sequence(executor))
        self.endpoint.send(executor, request, channel=Channel.ORDERS)

    @property
    def voters_connected(self) -> int:
        """Voters that we can talk to, ourselves included."""
        others = {agent.index for agent in self.setup.roster.voters} - {self.own}
        return len(others & self.endpoint.connected) + 1

    def status(self, detail: bool) -> dict[str, Any]:
        """Answered on the event loop, so that a wedged agent does not look alive."""
        return voter_status(self, detail)
