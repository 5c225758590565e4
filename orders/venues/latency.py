"""The way back from the venue: reports wait here until they are due. A pure machine; the shell owns the clock."""

from __future__ import annotations

import heapq
from typing import Generic, TypeVar

from orders.venues.chance import draw
from protocol.errors import LocalMisuse

Item = TypeVar("Item")


class DelayQueue(Generic[Item]):
    """Delays each item by ``latency_ns`` plus a jitter drawn uniformly from 0 to ``jitter_ns``.

    A connection delivers in order, so by default an item never overtakes an earlier one. ``reorder`` lets jitter do
    so, which is how fills come to arrive before acknowledgements.
    """

    def __init__(self, latency_ns: int, jitter_ns: int = 0, seed: int = 0, reorder: bool = False) -> None:
        if latency_ns < 0 or jitter_ns < 0:
            raise LocalMisuse("latency and jitter must not be negative")
        self._latency_ns = latency_ns
        self._jitter_ns = jitter_ns
        self._seed = seed
        self._reorder = reorder
        self._waiting: list[tuple[int, int, Item]] = []
        self._pushed = 0
        self._latest_due_ns = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def push(self, item: Item, now_ns: int) -> None:
        due_ns = now_ns + self._latency_ns + self._jitter()
        if not self._reorder:
            due_ns = self._latest_due_ns = max(due_ns, self._latest_due_ns)
        heapq.heappush(self._waiting, (due_ns, self._pushed, item))
        self._pushed += 1

    def due(self, now_ns: int) -> list[Item]:
        """Everything whose time has come, in the order of delivery; it leaves the queue."""
        items = []
        while self._waiting and self._waiting[0][0] <= now_ns:
            items.append(heapq.heappop(self._waiting)[2])
        return items

    def next_deadline_ns(self) -> int | None:
        return self._waiting[0][0] if self._waiting else None

    def _jitter(self) -> int:
        if self._jitter_ns == 0:
            return 0
        return int(draw(self._seed, f"jitter/{self._pushed}") * (self._jitter_ns + 1))
