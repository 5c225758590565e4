"""When to ask peers for decided slots, and how often a peer is answered."""

from __future__ import annotations


class CatchUp:
    """The timer of SLOT-REQUEST: at once after a start, soon when there is evidence of a gap, seldom when idle.

    Anybody can forge the evidence, so it only ever brings the next request forward to ``resend_ns`` after the last.
    """

    def __init__(self, resend_ns: int, probe_ns: int) -> None:
        self._resend_ns = resend_ns
        self._probe_ns = probe_ns
        self._asked_at_ns: int | None = None
        self._hurried = False

    def hurry(self) -> None:
        self._hurried = True

    def asked(self, now_ns: int) -> None:
        self._asked_at_ns = now_ns
        self._hurried = False

    @property
    def deadline_ns(self) -> int:
        if self._asked_at_ns is None:
            return 0
        return self._asked_at_ns + (min(self._resend_ns, self._probe_ns) if self._hurried else self._probe_ns)


class PeerBudget:
    """At most ``count_max`` answers to each peer within one interval, so that no peer turns us into an amplifier."""

    def __init__(self, count_max: int, interval_ns: int) -> None:
        self._count_max = count_max
        self._interval_ns = interval_ns
        self._spent: dict[int, tuple[int, int]] = {}

    def spend(self, peer: int, now_ns: int) -> bool:
        """Take one answer to ``peer`` from its budget; False when there is none left."""
        started_ns, count = self._spent.get(peer, (now_ns, 0))
        if now_ns - started_ns >= self._interval_ns:
            started_ns, count = now_ns, 0
        if count >= self._count_max:
            return False
        self._spent[peer] = (started_ns, count + 1)
        return True
