"""Where datagrams enter and leave a process: the seam between the driver and a network, real, impaired or made up."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

from protocol.quic.backend import Address
from protocol.quic.settings import bind_udp

DATAGRAM_BYTES_READ: Final = 65535
ALONE_TRUSTED: Final = 3
"""Wake-ups in a row that are taken to be for one datagram, after one that was."""


class DatagramPort(Protocol):
    """One address on a network. Opened once, used by one event loop, closed once."""

    def open(self, owner: str, host: str, port: int, on_readable: Callable[[], None]) -> None:
        """Bind; ``on_readable`` is called whenever ``receive`` has something. Raises ``UsageError``."""

    def receive(self) -> tuple[bytes, Address] | None:
        """The next datagram and where it came from; ``None`` when there is none at present."""

    def send(self, data: bytes, address: Address) -> None:
        """Hand one datagram over. Raises ``BlockingIOError`` when there is no room, ``OSError`` when it cannot go."""

    def close(self) -> None:
        """Nothing is received or sent any more."""

    @property
    def local_address(self) -> Address: ...

    @property
    def counters(self) -> Mapping[str, int]:
        """What the network did to datagrams, as far as the port knows."""

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        """Room for receiving and for sending; zeros when the port is not open."""


class UdpPort:
    """``DatagramPort`` over a UDP socket.

    To ask for a second datagram when there is none costs a system call and an exception. Where datagrams come one by
    one it is mostly left out: the loop watches the level, not the edge, and wakes us again if there was one.
    """

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._loop: Any = None
        """An event loop. uvloop's does not return what its types say, which compiled code would look at."""
        self._on_readable: Callable[[], None] = lambda: None
        self._read = 0
        """In this wake-up."""
        self._trusted = 0
        """So many wake-ups are still taken to be for one datagram."""

    def open(self, owner: str, host: str, port: int, on_readable: Callable[[], None]) -> None:
        self._socket = bind_udp(owner, host, port)
        self._loop = asyncio.get_running_loop()
        self._on_readable = on_readable
        self._loop.add_reader(self._socket.fileno(), self._wake)

    def _wake(self) -> None:
        self._read = 0
        self._on_readable()

    def receive(self) -> tuple[bytes, Address] | None:
        """``None`` also where none is expected; then the loop wakes us again if there is one."""
        if self._socket is None:
            return None
        if self._read == 1 and self._trusted:
            self._trusted -= 1
            return None
        try:
            received = self._socket.recvfrom(DATAGRAM_BYTES_READ)
        except (BlockingIOError, InterruptedError):
            self._trusted = ALONE_TRUSTED if self._read == 1 else 0
            return None
        self._read += 1
        return received

    def send(self, data: bytes, address: Address) -> None:
        assert self._socket is not None, "nothing is sent after close"
        self._socket.sendto(data, address)

    def close(self) -> None:
        if self._socket is not None and self._loop is not None:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()
            self._socket = None

    @property
    def local_address(self) -> Address:
        assert self._socket is not None, "the port is open"
        host, port = self._socket.getsockname()
        return host, port

    @property
    def counters(self) -> Mapping[str, int]:
        return {}

    @property
    def buffer_bytes(self) -> tuple[int, int]:
        """What the kernel granted, in its own accounting (twice the payload on Linux)."""
        if self._socket is None:
            return 0, 0
        receive = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)
        return receive, self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
