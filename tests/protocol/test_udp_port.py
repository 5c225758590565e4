"""The UDP port: nothing is left in the socket, and where datagrams come one by one it is seldom asked for a second."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio

from protocol.quic.backend import Address
from protocol.quic.port import ALONE_TRUSTED, UdpPort


class CountingSocket:
    """A socket that counts how often it is asked for a datagram."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.asked = 0

    def recvfrom(self, size: int) -> tuple[bytes, Address]:
        self.asked += 1
        return self._inner.recvfrom(size)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class Ends:
    """A port that keeps what it reads, and a plain socket that sends to it."""

    def __init__(self) -> None:
        self.port = UdpPort()
        self.read: list[bytes] = []
        self.port.open("risk-1", "127.0.0.1", 0, self._on_readable)
        assert self.port._socket is not None
        self.counting = CountingSocket(self.port._socket)
        self.port._socket = self.counting  # type: ignore[assignment]
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def _on_readable(self) -> None:
        while (received := self.port.receive()) is not None:
            self.read.append(received[0])

    async def send(self, *datagrams: bytes) -> None:
        """All at once; returns when they were read."""
        wanted = len(self.read) + len(datagrams)
        for data in datagrams:
            self.sender.sendto(data, self.port.local_address)
        async with asyncio.timeout(5):
            while len(self.read) < wanted:  # noqa: ASYNC110  # the loop reads
                await asyncio.sleep(0.001)


@pytest_asyncio.fixture
async def ends() -> AsyncIterator[Ends]:
    both = Ends()
    yield both
    both.port.close()
    both.sender.close()


async def test_every_datagram_is_read_in_order_however_they_come(ends: Ends) -> None:
    sent = []
    for number, burst in enumerate((1, 1, 1, 5, 1, 40, 1, 1, 1, 1, 2, 1, 3, 64)):
        datagrams = [b"%d/%d" % (number, place) for place in range(burst)]
        await ends.send(*datagrams)
        sent += datagrams
    assert ends.read == sent


async def test_after_one_alone_the_next_are_taken_to_be_alone(ends: Ends) -> None:
    for _ in range(2 * (1 + ALONE_TRUSTED)):
        await ends.send(b"one")
    assert ends.counting.asked == 2 * (2 + ALONE_TRUSTED)


async def test_a_burst_ends_that(ends: Ends) -> None:
    await ends.send(b"one")
    await ends.send(*[b"many"] * 20)
    asked = ends.counting.asked
    await ends.send(b"one")
    assert ends.counting.asked == asked + 2
