"""The load that a leader puts on its own lane: what an agent sees that leads and trades in one process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from consensus.raft.core import Raft
from profiling.bench.lane.requests import ONCE_BYTES, Load, Request, Verb
from profiling.bench.lane.store import payload_of
from protocol.codes import EntryKind


class EmbeddedLoad:
    """Keeps the writes that are ``wanted`` under way until all of them are committed, then tells ``finished``
    the seconds that it took and the nanoseconds of each."""

    def __init__(
        self,
        raft: Raft,
        touch: Callable[[], None],
        finished: Callable[[dict[str, Any]], None],
        wanted: Load,
    ) -> None:
        self._raft = raft
        self._touch = touch
        self._finished = finished
        self._in_flight = wanted.in_flight
        self._count = wanted.count
        self._value = bytes(wanted.size)
        self._begun: dict[bytes, int] = {}
        self._times: list[int] = []
        self._proposed = 0
        self._prefix = time.time_ns().to_bytes(8, "little")
        self._started_ns = 0
        self._topping_up = False

    def start(self) -> None:
        self._started_ns = time.perf_counter_ns()
        self._top_up()

    def _top_up(self) -> None:
        self._topping_up = False
        while len(self._begun) < self._in_flight and self._proposed < self._count:
            number = self._proposed
            once = self._prefix + number.to_bytes(ONCE_BYTES - 8, "little")
            request = Request(number, Verb.PUT, b"%d" % (number % 1000), self._value, None, once)
            if self._raft.propose(EntryKind.FRAME, payload_of(request)) is None:
                return self._finished({"refused": self._raft.proposal_refusal(0)})
            self._begun[once] = time.perf_counter_ns()
            self._proposed += 1
        return self._touch()

    def committed(self, once: bytes) -> None:
        """An entry under this idempotency key is committed."""
        begun = self._begun.pop(once, None)
        if begun is None:
            return
        self._times.append(time.perf_counter_ns() - begun)
        if len(self._times) == self._count:
            seconds = (time.perf_counter_ns() - self._started_ns) / 1e9
            self._finished({"seconds": seconds, "latency_ns": self._times})
        elif not self._topping_up:
            self._topping_up = True
            asyncio.get_running_loop().call_soon(self._top_up)
