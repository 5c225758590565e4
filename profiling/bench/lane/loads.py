"""The loads on our own lane, by a client over its connection or by the leader on itself."""

from __future__ import annotations

import asyncio
import json
import time
from functools import partial
from typing import Any

import msgspec

from profiling.bench.lane.client import LaneClient
from profiling.bench.lane.requests import Load, Response, Standing, Verb
from protocol.errors import RunFailure


async def closed(client: LaneClient, in_flight: int, count: int, size: int) -> dict[str, Any]:
    """``in_flight`` writers, one after the other ``count`` writes of ``size`` bytes."""
    value, times, put, now = bytes(size), [], client.put_and_call, time.perf_counter_ns
    numbers, finished = iter(range(count)), asyncio.get_running_loop().create_future()

    def write() -> None:
        number = next(numbers, None)
        if number is not None:
            put(b"%d" % (number % 1000), value, partial(answered, now()))

    def answered(began_ns: int, response: Response | None) -> None:
        times.append(now() - began_ns)
        if response is None or response.standing != Standing.DONE:
            if not finished.done():
                finished.set_exception(_failure(response))
        elif len(times) == count:
            finished.set_result(None)
        else:
            write()

    began = time.perf_counter()
    for _ in range(in_flight):
        write()
    await finished
    return {"seconds": time.perf_counter() - began, "latency_ns": times}


async def opened(client: LaneClient, count: int, size: int, rate: int) -> dict[str, Any]:
    """Writes begin by the clock, whatever became of the earlier ones; their time counts from when they should have."""
    value, times = bytes(size), []
    began = time.perf_counter()
    running = set()
    for number in range(count):
        intended = began + number / rate
        if (early := intended - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        intended = min(intended, time.perf_counter())  # the loop's timers may fire early
        future = client.put(b"%d" % (number % 1000), value)

        def done(answered: asyncio.Future[Response], intended: float = intended) -> None:
            _check(answered.result())
            times.append(int((time.perf_counter() - intended) * 1e9))
            running.discard(answered)

        running.add(future)
        future.add_done_callback(done)
    await asyncio.gather(*running)
    return {"seconds": time.perf_counter() - began, "latency_ns": times}


async def embedded(client: LaneClient, in_flight: int, count: int, size: int) -> dict[str, Any]:
    """The leader writes by itself; ``client`` only asks it to."""
    question = msgspec.json.encode(Load(in_flight, count, size))
    response = await client.request(Verb.LOAD, value=question)
    found: dict[str, Any] = json.loads(response.value or b"{}")
    if "seconds" not in found:
        raise RunFailure(f"the leader did not write: {found.get('refused', response.reason)}")
    return found


def _check(response: Response) -> None:
    if response.standing != Standing.DONE:
        raise _failure(response)


def _failure(response: Response | None) -> RunFailure:
    if response is None:
        return RunFailure("a write was not done: the node is gone")
    return RunFailure(f"a write was not done: {response.reason or 'it may or may not be committed'}")
