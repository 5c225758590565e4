"""The one shell around a replica: it sends, it makes durable, it answers ``persisted``, and nothing else.

Everything that arrives within one turn of the event loop is stepped before the machine is drained, and everything that
is waiting when the disk becomes free goes into one transaction: batching at both boundaries falls out of the drain.

Callbacks may call ``step`` and ``touch``: the machine is never in the middle of a call when they run, and what they
cause is drained after the effects that are being performed, so that the order of records and messages holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Protocol

from consensus.effects import Effects, FrameRecord, FrameSettled
from consensus.machine import Outgoing, Record
from consensus.replica import PBFT_MESSAGES, Replica
from consensus.storage import KeyValue
from profiling.clock import now_ns
from profiling.span import record as record_span
from profiling.span import span
from profiling.stages import Operation
from protocol.errors import Unavailable
from protocol.messages import Message, SliceGrant

TICK_NS: Final = 10_000_000
"""The machines' clock resolution: a fifth of the default heartbeat."""


class Commits(Protocol):
    """What the runner needs of ``consensus.storage.Storage``."""

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        """Make them durable in their order, all or none; blocks. An error is final."""


@dataclass(frozen=True, slots=True)
class Callbacks:
    """What the agent does with the replica's effects. None of them may block."""

    send: Callable[[Outgoing, int], None]
    """Hand a message to the transport, with the trace it belongs to."""
    verify: Callable[[FrameRecord], None]
    settled: Callable[[FrameSettled], None]
    coordinated: Callable[[FrameRecord], None]
    granted: Callable[[SliceGrant], None]
    failed: Callable[[BaseException], None]
    """The disk refused, or our own code broke: the process must stop, loudly. Called once; nothing is sent after."""


@dataclass(slots=True)
class _Pending:
    """Work for the disk: a drain of the machine, or values of the agent's own with somebody waiting."""

    records: Sequence[Record | KeyValue]
    effects: Effects | None
    trace: int
    done: asyncio.Future[None] | None = None


class Runner:
    """Drives one ``Replica`` on the running event loop. ``start`` before anything else, ``close`` at the end."""

    # Invariant: what was taken from the machine is finished in the order in which it was taken.

    def __init__(self, replica: Replica, storage: Commits, callbacks: Callbacks) -> None:
        self.replica = replica
        self._storage = storage
        self._callbacks = callbacks
        self._queue: deque[_Pending] = deque()
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="storage")
        self._writing = False
        self._scheduled = False
        self._closed = False
        self._failure: BaseException | None = None
        self._trace = 0
        self._ticker: asyncio.TimerHandle | None = None
        self.commits = 0
        self.records_written = 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.replica.restored(now_ns())
        self._tick()

    async def close(self) -> None:
        """Stop, and wait for the write in flight, so that the store can be closed behind us. What waits behind that
        write is dropped: none of it has left. May be called again."""
        self._stop()
        if self._writing:
            await asyncio.get_running_loop().run_in_executor(self._disk, _nothing)
        self._disk.shutdown(wait=False)
        self._drop(self._failure or Unavailable("the agent is stopping"))

    # --- inputs ------------------------------------------------------------------------------------------------------

    def step(self, sender: int, message: Message, trace: int) -> None:
        """A message of a voter, or our own submission (``sender`` is then our own position)."""
        if self._closed:
            return
        self._trace = trace or self._trace
        operation = Operation.PBFT_STEP if isinstance(message, PBFT_MESSAGES) else Operation.RAFT_STEP
        try:
            with span(operation, trace):
                self.replica.step(sender, message, now_ns())
        except Exception as error:
            self._fail(error)
        self.touch()

    def peer_connected(self, peer: int) -> None:
        """A new connection to another voter stands."""
        if not self._closed:
            self.replica.peer_connected(peer, now_ns())
            self.touch()

    async def persist(self, values: Sequence[KeyValue]) -> None:
        """Make the agent's own values durable, in the same transactions as everything else.

        Raises what the storage raised, or ``Unavailable`` when the agent stops first.
        """
        if self._closed:
            raise self._failure or Unavailable("the agent is stopping")
        done = self._loop.create_future()
        self._queue.append(_Pending(values, None, 0, done))
        self._write()
        await done

    def touch(self) -> None:
        """Drain at the end of this turn of the loop, once however often it is asked for."""
        if not self._scheduled and not self._closed:
            self._scheduled = True
            self._loop.call_soon(self._drain)

    # --- draining ----------------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        if self._closed:
            return
        self._ticker = self._loop.call_later(TICK_NS / 1e9, self._tick)
        try:
            self.replica.tick(now_ns())
        except Exception as error:
            self._fail(error)
        self.touch()

    def _drain(self) -> None:
        """Take everything, then write it at once: a turn of the loop is one transaction at most."""
        self._scheduled = False
        try:
            while not self._closed:
                effects = self.replica.take_ready()
                if effects.empty:
                    break
                self._perform(effects)
            self._write()
        except Exception as error:
            self._fail(error)

    def _perform(self, effects: Effects) -> None:
        """What may happen at once; what depends on the disk joins the queue."""
        self._queue.append(_Pending(effects.ready.records, effects, self._trace))
        for outgoing in effects.ready.send_now:
            self._callbacks.send(outgoing, self._trace)
        for frame in effects.verify:
            self._callbacks.verify(frame)
        for grant in effects.grants:
            self._callbacks.granted(grant)
        for frame in effects.coordinated:
            self._callbacks.coordinated(frame)
        for settled in effects.settled:
            self._callbacks.settled(settled)
        self._finish_unwritten()

    def _finish_unwritten(self) -> None:
        """Work without records waits only for the writes before it."""
        while self._queue and not self._writing and not self._closed and not self._queue[0].records:
            self._finish(self._queue.popleft())

    def _finish(self, pending: _Pending) -> None:
        """What had to wait for the disk may leave."""
        if pending.effects is not None:
            for outgoing in pending.effects.ready.send_after_sync:
                self._callbacks.send(outgoing, pending.trace)
            self.replica.persisted(pending.effects)
        if pending.done is not None and not pending.done.done():
            pending.done.set_result(None)

    # --- the disk ----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """When the disk is free, everything that waits goes into one transaction."""
        self._finish_unwritten()
        if self._writing or not self._queue or self._closed:
            return
        self._writing = True
        batch = list(self._queue)
        self._queue.clear()
        records = [record for pending in batch for record in pending.records]
        future = self._loop.run_in_executor(self._disk, self._commit, records, batch[-1].trace)
        future.add_done_callback(lambda done: self._written(batch, len(records), done))

    def _commit(self, records: list[Record | KeyValue], trace: int) -> None:
        started = now_ns()
        self._storage.commit(records)
        record_span(Operation.LOG_PERSIST, started, now_ns(), trace, len(records))

    def _written(self, batch: list[_Pending], record_count: int, done: asyncio.Future[None]) -> None:
        self._writing = False
        error = done.exception()
        if error is not None or self._failure is not None:
            self._queue.extendleft(reversed(batch))
            self._fail(self._failure or error or Unavailable("the agent is stopping"))
            return
        self.commits += 1
        self.records_written += record_count
        try:
            for pending in batch:
                if self._failure is None:
                    self._finish(pending)
            self._write()
        except Exception as failure:
            self._fail(failure)
        self.touch()

    # --- the end -----------------------------------------------------------------------------------------------------

    def _fail(self, error: BaseException) -> None:
        """Nothing more is stepped, written or sent; whoever waits is told, the agent once."""
        self._stop()
        first = self._failure is None
        self._failure = self._failure or error
        self._drop(self._failure)
        if first:
            self._callbacks.failed(error)

    def _stop(self) -> None:
        self._closed = True
        if self._ticker is not None:
            self._ticker.cancel()

    def _drop(self, error: BaseException) -> None:
        """What waits for the disk will not be written."""
        dropped, self._queue = self._queue, deque()
        for pending in dropped:
            if pending.done is not None and not pending.done.done():
                pending.done.set_exception(error)


def _nothing() -> None:
    """Takes its turn behind the write in flight."""
