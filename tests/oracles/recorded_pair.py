"""A pair of connections that live through a script, written down packet by packet, with the books of both ends.

Pairs that live through the same script under the same clock, one with the short ways of sending and receiving and one
without, have the same packets and books. What differs by chance (keys, connection ids) is left out: headers and
payloads are compared before encryption.
"""

from __future__ import annotations

import random
from typing import Any

from aioquic import tls
from aioquic.quic import events

from protocol.quic.connection import SwarmConnection
from tests.oracles.clusters import Cluster
from tests.protocol.test_aioquic_contract import CLIENT_ADDRESS, SERVER_ADDRESS, Pair, heard

STREAMS = (0, 4, 8, 12)
DATAGRAM = -1
"""Stands for a stream's number in what was heard."""
STEPS = 400
WINDOW_BYTES = 300_000
"""The handshake leaves a window that depends on the length of signatures, which varies."""

Packet = tuple[int, int, bytes]


class Recording:
    """A key's AEAD that writes down packet number, first byte and payload before it seals them."""

    def __init__(self, sealing: Any, packets: list[Packet]) -> None:
        self._aead = self
        self._iv = sealing._iv
        self._sealing = sealing._aead
        self._packets = packets

    def encrypt(self, *arguments: Any) -> Any:
        """Called as the library's wrapper (payload, header, number), or the cipher itself (nonce, payload, header)."""
        if isinstance(arguments[2], int):
            payload, header, number = arguments
            nonce = (self._iv ^ number).to_bytes(12, "big")
        else:
            nonce, payload, header = arguments
        self._packets.append((self._iv ^ int.from_bytes(nonce, "big"), header[0], payload))
        return self._sealing.encrypt(nonce, payload, header)

    def decrypt(self, *arguments: Any) -> Any:
        return self._sealing.decrypt(*arguments)


class Recorded:
    """An established pair whose packets are written down before they are encrypted. ``short`` allows the short ways."""

    def __init__(self, cluster: Cluster, short: bool) -> None:
        self.pair = Pair(cluster)
        self.pair.open_streams()
        self.packets: list[Packet] = []
        self.short_packets = 0
        self.short_receipts = 0
        self.heard: list[tuple[int, bytes]] = []
        for end in self.ends:
            end._loss._cc.congestion_window = WINDOW_BYTES
            self._record(end)
            self._count(end) if short else self._forbid(end)

    @property
    def ends(self) -> tuple[SwarmConnection, SwarmConnection]:
        return self.pair.client, self.pair.server

    def _record(self, end: Any) -> None:
        """Every key that it seals with, new ones too, writes down what it seals."""
        end._disturb()
        context = end._cryptos[tls.Epoch.ONE_RTT].send
        told = context._setup_cb

        def on_key(trigger: str) -> None:
            context.aead = Recording(context.aead, self.packets)
            told(trigger)

        context._setup_cb = on_key
        context.aead = Recording(context.aead, self.packets)

    def _count(self, end: Any) -> None:
        usual = end.usual_datagrams

        def usual_datagrams(now: float) -> Any:
            found = usual(now)
            self.short_packets += len(found or ())
            return found

        receive = end.receive_usual

        def receive_usual(data: bytes, address: Any, now: float) -> bool:
            taken: bool = receive(data, address, now)
            self.short_receipts += taken
            return taken

        end.usual_datagrams, end.receive_usual = usual_datagrams, receive_usual

    @staticmethod
    def _forbid(end: Any) -> None:
        end.usual_datagrams = lambda now: None
        end.receive_usual = lambda data, address, now: False

    def live(self, seed: int, steps: int = STEPS) -> None:
        """Writes of all sizes, pings, datagram frames, loss, repetition, damage, disorder, late timers and new keys,
        in an order that the seed decides."""
        rng = random.Random(seed)
        for _ in range(steps):
            sender, receiver = self.ends if rng.random() < 0.5 else self.ends[::-1]
            for _ in range(rng.choice((0, 1, 1, 1, 2))):
                sender.send_stream_data(rng.choice(STREAMS), rng.randbytes(rng.choice((1, 200, 200, 4096, 40_000))))
            if rng.random() < 0.05:
                sender.send_ping(0)
            if rng.random() < 0.1:
                sender.send_datagram(rng.randbytes(rng.choice((1, 50, 1000))))
            if rng.random() < 0.01:
                sender.request_key_update()
            self.carry(sender, receiver, rng)
            self.pair.now += rng.choice((0.0001, 0.001, 0.006))
            for end in self.ends:
                timer = end.get_timer()
                if timer is not None and timer <= self.pair.now:
                    end.handle_timer(self.pair.now)

    def carry(self, sender: SwarmConnection, receiver: SwarmConnection, rng: random.Random | None = None) -> None:
        """What ``sender`` has to say, over a path that is as bad as ``rng`` wants it."""
        address = CLIENT_ADDRESS if sender is self.pair.client else SERVER_ADDRESS
        datagrams = [data for data, _ in sender.datagrams_to_send(self.pair.now)]
        for data in datagrams if rng is None else _impaired(datagrams, rng):
            receiver.receive_datagram(data, address, self.pair.now)
        for event in heard(receiver):
            if isinstance(event, events.StreamDataReceived):
                self.heard.append((event.stream_id, event.data))
            elif isinstance(event, events.DatagramFrameReceived):
                self.heard.append((DATAGRAM, event.data))

    def books(self) -> list[Any]:
        return [_books(end) for end in self.ends]


def _impaired(datagrams: list[bytes], rng: random.Random) -> list[bytes]:
    if rng.random() < 0.1:
        return []
    if rng.random() < 0.05:
        datagrams = datagrams + datagrams[:1]
    if rng.random() < 0.05:
        datagrams = datagrams[::-1]
    if rng.random() < 0.05 and datagrams:
        spoiled = bytearray(datagrams[0])
        spoiled[rng.randrange(len(spoiled))] ^= 1 << rng.randrange(8)
        datagrams = [bytes(spoiled), *datagrams]
    return datagrams


def _books(end: Any) -> dict[str, Any]:
    end._settle()
    space = end._spaces[tls.Epoch.ONE_RTT]
    return {
        "next packet": end._packet_number,
        "sent": {
            number: (p.sent_time, p.sent_bytes, p.in_flight, p.is_ack_eliciting, p.is_crypto_packet, p.packet_type)
            for number, p in space.sent_packets.items()
        },
        "in flight": (end._loss.bytes_in_flight, space.ack_eliciting_in_flight),
        "credit used": end._remote_max_data_used,
        "acknowledgement due": space.ack_at,
        "bytes sent": end._network_paths[0].bytes_sent - end._bytes_sent_before,
        "timers": (end.get_timer(), end._close_at, end._pacing_at),
        "streams": [
            (s.stream_id, s.sender.highest_offset, s.sender.buffer_is_empty, list(s.sender._pending), s.sender._buffer)
            for s in sorted(end._streams.values(), key=lambda stream: stream.stream_id)
        ],
        "received": (space.largest_received_packet, space.largest_received_time, space.expected_packet_number),
        "to acknowledge": list(space.ack_queue),
        "seen": (space.received_packets._lower, space.received_packets._received),
        "credit given": (end._local_max_data.used, end._local_max_data.value),
        "round trip": (end._loss._rtt_smoothed, end._loss._rtt_variance, end._loss._rtt_min, end._loss._pto_count),
        "window": (end._loss.congestion_window, space.largest_acked_packet),
        "spin": (end._spin_bit, end._spin_highest_pn),
        "spoken since": end._ack_eliciting_sent_since_receipt,
        "receiving": [
            (s.receiver.highest_offset, s.receiver._buffer_start, list(s.receiver._ranges), s.receiver._buffer)
            for s in sorted(end._streams.values(), key=lambda stream: stream.stream_id)
        ],
    }


def both(cluster: Cluster) -> tuple[Recorded, Recorded]:
    """A pair with the short ways, and one without."""
    found = Recorded(cluster, short=True), Recorded(cluster, short=False)
    for recorded in found:
        for end in recorded.ends:
            end._bytes_sent_before = end._network_paths[0].bytes_sent  # type: ignore[attr-defined]
    return found


def forged(sender: Any, payload: bytes) -> bytes:
    """A packet with any payload, of the keys that ``sender`` really has. It is in no book of its sender."""
    sender._disturb()
    crypto, number = sender._cryptos[tls.Epoch.ONE_RTT], sender._packet_number
    sender._packet_number += 1
    first = 0x41 | crypto.key_phase << 2
    header = b"%c%b%b" % (first, sender._peer_cid.cid, (number & 0xFFFF).to_bytes(2, "big"))
    protected: bytes = crypto.encrypt_packet(header, payload, number)
    return protected
