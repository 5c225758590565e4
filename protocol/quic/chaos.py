"""A network that is worse than it is: what an agent sends is delayed, lost, doubled, reordered, damaged or cut off.

``Impairment`` is pure and seeded: the same datagrams at the same times meet the same fate. Every agent impairs what it
sends, so that a link is impaired in both directions, each by its sender; a one-way partition is a sender that drops.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import re
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, replace
from typing import Final

from protocol.errors import UsageError
from protocol.quic.backend import Address
from protocol.quic.port import DatagramPort
from protocol.quic.settings import DATAGRAM_BYTES_MIN

CUTS_POLL_S: Final = 0.1
"""How often a running agent looks whether it is cut off from somebody."""
QUEUE_S: Final = 0.2
"""What a link of limited bandwidth queues before it drops, in seconds of its own rate."""
REORDER_HOLD_S: Final = 0.001
"""How long a reordered datagram is held back at least, so that the ones behind it pass."""

_UNITS: Final = {
    "time": {"us": 1e-6, "ms": 1e-3, "s": 1.0},
    "share": {"%": 0.01},
    "rate": {"kbit": 1e3, "mbit": 1e6, "gbit": 1e9},
    "size": {"": 1.0},
}
_KINDS: Final = {
    "rtt": "time",
    "jitter": "time",
    "loss": "share",
    "duplicate": "share",
    "reorder": "share",
    "corrupt": "share",
    "bandwidth": "rate",
    "mtu": "size",
}
_EXAMPLE: Final = "rtt=4ms,jitter=1ms,loss=0.1%,duplicate=0.1%,reorder=1%,corrupt=0.01%,bandwidth=100mbit,mtu=1400"
_VALUE: Final = re.compile(r"(\d+(?:\.\d+)?)([a-z%]*)")


@dataclass(frozen=True, slots=True)
class Network:
    """What one agent's datagrams go through. Shares are of all datagrams, 0 to 1; the rate is in bits a second."""

    rtt: float = 0.0
    """Seconds, half of it each way."""
    jitter: float = 0.0
    """Seconds that a datagram may take longer, each way, all amounts alike."""
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    corrupt: float = 0.0
    bandwidth: float = 0.0
    """0 for no limit."""
    mtu: float = 0.0
    """Bytes of the largest datagram that passes, without its UDP and IP headers; 0 for any."""


def parse_network(text: str) -> Network:
    """``rtt=4ms,loss=0.1%`` and so on. Raises ``UsageError``: one line with what is wrong and an example."""
    network, seen = Network(), set()
    for part in text.split(","):
        key, _, value = part.strip().partition("=")
        if key not in _KINDS:
            raise UsageError(f"network '{text}': '{key}' is unknown; use {', '.join(_KINDS)}, as in {_EXAMPLE}")
        if key in seen:
            raise UsageError(f"network '{text}': '{key}' stands there twice; give it once")
        seen.add(key)
        network = replace(network, **{key: _quantity(text, key, value)})
    return network


def _quantity(text: str, key: str, value: str) -> float:
    units = _UNITS[_KINDS[key]]
    match = _VALUE.fullmatch(value)
    if match is None or match[2] not in units:
        raise UsageError(
            f"network '{text}': {key}={value} is no quantity; give a number in {', '.join(units) or 'bytes'}"
        )
    quantity = float(match[1]) * units[match[2]]
    if _KINDS[key] == "share" and quantity > 1:
        raise UsageError(f"network '{text}': {key}={value} is more than all datagrams; give 0% to 100%")
    if _KINDS[key] == "time" and quantity > 60:
        raise UsageError(f"network '{text}': {key}={value} is longer than any network; give 60s at most")
    if _KINDS[key] == "size" and quantity < DATAGRAM_BYTES_MIN:
        raise UsageError(f"network '{text}': {key}={value} carries no QUIC; give {DATAGRAM_BYTES_MIN} or more")
    if _KINDS[key] == "rate" and not quantity:
        raise UsageError(f"network '{text}': {key}={value} would carry nothing; leave it out for no limit")
    return quantity


class Impairment:
    """The fate of datagrams. ``cut`` holds the addresses to which nothing gets through."""

    def __init__(self, network: Network, rng: random.Random) -> None:
        self.network = network
        self.cut: frozenset[Address] = frozenset()
        self.counters: Counter[str] = Counter()
        self._rng = rng
        self._line_free_at = 0.0

    def impair(self, data: bytes, address: Address, now: float) -> list[tuple[float, bytes]]:
        """When which bytes arrive, in seconds of the caller's clock; nothing for a datagram that is lost."""
        network, chance = self.network, self._rng.random
        if address in self.cut:
            return self._drop("cut")
        if network.mtu and len(data) > network.mtu:
            return self._drop("too_large")
        if chance() < network.loss:
            return self._drop("lost")
        sent_at = self._through_the_line(len(data), now)
        if sent_at is None:
            return self._drop("overflowed")
        if chance() < network.corrupt:
            data = self._damaged(data)
        arrivals = [(self._arrival(sent_at), data)]
        if chance() < network.duplicate:
            self.counters["duplicated"] += 1
            arrivals.append((self._arrival(sent_at), data))
        return arrivals

    def _drop(self, why: str) -> list[tuple[float, bytes]]:
        self.counters[why] += 1
        return []

    def _through_the_line(self, size: int, now: float) -> float | None:
        """When the last bit has left; None when the queue before the line is full."""
        if not self.network.bandwidth:
            return now
        start = max(now, self._line_free_at)
        if start - now > QUEUE_S:
            return None
        self._line_free_at = start + size * 8 / self.network.bandwidth
        return self._line_free_at

    def _damaged(self, data: bytes) -> bytes:
        self.counters["corrupted"] += 1
        damaged = bytearray(data)
        damaged[self._rng.randrange(len(damaged))] ^= 1 << self._rng.randrange(8)
        return bytes(damaged)

    def _arrival(self, sent_at: float) -> float:
        network = self.network
        at = sent_at + network.rtt / 2 + network.jitter * self._rng.random()
        if self._rng.random() < network.reorder:
            self.counters["reordered"] += 1
            at += max(REORDER_HOLD_S, network.rtt / 2)
        return at


class ChaosPort:
    """A ``DatagramPort`` behind an impairment. What is due leaves by the loop's timers, which are coarse: a
    millisecond, so that shorter delays are no use. ``cuts`` is asked now and then for addresses to be cut off from."""

    def __init__(
        self,
        inner: DatagramPort,
        impairment: Impairment,
        clock: Callable[[], float],
        cuts: Callable[[], Collection[Address]] = tuple,
    ) -> None:
        self.impairment = impairment
        self._inner = inner
        self._clock = clock
        self._cuts = cuts
        self._waiting: list[tuple[float, int, bytes, Address]] = []
        self._numbers = itertools.count()
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._poll: asyncio.TimerHandle | None = None

    def open(self, owner: str, host: str, port: int, on_readable: Callable[[], None]) -> None:
        self._inner.open(owner, host, port, on_readable)
        self._look_for_cuts()

    def _look_for_cuts(self) -> None:
        self.impairment.cut = frozenset(self._cuts())
        self._poll = asyncio.get_running_loop().call_later(CUTS_POLL_S, self._look_for_cuts)

    def receive(self) -> tuple[bytes, Address] | None:
        return self._inner.receive()

    def send(self, data: bytes, address: Address) -> None:
        now = self._clock()
        for at, arriving in self.impairment.impair(data, address, now):
            if at <= now:
                self._inner.send(arriving, address)
            else:
                heapq.heappush(self._waiting, (at, next(self._numbers), arriving, address))
        self._arm(now)

    def _arm(self, now: float) -> None:
        if not self._waiting:
            return
        at = self._waiting[0][0]
        if self._timer is not None:
            if self._timer_at <= at:
                return
            self._timer.cancel()
        self._timer_at = at
        self._timer = asyncio.get_running_loop().call_later(max(at - now, 0.0), self._release)

    def _release(self) -> None:
        self._timer = None
        now = self._clock()
        while self._waiting and self._waiting[0][0] <= now:
            _, _, data, address = heapq.heappop(self._waiting)
            try:
                self._inner.send(data, address)
            except OSError:
                self.impairment.counters["unsendable"] += 1  # the sender was told long ago that it had left
        self._arm(now)

    def close(self) -> None:
        for handle in (self._timer, self._poll):
            if handle is not None:
                handle.cancel()
        self._waiting.clear()
        self._inner.close()

    @property
    def local_address(self) -> Address:
        return self._inner.local_address

    @property
    def counters(self) -> Mapping[str, int]:
        return {f"chaos_{name}": count for name, count in self.impairment.counters.items()}

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        return self._inner.buffer_bytes


assert set(_KINDS) == {field.name for field in fields(Network)}, "every impairment can be written down"
