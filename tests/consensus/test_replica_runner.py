"""The shell around a replica: order, group commit, and what happens when the disk refuses."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from consensus.callbacks import Callbacks
from consensus.effects import Effects
from consensus.machine import HardState, Outgoing, Record
from consensus.runner import Runner
from consensus.storage import KeyValue, StorageFailed
from protocol.errors import Unavailable
from protocol.messages import StatusRequest


class SlowDisk:
    """Commits wait at a gate that the test opens; a commit that is told to fail does."""

    def __init__(self) -> None:
        self.gate = threading.Semaphore(0)
        self.batches: list[list[Record | KeyValue]] = []
        self.started = threading.Semaphore(0)
        self.fail = False

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        self.started.release()
        assert self.gate.acquire(timeout=5)
        if self.fail:
            raise StorageFailed("no space left")
        self.batches.append(list(records))


class ScriptedReplica:
    """Hands out prepared effects, one a drain, and remembers what was persisted."""

    def __init__(self) -> None:
        self.script: deque[Effects] = deque()
        self.persisted_effects: list[Effects] = []
        self.steps: list[int] = []
        self.ticks = 0
        self.broken: Exception | None = None

    def step(self, sender: int, message: Any, now_ns: int) -> None:
        if self.broken is not None:
            raise self.broken
        self.steps.append(sender)

    def peer_connected(self, peer: int, now_ns: int) -> None:
        pass

    def tick(self, now_ns: int) -> None:
        self.ticks += 1

    def take_ready(self) -> Effects:
        return self.script.popleft() if self.script else Effects()

    def persisted(self, effects: Effects) -> None:
        self.persisted_effects.append(effects)


def drained(number: int, record: bool = True) -> Effects:
    """Effects with one message that may leave at once and one that may not."""
    return Effects(
        records=[HardState(number, 0)] if record else [],
        send_now=[Outgoing(0, StatusRequest(number, 0))],
        send_after_sync=[Outgoing(1, StatusRequest(number, 1))],
    )


class Bench:
    def __init__(self) -> None:
        self.disk = SlowDisk()
        self.replica = ScriptedReplica()
        self.sent: list[tuple[int, int]] = []
        self.failures: list[BaseException] = []
        self.perform: Callable[[Effects], None] = lambda _: None
        callbacks = Callbacks(self._send, self._perform, self.failures.append)
        self.runner = Runner(self.replica, self.disk, callbacks)

    def _perform(self, effects: Effects) -> None:
        self.perform(effects)

    def _send(self, outgoing: Outgoing, trace: int) -> None:
        assert isinstance(outgoing.message, StatusRequest)
        self.sent.append((outgoing.destination, outgoing.message.nonce))

    def drain(self, *effects: Effects) -> None:
        self.replica.script.extend(effects)
        self.runner.touch()

    async def until(self, condition: Any) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110  # the thread of the disk knows no event
                await asyncio.sleep(0.001)

    async def writing(self) -> None:
        await self.until(lambda: self.disk.started.acquire(blocking=False))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    made.runner.start()
    yield made
    made.disk.gate.release(100)
    await made.runner.close()


async def test_promises_wait_for_the_disk(bench: Bench) -> None:
    first = drained(1)
    bench.drain(first)
    await bench.writing()
    assert bench.sent == [(0, 1)] and not bench.replica.persisted_effects
    bench.disk.gate.release()
    await bench.until(lambda: bench.replica.persisted_effects)
    assert bench.sent == [(0, 1), (1, 1)]
    assert bench.replica.persisted_effects == [first]


async def test_what_waits_goes_into_one_transaction_in_its_order(bench: Bench) -> None:
    bench.drain(drained(1))
    await bench.writing()
    later = [drained(2), drained(3, record=False), drained(4)]
    for effects in later:
        bench.drain(effects)
        await asyncio.sleep(0)
    persisting = asyncio.create_task(bench.runner.persist([KeyValue("progress", b"7")]))
    await asyncio.sleep(0)
    assert [nonce for to, nonce in bench.sent if to == 1] == [], "even what has no records waits for what was before it"
    bench.disk.gate.release(2)
    await persisting
    assert bench.disk.batches == [[HardState(1, 0)], [HardState(2, 0), HardState(4, 0), KeyValue("progress", b"7")]]
    assert [nonce for to, nonce in bench.sent if to == 1] == [1, 2, 3, 4]
    assert (bench.runner.commits, bench.runner.records_written) == (2, 5 - 1)


async def test_one_turn_of_the_loop_is_one_transaction(bench: Bench) -> None:
    bench.drain(drained(1), drained(2), drained(3))
    bench.disk.gate.release()
    await bench.until(lambda: len(bench.replica.persisted_effects) == 3)
    assert [len(batch) for batch in bench.disk.batches] == [3]


async def test_without_records_nothing_waits_for_a_disk_that_is_free(bench: Bench) -> None:
    bench.drain(drained(1, record=False))
    await asyncio.sleep(0)
    assert bench.sent == [(0, 1), (1, 1)] and bench.runner.commits == 0


async def test_a_failed_write_ends_everything_once(bench: Bench) -> None:
    bench.disk.fail = True
    bench.drain(drained(1))
    await bench.writing()
    persisting = asyncio.create_task(bench.runner.persist([KeyValue("progress", b"7")]))
    bench.drain(drained(2))
    await asyncio.sleep(0)
    before = list(bench.sent)
    bench.disk.gate.release(5)
    with pytest.raises(StorageFailed, match="no space left"):
        await persisting
    ticks = bench.replica.ticks
    bench.drain(drained(3))
    bench.runner.step(1, StatusRequest(1, 1), 0)
    await asyncio.sleep(0.03)
    assert [type(failure) for failure in bench.failures] == [StorageFailed]
    assert bench.sent == before and not bench.replica.persisted_effects and not bench.replica.steps
    assert bench.replica.ticks == ticks
    with pytest.raises(StorageFailed):
        await bench.runner.persist([KeyValue("progress", b"8")])


@pytest.mark.parametrize("where", ["step", "take_ready", "tick"])
async def test_our_own_bug_ends_everything_once(bench: Bench, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def break_down(*_: Any) -> None:
        raise AssertionError("a broken invariant")

    monkeypatch.setattr(bench.replica, where, break_down)
    bench.runner.step(1, StatusRequest(1, 1), 0)
    await bench.until(lambda: bench.failures)
    bench.drain(drained(1))
    await asyncio.sleep(0.03)
    assert len(bench.failures) == 1 and not bench.sent


async def test_promises_in_flight_do_not_leave_after_a_failure(bench: Bench) -> None:
    bench.drain(drained(1))
    await bench.writing()
    bench.replica.broken = AssertionError("a broken invariant")
    bench.runner.step(1, StatusRequest(1, 1), 0)
    bench.disk.gate.release()
    await bench.until(lambda: bench.disk.batches)
    await asyncio.sleep(0.01)
    assert bench.sent == [(0, 1)] and len(bench.failures) == 1


async def test_callbacks_may_step_and_touch() -> None:
    """What a callback causes is drained behind the effects that it was told of."""
    bench = Bench()

    def perform(effects: Effects) -> None:
        if effects is first:
            bench.replica.script.append(drained(2))
            bench.runner.step(3, StatusRequest(1, 1), 0)

    bench.perform = perform
    bench.runner.start()
    first = drained(1)
    bench.drain(first)
    bench.disk.gate.release(5)
    await bench.until(lambda: len(bench.replica.persisted_effects) == 2)
    assert bench.replica.steps == [3]
    assert [record for batch in bench.disk.batches for record in batch] == [HardState(1, 0), HardState(2, 0)]
    assert bench.sent == [(0, 1), (0, 2), (1, 1), (1, 2)]
    await bench.runner.close()


async def test_closing_waits_for_the_write_and_tells_those_behind_it(bench: Bench) -> None:
    first = asyncio.create_task(bench.runner.persist([KeyValue("progress", b"1")]))
    await bench.writing()
    second = asyncio.create_task(bench.runner.persist([KeyValue("progress", b"2")]))
    await asyncio.sleep(0)
    closing = asyncio.create_task(bench.runner.close())
    await asyncio.sleep(0.01)
    assert not closing.done()
    bench.disk.gate.release()
    await closing
    await first
    with pytest.raises(Unavailable):
        await second
    with pytest.raises(Unavailable):
        await bench.runner.persist([KeyValue("progress", b"3")])
    assert bench.disk.batches == [[KeyValue("progress", b"1")]] and not bench.failures
