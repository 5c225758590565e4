"""What went over the connections to one agent, for people and dashboards."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from protocol.peer import Peer


@dataclass(slots=True)
class Traffic:
    """Counters of one roster agent; they outlive its connections."""

    batches_out: int = 0
    messages_out: int = 0
    bytes_out: int = 0
    batches_in: int = 0
    messages_in: int = 0
    bytes_in: int = 0
    dials: int = 0
    connects: int = 0
    unsent: Counter[str] = field(default_factory=Counter)
    """Messages that ``send`` did not take, by reason."""
    datagrams: Counter[str] = field(default_factory=Counter)
    """DATAGRAM frames to and from this agent, by what became of them."""
    refused: Counter[str] = field(default_factory=Counter)
    """What we refused of this agent, connections and batches, by reason."""
    last_refusal: str | None = None
    """Why this agent refused us last."""


def statistics_of(traffic: Traffic, peer: Peer | None) -> dict[str, Any]:
    """One agent's line of ``Endpoint.statistics``, for JSON."""
    return {
        "connected": peer is not None,
        "epoch": peer.epoch if peer is not None else None,
        "rtt_ms": round(peer.round_trip_ms, 3) if peer is not None else None,
        "batches_out": traffic.batches_out,
        "messages_out": traffic.messages_out,
        "bytes_out": traffic.bytes_out,
        "batches_in": traffic.batches_in,
        "messages_in": traffic.messages_in,
        "bytes_in": traffic.bytes_in,
        "dials": traffic.dials,
        "reconnects": max(0, traffic.connects - 1),
        "held_bytes": peer.held_bytes if peer is not None else 0,
        "unsent": dict(traffic.unsent),
        "datagrams": dict(traffic.datagrams),
        "liveness": peer.pulse.gauges() if peer is not None and peer.pulse is not None else None,
        "refused": dict(traffic.refused),
        "last_refusal": traffic.last_refusal,
    }
