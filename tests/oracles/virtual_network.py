"""Real endpoints, real TLS, no sockets and no waiting: an event loop whose time jumps, and a network in memory.

A day of an endpoint's life passes in minutes. Datagrams are carried in the order in which they are sent, each through
the sender's own impairment; times and fates follow from the seed. What TLS draws at random does not, so that two runs
agree in every count that does not depend on the size of a key share or a signature.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import selectors
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

from protocol.quic.backend import Address
from protocol.quic.chaos import ChaosPort, Impairment, Network

T = TypeVar("T")
BUFFER_DATAGRAMS = 4096


class VirtualSelector(selectors.SelectSelector):
    """Waiting means that the clock jumps to the end of the wait."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1_000.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "nobody will ever do anything again"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time. Nothing on it may wait for a thread, a socket or a process."""

    def __init__(self) -> None:
        self.virtual = VirtualSelector()
        super().__init__(self.virtual)

    def time(self) -> float:
        return self.virtual.now


def run_virtually(main: Callable[[VirtualLoop], Awaitable[T]]) -> T:
    """Run to the end in virtual time; pending tasks are cancelled."""
    loop = VirtualLoop()
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        return runner.run(_await(main(loop)))


async def _await(work: Awaitable[T]) -> T:
    return await work


class MemoryNetwork:
    """Who is at which address. ``port`` makes the port of one life of an agent."""

    def __init__(self, loop: VirtualLoop, network: Network, seed: int) -> None:
        self.loop = loop
        self.network = network
        self.seed = seed
        self.present: dict[Address, MemoryPort] = {}
        self.delivered = 0
        self._lives = 0
        self._free_ports = itertools.count(1024)  # below those that a system gives out

    def port(self) -> ChaosPort:
        self._lives += 1
        impairment = Impairment(self.network, random.Random(f"{self.seed}/{self._lives}"))
        return ChaosPort(MemoryPort(self), impairment, self.loop.time)


class MemoryPort:
    """A ``DatagramPort`` of a ``MemoryNetwork``."""

    def __init__(self, network: MemoryNetwork) -> None:
        self.inbox: deque[tuple[bytes, Address]] = deque()
        self._network = network
        self._address: Address = ("", 0)
        self._on_readable: Callable[[], None] = lambda: None

    def open(self, owner: str, host: str, port: int, on_readable: Callable[[], None]) -> None:
        self._address = (host, port or next(self._network._free_ports))
        assert self._address not in self._network.present, f"{owner}: the address is in use"
        self._network.present[self._address] = self
        self._on_readable = on_readable

    def receive(self) -> tuple[bytes, Address] | None:
        return self.inbox.popleft() if self.inbox else None

    def send(self, data: bytes, address: Address) -> None:
        other = self._network.present.get(address)
        if other is None or len(other.inbox) >= BUFFER_DATAGRAMS:
            return  # as with UDP, nobody says so
        self._network.delivered += 1
        other.inbox.append((data, self._address))
        self._network.loop.call_soon(other.read)

    def read(self) -> None:
        """As a socket's readiness: until nothing is left."""
        while self.inbox and self._network.present.get(self._address) is self:
            self._on_readable()

    def close(self) -> None:
        if self._network.present.get(self._address) is self:
            del self._network.present[self._address]
        self.inbox.clear()

    @property
    def local_address(self) -> Address:
        return self._address

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        return 1 << 30, 1 << 30
