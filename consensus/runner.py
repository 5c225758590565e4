"""The one shell around a machine: it sends, it makes durable, it answers ``persisted``, and nothing else.

The machine is a whole ``Replica`` in an agent, and may be a bare ``Raft`` under an application of one's own.

Everything that arrives within one turn of the event loop is stepped before the machine is drained, and everything that
is waiting when the disk becomes free goes into one transaction: batching at both boundaries falls out of the drain.

Callbacks may call ``step`` and ``touch``: the machine is never in the middle of a call when they run, and what they
cause is drained after the effects that are being performed, so that the order of records and messages holds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final, Generic

from consensus.callbacks import Callbacks, Drained, Drives, Pending
from consensus.disk import Commits, DiskThread
from consensus.replica import PBFT_MESSAGES
from consensus.storage import KeyValue
from profiling.clock import now_ns
from profiling.span import span
from profiling.stages import Operation
from protocol.errors import Unavailable
from protocol.messages import Message

TICK_NS: Final = 10_000_000
"""The machines' clock resolution: a fifth of the default heartbeat."""

SWITCH_INTERVAL_S: Final = 0.0005
"""For ``sys.setswitchinterval`` in a process with a runner. The store's thread needs the interpreter a few times in
each commit; while the loop computes without a pause it would wait Python's usual 5 ms for it every time."""


class Runner(Generic[Drained]):
    """Drives one machine on the running event loop. ``start`` before anything else, ``close`` at the end."""

    # Invariant: what was taken from the machine is finished in the order in which it was taken.

    def __init__(self, machine: Drives[Drained], storage: Commits, callbacks: Callbacks[Drained]) -> None:
        self.machine = machine
        self._storage = storage
        self._callbacks = callbacks
        self._queue: deque[Pending[Drained]] = deque()
        self._disk: DiskThread | None = None
        self._writing = False
        self._sent = False
        """Something was sent in this drain, and waits for the end of the loop's turn."""
        self._scheduled = False
        self._closed = False
        self._failure: BaseException | None = None
        self._trace = 0
        self._ticker: asyncio.TimerHandle | None = None
        self.commits = 0
        self.records_written = 0

    def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._disk = DiskThread(self._storage, self._loop)
        self._last_write = asyncio.Event()
        """The write that was in flight at the end has ended."""
        self._tick()

    async def close(self) -> None:
        """Stop, and wait for the write in flight, so that the store can be closed behind us. What waits behind that
        write is dropped: none of it has left. May be called again."""
        self._stop()
        if self._disk is not None:
            if self._writing:
                await self._last_write.wait()
            self._disk.close()
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
                self.machine.step(sender, message, now_ns())
        except Exception as error:
            self._fail(error)
        self.touch()

    def peer_connected(self, peer: int) -> None:
        """A new connection to another voter stands."""
        if not self._closed:
            self.machine.peer_connected(peer, now_ns())
            self.touch()

    async def persist(self, values: Sequence[KeyValue]) -> None:
        """Make the agent's own values durable, in the same transactions as everything else.

        Raises what the storage raised, or ``Unavailable`` when the agent stops first.
        """
        if self._closed:
            raise self._failure or Unavailable("the agent is stopping")
        done = self._loop.create_future()
        self._queue.append(Pending(values, None, 0, done))
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
            self.machine.tick(now_ns())
        except Exception as error:
            self._fail(error)
        self.touch()

    def _drain(self) -> None:
        """Take everything, then write it at once: a turn of the loop is one transaction at most."""
        self._scheduled = False
        try:
            while not self._closed:
                effects = self.machine.take_ready()
                if effects.empty:
                    break
                self._perform(effects)
        except Exception as error:
            self._fail(error)
        if self._sent:
            # The disk's thread would take the interpreter from the transport, which sends at the end of this turn.
            self._sent = False
            self._loop.call_soon(self._write)
        else:
            self._write()

    def _perform(self, effects: Drained) -> None:
        """What may happen at once; what depends on the disk joins the queue."""
        self._queue.append(Pending(effects.records, effects, self._trace))
        for outgoing in effects.send_now:
            self._callbacks.send(outgoing, self._trace)
            self._sent = True
        self._callbacks.perform(effects)
        self._finish_unwritten()

    def _finish_unwritten(self) -> None:
        """Work without records waits only for the writes before it."""
        while self._queue and not self._writing and not self._closed and not self._queue[0].records:
            self._finish(self._queue.popleft())

    def _finish(self, pending: Pending[Drained]) -> None:
        """What had to wait for the disk may leave."""
        if pending.effects is not None:
            for outgoing in pending.effects.send_after_sync:
                self._callbacks.send(outgoing, pending.trace)
            self.machine.persisted(pending.effects)
        if pending.done is not None and not pending.done.done():
            pending.done.set_result(None)

    # --- the disk ----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        """When the disk is free, everything that waits goes into one transaction."""
        try:
            self._finish_unwritten()
        except Exception as error:
            self._fail(error)
        if self._writing or not self._queue or self._closed or self._disk is None:
            return
        self._writing = True
        batch = list(self._queue)
        self._queue.clear()
        records = [record for pending in batch for record in pending.records]
        self._disk.commit(records, batch[-1].trace, lambda error: self._written(batch, len(records), error))

    def _written(self, batch: list[Pending[Drained]], record_count: int, error: BaseException | None) -> None:
        self._writing = False
        if self._closed:
            self._last_write.set()
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
        except Exception as failure:
            self._fail(failure)
        self._write()
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
