"""Both short ways of one connection, for a driver that asks them before it asks the library."""

from __future__ import annotations

from aioquic.quic.connection import NetworkAddress

from protocol.quic.calm import Calm
from protocol.quic.fast_receive import FastReceiver
from protocol.quic.fast_send import FastSender


class ShortWay:
    """Every method says no, and has changed nothing, when the connection is not calm or the case is not the usual one:
    then the connection has to be asked."""

    def __init__(self, calm: Calm, ack_delay_s: float) -> None:
        self.calm = calm
        self._sender = FastSender(calm)
        self._receiver = FastReceiver(calm, ack_delay_s)

    def receive_usual(self, data: bytes, address: NetworkAddress, now: float) -> bool:
        """See ``FastReceiver``."""
        return self._receiver.receive_usual(data, address, now)

    def usual_datagrams(self, now: float) -> list[tuple[bytes, NetworkAddress]] | None:
        """See ``FastSender``."""
        return self._sender.usual_datagrams(now)

    def write(self, stream_id: int, data: bytes) -> bool:
        """See ``FastSender``."""
        return self._sender.write(stream_id, data)
