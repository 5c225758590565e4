"""Heartbeats of one connection: their bytes, when they are due, and what they say about the peer. Pure.

A heartbeat is one DATAGRAM frame of 40 bytes. The dialler sends one an interval, and the listener answers it at once:
the answer carries the acknowledgement, which would else cost a packet of its own. An end that hears nothing goes on by
itself, so that each can tell which direction is broken. A heartbeat holds two stamps of its sender's clock: when it was
sent, and when the last one of the other end was heard.
"""

from __future__ import annotations

import struct
from collections import Counter, OrderedDict
from typing import Final, NamedTuple

from protocol.clock_offset import ClockOffset, Estimate, Verdict
from protocol.errors import PeerViolation
from protocol.suspicion import Change, Patience, Suspicion

HEARTBEAT: Final = 1
"""First byte of the datagram. Datagrams of other kinds are counted and left alone: a newer peer may send some."""
LAYOUT: Final = struct.Struct("<B7xQQQQ")
HEARTBEAT_BYTES: Final = LAYOUT.size
ASKED_MAX: Final = 64
"""Answers to older heartbeats say nothing about the clock that newer ones do not."""
MISSED_MAX: Final = 1000
"""No gap in the numbers counts for more: they are the peer's to choose."""


class Heartbeat(NamedTuple):
    """What one says. Times are nanoseconds of the sender's monotonic clock."""

    number: int
    """From 1, one more each time."""
    sent_at_ns: int
    heard_number: int
    """The last one that the sender has heard; 0 for none."""
    heard_at_ns: int


def write_heartbeat(beat: Heartbeat) -> bytes:
    """The bytes of one datagram."""
    return LAYOUT.pack(HEARTBEAT, *beat)


def read_heartbeat(data: bytes) -> Heartbeat | None:
    """``None`` for another kind of datagram. What follows the known fields is a newer peer's. Raises ``PeerViolation``
    (``heartbeat_malformed``)."""
    if not data or data[0] != HEARTBEAT:
        return None
    if len(data) < HEARTBEAT_BYTES:
        raise PeerViolation("heartbeat_malformed", f"{len(data)} bytes")
    beat = Heartbeat(*LAYOUT.unpack_from(data)[1:])
    if not beat.number:
        raise PeerViolation("heartbeat_malformed", "number 0")
    return beat


class Liveness:
    """Both directions of one connection. ``counts`` outlives it: what was sent, heard, lost and overtaken."""

    def __init__(self, patience: Patience, counts: Counter[str], *, leads: bool) -> None:
        self._interval_ns = patience.interval_ns
        # By a timer that ticks once an interval: who leads may be a little early, who follows gives an answer the time.
        self._patience_ns = self._interval_ns * (3 if leads else 5) // 4
        self._suspicion = Suspicion(patience)
        self._counts = counts
        self._number = 0
        self._sent_at_ns: int | None = None
        self._heard = Heartbeat(0, 0, 0, 0)
        self._heard_at_ns = 0
        self._changes: list[Change] = []
        self._asked: OrderedDict[int, int] = OrderedDict()
        """When our latest heartbeats were sent, by number: the peer only says which one it heard, and cannot lie."""
        self._clock = ClockOffset()

    # --- sending ----------------------------------------------------------------------------------------------------

    def due(self, now_ns: int) -> bool:
        """Whether to send one of our own accord."""
        return self._silent_for(now_ns, self._patience_ns)

    def beat(self, now_ns: int) -> bytes:
        """The next heartbeat, to be sent now."""
        self._number += 1
        self._sent_at_ns = now_ns
        self._asked[self._number] = now_ns
        if len(self._asked) > ASKED_MAX:
            self._asked.popitem(last=False)
        self._counts["heartbeats_out"] += 1
        return write_heartbeat(Heartbeat(self._number, now_ns, self._heard.number, self._heard_at_ns))

    def _silent_for(self, now_ns: int, span_ns: int) -> bool:
        return self._sent_at_ns is None or now_ns - self._sent_at_ns >= span_ns

    # --- hearing ----------------------------------------------------------------------------------------------------

    def heard(self, data: bytes, now_ns: int) -> bool:
        """A datagram has come; true when a heartbeat should answer it now. Raises ``PeerViolation``."""
        beat = read_heartbeat(data)
        if beat is None:
            self._counts["unknown"] += 1
            return False
        if beat.number <= self._heard.number:
            self._counts["heartbeats_late"] += 1  # another one has overtaken it on the way
            return False
        self._counts["heartbeats_in"] += 1
        if self._heard.number:
            self._counts["heartbeats_missed"] += min(beat.number - self._heard.number - 1, MISSED_MAX)
        self._heard, self._heard_at_ns = beat, now_ns
        self._read_clock(beat, now_ns)
        self._note(self._suspicion.heard(now_ns))
        return self._silent_for(now_ns, self._interval_ns // 2)

    def _read_clock(self, beat: Heartbeat, now_ns: int) -> None:
        if not beat.heard_number:
            return
        asked_ns = self._asked.get(beat.heard_number)
        if asked_ns is None:
            self._counts["clock_unasked"] += 1  # longer ago than we remember, or never sent
            return
        verdict = self._clock.sample(asked_ns, beat.heard_at_ns, beat.sent_at_ns, now_ns)
        if verdict is not Verdict.TAKEN:
            self._counts[verdict.value] += 1

    def judge(self, now_ns: int) -> None:
        """Look at the silence so far. Not right after a pause of our own: what has come in it is still unread."""
        self._note(self._suspicion.judge(now_ns))

    def _note(self, change: Change | None) -> None:
        if change is not None:
            self._changes.append(change)
            self._counts[change.value] += 1

    def take_changes(self) -> list[Change]:
        """What its owner has to be told, in order."""
        changes, self._changes = self._changes, []
        return changes

    # --- gauges -----------------------------------------------------------------------------------------------------

    @property
    def suspected(self) -> bool:
        return self._suspicion.suspected

    def phi(self, now_ns: int) -> float:
        """How strange the present silence is."""
        return self._suspicion.phi(now_ns)

    def clock(self, now_ns: int) -> Estimate | None:
        """How far the peer's clock is ahead of ours; ``None`` before the first answer."""
        return self._clock.estimate(now_ns)

    @property
    def mean_gap_ns(self) -> float:
        return self._suspicion.mean_gap_ns
