"""One node of PySyncObj, run in the peers' environment: ``python pysyncobj_load.py OWN,OTHER,... BATCHES``.

It says "ready" when the cluster is. Each line on standard input, ``{"in_flight": 1, "count": 100, "size": 200}``, makes
it write if it leads, and is answered with what it measured, or ``{"leader": false}``. Nothing is durable: the log is in
memory, which is the library's fastest setting. BATCHES 1 leaves its batching on: more writes a second, later.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time

from pysyncobj import SyncObj, SyncObjConf, replicated


class Store(SyncObj):  # type: ignore[misc]  # it carries no types
    """A replicated dictionary."""

    def __init__(self, own: str, others: list[str], batches: bool) -> None:
        settings = SyncObjConf(
            autoTick=False, appendEntriesUseBatch=batches, commandsQueueSize=10**6, dynamicMembershipChange=False
        )
        super().__init__(own, others, settings)
        self.values: dict[str, bytes] = {}

    @replicated
    def put(self, key: str, value: bytes) -> None:
        self.values[key] = value


class Load:
    """Keeps ``in_flight`` writes under way until ``count`` are committed."""

    def __init__(self, store: Store, in_flight: int, count: int, size: int) -> None:
        self.store, self.count, self.value = store, count, bytes(size)
        self.begun = 0
        self.times: list[int] = []
        self.started = time.perf_counter()
        for _ in range(min(in_flight, count)):
            self._next()

    def _next(self) -> None:
        began = time.perf_counter_ns()
        self.begun += 1

        def done(_: object, error: int) -> None:
            if error:
                raise SystemExit(f"PySyncObj refused a write: {error}")
            self.times.append(time.perf_counter_ns() - began)
            if self.begun < self.count:
                self._next()

        self.store.put(str(self.begun % 1000), self.value, callback=done)

    @property
    def finished(self) -> bool:
        return len(self.times) == self.count


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(addresses: list[str], batches: bool) -> None:
    """Serve until standard input ends."""
    store = Store(addresses[0], addresses[1:], batches)
    while not store.isReady():
        store.doTick(0.01)
    _say("ready")
    asked, load, pending = b"", None, []
    while True:
        store.doTick(0.0005)
        if load is not None and load.finished:
            _say(json.dumps({"seconds": time.perf_counter() - load.started, "latency_ns": load.times}))
            load = None
        if select.select([sys.stdin], [], [], 0)[0]:
            data = os.read(0, 65536)
            if not data:
                return
            *lines, asked = (asked + data).split(b"\n")
            pending += lines
        if pending and load is None:
            line = pending.pop(0)
            if store._getLeader() is not None and store._isLeader():
                load = Load(store, **json.loads(line))
            else:
                _say(json.dumps({"leader": False}))


if __name__ == "__main__":
    main(sys.argv[1].split(","), sys.argv[2] == "1")
