"""qh3's TLS half, and what it keeps to itself. See ``qh3_connection``."""

from __future__ import annotations

from typing import Any, Final

from qh3 import tls
from qh3._hazmat import Buffer
from qh3.quic.packet import pull_quic_transport_parameters, push_quic_transport_parameters
from qh3.quic.tls_bridge import QuicTlsBridge, QuicTlsCryptoData

from protocol.quic.backend import EXPORTER_BYTES, EXPORTER_LABEL
from protocol.quic.settings import DATAGRAM_BYTES_MIN

CRYPTO_PIECE_BYTES: Final = 20
_PARAMETERS_BYTES: Final = 4096


class ExportingTls(QuicTlsBridge):
    """The library's TLS half, and what it keeps to itself: the exporter, and datagrams larger than an Ethernet's."""

    exporter: bytes | None = None

    def serialize_transport_parameters(self) -> bytes:
        """As the library's, but a client asks for datagrams that its network carries, not for 1472 bytes. A listener's
        core heeds that from its first packet on."""
        written = super().serialize_transport_parameters()
        if not self.configuration.is_client:
            return written
        parameters = pull_quic_transport_parameters(Buffer(data=written))
        size = self.configuration.max_datagram_size
        parameters.max_udp_payload_size = size if size == DATAGRAM_BYTES_MIN else max(1472, size)
        buffer = Buffer(capacity=_PARAMETERS_BYTES)
        push_quic_transport_parameters(buffer, parameters)
        data: bytes = buffer.data
        return data

    def next_crypto_data(self) -> QuicTlsCryptoData | None:
        """In pieces: before it has validated the dialler's address the core does not count the padding behind its first
        packet, and gives up, instead of waiting, on a frame that does not fit what it may still send."""
        crypto = super().next_crypto_data()
        if crypto is None or len(crypto.data) <= CRYPTO_PIECE_BYTES:
            return crypto
        rest = crypto.offset + CRYPTO_PIECE_BYTES, crypto.data[CRYPTO_PIECE_BYTES:]
        self._outbound.appendleft(QuicTlsCryptoData(crypto.epoch, *rest))
        return QuicTlsCryptoData(crypto.epoch, crypto.offset, crypto.data[:CRYPTO_PIECE_BYTES])

    def _on_traffic_secret(
        self, direction: tls.Direction, epoch: tls.Epoch, cipher_suite: tls.CipherSuite, secret: bytes
    ) -> None:
        super()._on_traffic_secret(direction, epoch, cipher_suite, secret)
        if epoch == tls.Epoch.ONE_RTT and self.exporter is None:
            # As with aioquic: the transcript ends here with the server's Finished (RFC 8446, 7.5).
            self.exporter = _exporter(self.tls.key_schedule)


def _exporter(schedule: Any) -> bytes:
    assert schedule is not None, "a 1-RTT key was just derived from it"
    master = schedule.derive_secret(b"exp master")
    empty, algorithm, size = schedule.hash_empty_value, schedule.algorithm, schedule.digest_size
    secret = tls.hkdf_expand_label(algorithm, master, EXPORTER_LABEL, empty, size)
    exporter: bytes = tls.hkdf_expand_label(algorithm, secret, b"exporter", empty, EXPORTER_BYTES)
    return exporter
