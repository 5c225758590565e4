"""Whether a path carries the datagrams that a profile wants: a few padded probes at the start, echoed or lost. Pure.

A path may carry less than its profile says: a tunnel, a bridge with a smaller MTU. Handshakes and acknowledgements
pass, large batches never do. Every path carries 1200 bytes (RFC 9000, 14), and none says so when it drops more.
"""

from __future__ import annotations

from enum import Enum
from typing import Final

from protocol.errors import PeerViolation

PATH_PROBE: Final = 2
PATH_ECHO: Final = 3
"""First bytes of the two datagrams; the second byte is the probe's number."""
PROBES_MAX: Final = 5
"""All of them lost by chance, of 5 % lost: three in ten million."""


class Verdict(Enum):
    """What the probes have shown."""

    CARRIES = "path_carries"
    NARROW = "path_narrow"


class PathSize:
    """Probes of one direction of one connection."""

    def __init__(self) -> None:
        self._sent = 0
        self._verdict: Verdict | None = None

    def probe(self) -> bytes | None:
        """The beginning of the next probe, to be padded and sent now. Asked for once at the start, then once an
        interval; ``None`` when there is nothing more to ask, or to hope for."""
        if self._verdict is not None or self._sent == PROBES_MAX:
            return None
        self._sent += 1
        return bytes((PATH_PROBE, self._sent))

    def verdict(self) -> Verdict | None:
        """To be asked an interval after each probe: new findings only."""
        if self._verdict is not None or self._sent < PROBES_MAX:
            return None
        self._verdict = Verdict.NARROW
        return self._verdict

    def echoed(self, data: bytes) -> Verdict | None:
        """An echo has come, perhaps after we gave up. Raises ``PeerViolation`` for one of a probe never sent."""
        if len(data) < 2 or not 1 <= data[1] <= self._sent:
            raise PeerViolation("path_echo_malformed", data[:2].hex())
        if self._verdict is Verdict.CARRIES:
            return None
        self._verdict = Verdict.CARRIES
        return self._verdict


def echo(data: bytes) -> bytes:
    """The answer to a probe: small, whatever its size."""
    return bytes((PATH_ECHO,)) + data[1:2]
