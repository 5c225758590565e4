"""What a connection needs from the endpoint, or the probe, that it belongs to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from protocol.batch import BatchLimits
from protocol.codec import Codec
from protocol.errors import PeerViolation
from protocol.greeting import Greeter
from protocol.messages import Message
from protocol.quic.link import Closed
from protocol.roster import Agent
from protocol.traffic import Traffic

if TYPE_CHECKING:
    from protocol.peer import Peer


class PeerHost(Protocol):
    """Implemented by ``endpoint.Endpoint`` and by the probe."""

    codec: Codec
    greeter: Greeter
    limits: BatchLimits

    def traffic_of(self, agent: Agent) -> Traffic: ...

    def reason_to_refuse(self, peer: Peer) -> str | None:
        """A peer has greeted well; say why it is not welcome all the same, or ``None``."""

    def on_greeted(self, peer: Peer) -> None: ...

    def on_message(self, peer: Peer, trace: int, message: Message) -> None: ...

    def on_offence(self, peer: Peer, violation: PeerViolation) -> bool:
        """Count it; true when it was one too many."""

    def on_gone(self, peer: Peer, closed: Closed) -> None: ...

    def want_flush(self, peer: Peer) -> None: ...
