"""Both short ways of one of aioquic's connections."""

from __future__ import annotations

from protocol.quic.backend import Address
from protocol.quic.calm import Calm
from protocol.quic.fast_receive import FastReceiver
from protocol.quic.fast_send import FastSender
from protocol.quic.short_way import ShortWay


class CalmWay(ShortWay):
    """Open while the connection is calm, and for what is usual then."""

    def __init__(self, calm: Calm, ack_delay_s: float) -> None:
        super().__init__(calm.events)
        self._calm = calm
        self._sender = FastSender(calm)
        self._receiver = FastReceiver(calm, ack_delay_s)

    def holds(self) -> bool:
        return self._calm.holds

    def receive_usual(self, data: bytes, address: Address, now: float) -> bool:
        return self._receiver.receive_usual(data, address, now)

    def usual_datagrams(self, now: float) -> list[tuple[bytes, Address]] | None:
        return self._sender.usual_datagrams(now)

    def write(self, stream_id: int, data: bytes) -> bool:
        return self._sender.write(stream_id, data)

    def must_send(self, now: float) -> bool:
        return self._calm.must_send(now)

    def timer_at(self) -> float:
        return self._calm.timer_at()

    def unsent_bytes(self, stream_id: int) -> int:
        return self._calm.unsent_bytes(stream_id)
