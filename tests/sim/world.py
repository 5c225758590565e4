"""What surrounds the replicas: virtual time, clocks that differ, and a network that keeps no promise."""

from __future__ import annotations

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import msgspec

from protocol.messages import Message
from protocol.raft_messages import InstallSnapshot
from tests.sim.plan import MILLISECOND_NS, SECOND_NS

MILLION: Final = 1_000_000
LATE_NS_MAX: Final = 500 * MILLISECOND_NS


class Timeline:
    """Actions in the order of their times; those of one moment in the order in which they were asked for."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.event_count = 0
        self._events: list[tuple[int, int, Callable[[], None]]] = []

    def at(self, when_ns: int, action: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self._events, (when_ns, self.event_count, action))

    def after(self, span_ns: int, action: Callable[[], None]) -> None:
        self.event_count += 1
        heapq.heappush(self._events, (self.now_ns + span_ns, self.event_count, action))

    def run_until(self, end_ns: int) -> None:
        events = self._events
        while events and events[0][0] <= end_ns:
            self.now_ns, _, action = heapq.heappop(events)
            action()
        self.now_ns = max(self.now_ns, end_ns)


class Clock:
    """A replica's monotonic clock: it started anywhere and runs ``rate_ppm`` millionths too fast."""

    def __init__(self, rng: random.Random, drift_ppm: int) -> None:
        self.rate_ppm = rng.randint(-drift_ppm, drift_ppm)
        self._since_ns = 0
        self._base_ns = rng.randint(0, SECOND_NS)

    def local_ns(self, true_ns: int) -> int:
        """What it shows then."""
        return self._base_ns + (true_ns - self._since_ns) * (MILLION + self.rate_ppm) // MILLION

    def true_ns(self, local_ns: int) -> int:
        """When it will show ``local_ns``, rounded up, if its rate stays."""
        return self._since_ns + (local_ns - self._base_ns) * MILLION // (MILLION + self.rate_ppm) + 1

    def step(self, span_ns: int) -> None:
        """Jump forward, as the clock of a virtual machine does that was moved."""
        self._base_ns += span_ns

    def set_rate(self, rate_ppm: int, true_ns: int) -> None:
        """From now on; what it shows does not jump."""
        self._base_ns, self._since_ns = self.local_ns(true_ns), true_ns
        self.rate_ppm = rate_ppm


@dataclass
class Weather:
    """How bad the network is. Delays are drawn per message, so messages overtake each other."""

    loss: float = 0.0
    duplication: float = 0.0
    damage: float = 0.0
    """Of snapshots, wherever it happens on their way: everything else is small enough to be checked whole."""
    delay_ns_max: int = 5 * MILLISECOND_NS
    late: float = 0.0
    """These come when everybody has forgotten them."""
    cut: set[tuple[int, int]] = field(default_factory=set)


class Network:
    """Carries messages through the weather. What is under way when a way is cut does not arrive."""

    def __init__(self, rng: random.Random, timeline: Timeline, arrive: Callable[[int, int, Message], None]) -> None:
        self.weather = Weather()
        self.happened: Counter[str] = Counter()
        """What the weather did."""
        self._rng = rng
        self._timeline = timeline
        self._arrive = arrive
        self._latest: dict[tuple[int, int], int] = {}

    def send(self, sender: int, receiver: int, message: Message) -> None:
        weather, rng = self.weather, self._rng
        if isinstance(message, InstallSnapshot) and rng.random() < weather.damage:
            self.happened["damaged"] += 1
            message = msgspec.structs.replace(message, chunk=bytes(reversed(message.chunk)))
        self._carry(sender, receiver, message)
        if weather.duplication and rng.random() < weather.duplication:
            self.happened["duplicated"] += 1
            self._carry(sender, receiver, message)

    def _carry(self, sender: int, receiver: int, message: Message) -> None:
        weather, rng = self.weather, self._rng
        if weather.loss and rng.random() < weather.loss:
            self.happened["lost"] += 1
            return
        late = weather.late and rng.random() < weather.late
        self.happened["late"] += bool(late)
        delay_ns = int(rng.random() * (LATE_NS_MAX if late else weather.delay_ns_max)) + 1
        way, number = (sender, receiver), self._timeline.event_count
        self._timeline.after(delay_ns, lambda: self._deliver(way, number, message))

    def _deliver(self, way: tuple[int, int], number: int, message: Message) -> None:
        if way in self.weather.cut:
            self.happened["cut off"] += 1
            return
        if number < self._latest.get(way, 0):
            self.happened["overtaken"] += 1
        else:
            self._latest[way] = number
        self._arrive(*way, message)

    def partition(self, side: set[int], everybody: range) -> None:
        """Nothing passes between ``side`` and the others."""
        self.weather.cut = {(a, b) for a in everybody for b in everybody if (a in side) != (b in side)}
