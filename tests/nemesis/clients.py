"""Clients of the key-value store. Each has one request at a time, asks elsewhere when nobody answers, under the same
idempotency key, and in the end gives it up: then nobody knows whether it took place."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Final

from profiling.bench.lane.client import LaneClient
from profiling.bench.lane.requests import ONCE_BYTES, Response, Standing, Verb
from profiling.bench.lane.site import LaneSite
from tests.oracles.linearizability import ABSENT, Operation

ATTEMPT_S: Final = 0.5
PATIENCES_S: Final = (0.2, 1.0, 4.0)
"""How long a client goes on asking, drawn for each operation."""
PAUSE_S: Final = 0.02
OPERATIONS_PER_KEY: Final = 50
"""Then a fresh key takes its place: the search for an explanation grows with a key's history."""


@dataclass
class Workload:
    """What all clients share: the keys in use now, the history, and what became of every write."""

    seed: int
    keys_at_once: int = 3
    history: list[Operation] = field(default_factory=list)
    writes: dict[bytes, Standing] = field(default_factory=dict)
    """By idempotency key. REFUSED only if every attempt was."""
    answers: Counter[str] = field(default_factory=Counter)
    stopped: bool = False
    _begun: int = 0

    def next_key(self, rng: random.Random) -> bytes:
        """One of the keys in use."""
        self._begun += 1
        generation = self._begun // (OPERATIONS_PER_KEY * self.keys_at_once)
        return b"%d.%d" % (generation, rng.randrange(self.keys_at_once))

    @property
    def keys(self) -> list[bytes]:
        """All that were ever used."""
        return sorted({operation.key for operation in self.history})


class Client:
    """``number`` tells clients apart; after an unknown outcome a client goes on under another one."""

    def __init__(self, site: LaneSite, workload: Workload, number: int) -> None:
        self._site = site
        self._workload = workload
        self._number = number
        self._own = number
        self._rng = random.Random(f"client/{workload.seed}/{number}")
        self._count = 0
        self._node = number % len(site.ports)
        self._connections: dict[int, LaneClient] = {}
        self._seen: dict[bytes, bytes | None] = {}
        """The last value of each key, for the next comparison."""

    async def run(self) -> None:
        """Until the workload is stopped."""
        while not self._workload.stopped:
            await self._operation()
            await asyncio.sleep(self._rng.random() * PAUSE_S)
        for node in list(self._connections):
            self._leave(node)

    async def _operation(self) -> None:
        self._count += 1
        key = self._workload.next_key(self._rng)
        kind = self._rng.choice(("get", "get", "put", "cas"))
        if kind == "get":
            return await self._get(key)
        value = b"%d.%d" % (self._own, self._count)
        expected = self._seen.get(key, ABSENT) if kind == "cas" else None
        return await self._write(kind, key, value, expected)

    async def _get(self, key: bytes) -> None:
        """Of any node. A get without an answer explains nothing and hinders nothing, so it is not noted."""
        self._node = self._somebody()
        invoked_ns = time.monotonic_ns()
        response, _ = await self._ask(Verb.GET, key)
        if response is not None:
            self._seen[key] = response.value
            self._note(key, "get", None, response.value, invoked_ns, time.monotonic_ns())

    async def _write(self, kind: str, key: bytes, value: bytes, expected: bytes | None) -> None:
        once = self._own.to_bytes(4, "little") + self._count.to_bytes(ONCE_BYTES - 4, "little")
        argument = value if kind == "put" else (expected, value)
        invoked_ns = time.monotonic_ns()
        if kind == "put":
            response, doubtful = await self._ask(Verb.PUT, key, value, None, once)
        else:
            response, doubtful = await self._ask(Verb.CAS, key, value, expected or b"", once)
        if response is not None:
            took_place = response.value is not None
            self._workload.writes[once] = Standing.DONE
            if took_place:
                self._seen[key] = value
            self._note(key, kind, argument, took_place if kind == "cas" else None, invoked_ns, time.monotonic_ns())
        elif doubtful:
            self._workload.writes[once] = Standing.UNKNOWN
            self._note(key, kind, argument, None, invoked_ns, None)
        else:
            self._workload.writes[once] = Standing.REFUSED

    def _note(
        self, key: bytes, kind: str, argument: object, result: object, invoked_ns: int, returned_ns: int | None
    ) -> None:
        self._workload.history.append(Operation(self._number, key, kind, argument, result, invoked_ns, returned_ns))
        if returned_ns is None:
            self._number += 1000

    async def _ask(
        self, verb: Verb, key: bytes, value: bytes = b"", expected: bytes | None = None, once: bytes = b""
    ) -> tuple[Response | None, bool]:
        """The answer, if somebody gave one in time, and whether the request may have taken effect without one."""
        deadline = time.monotonic() + self._rng.choice(PATIENCES_S)
        doubtful = False
        while time.monotonic() < deadline:
            try:
                connection = await self._connect()
            except (OSError, TimeoutError):
                self._workload.answers["nobody there"] += 1
                await self._elsewhere()
                continue
            try:
                response = await asyncio.wait_for(connection.request(verb, key, value, expected, once), ATTEMPT_S)
            except (ConnectionError, TimeoutError) as error:
                self._workload.answers[type(error).__name__] += 1
                doubtful = True
                self._leave(self._node)
                await self._elsewhere()
                continue
            standing = Standing(response.standing)
            self._workload.answers[f"{standing.name} {response.reason}".strip()] += 1
            if standing is Standing.DONE:
                return response, False
            doubtful = doubtful or standing is Standing.UNKNOWN
            await self._elsewhere(response.leader)
        return None, doubtful

    async def _connect(self) -> LaneClient:
        if self._node not in self._connections:
            connecting = LaneClient.connect(self._site, self._node, self._own)
            self._connections[self._node] = await asyncio.wait_for(connecting, ATTEMPT_S)
        return self._connections[self._node]

    async def _elsewhere(self, leader: int = -1) -> None:
        """To the leader, if somebody knew it, or to any node, the same one among them."""
        follows, somebody = self._rng.random() < 0.7, self._somebody()
        self._node = leader if leader >= 0 and follows else somebody
        await asyncio.sleep(self._rng.random() * PAUSE_S)

    def _somebody(self) -> int:
        return self._rng.randrange(len(self._site.ports))

    def _leave(self, node: int) -> None:
        self._connections.pop(node).close()
