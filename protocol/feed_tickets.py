"""What a feed remembers of its visitors, so that a request may come with their next first packet, and only once.

Pure and bounded. A ticket is good for one connection, is forgotten when it is old or when too many newer ones are
there, and dies with the process: then, and whenever it is not found, the handshake is a full one and what was sent
early is sent again. So a first flight that somebody has recorded is served once at most, and after a restart never.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any, Final

TICKETS_MAX: Final = 1024
TICKET_LIFETIME_S: Final = 3600.0
NONCES_MAX: Final = 4096


class Tickets:
    """Session tickets that were issued and not used yet. What a ticket holds is the QUIC library's affair."""

    def __init__(self, limit: int = TICKETS_MAX, lifetime_s: float = TICKET_LIFETIME_S) -> None:
        self._limit = limit
        self._lifetime_s = lifetime_s
        self._kept: OrderedDict[bytes, tuple[float, Any]] = OrderedDict()
        self.counters: Counter[str] = Counter()

    def keep(self, label: bytes, ticket: Any, now: float) -> None:
        """A ticket was issued; the oldest makes room."""
        self.counters["tickets_issued"] += 1
        self._kept[label] = (now + self._lifetime_s, ticket)
        if len(self._kept) > self._limit:
            self._kept.popitem(last=False)

    def take(self, label: bytes, now: float) -> Any:
        """The ticket with that label, once; ``None`` when it is unknown, used or too old."""
        until, ticket = self._kept.pop(label, (0.0, None))
        taken = ticket if now <= until else None
        self.counters["tickets_used" if taken is not None else "tickets_unknown"] += 1
        return taken

    def forget(self) -> None:
        """All of them: whoever comes next has to see our certificate again."""
        self._kept.clear()

    def __len__(self) -> int:
        return len(self._kept)


class Nonces:
    """The last nonces of early requests: a second lock behind the tickets."""

    def __init__(self, limit: int = NONCES_MAX) -> None:
        self._limit = limit
        self._seen: OrderedDict[int, None] = OrderedDict()

    def fresh(self, nonce: int) -> bool:
        """Whether it is new; it is not from now on."""
        if nonce in self._seen:
            return False
        self._seen[nonce] = None
        if len(self._seen) > self._limit:
            self._seen.popitem(last=False)
        return True
