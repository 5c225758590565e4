"""Who has broken the rules how often, and who is kept out for it. Pure; bounded by the roster."""

from __future__ import annotations

from collections import deque
from typing import Final

OFFENCES_MAX: Final = 3
OFFENCE_WINDOW_S: Final = 60.0
BAN_S: Final = 30.0
"""How long a peer stays out after too many offences."""


class Offences:
    """By roster position; times are seconds of one clock."""

    def __init__(self) -> None:
        self._offences: dict[int, deque[float]] = {}
        self._banned_until: dict[int, float] = {}

    def add(self, index: int, now: float) -> bool:
        """One more; true when it was one too many in a short time, and a ban begins."""
        offences = self._offences.setdefault(index, deque(maxlen=OFFENCES_MAX))
        offences.append(now)
        if len(offences) < OFFENCES_MAX or now - offences[0] > OFFENCE_WINDOW_S:
            return False
        offences.clear()
        self._banned_until[index] = now + BAN_S
        return True

    def banned_for(self, index: int, now: float) -> float:
        """Seconds that the ban still lasts; 0 or less when there is none."""
        return self._banned_until.get(index, 0.0) - now

    @property
    def bans(self) -> int:
        """How many agents have ever been kept out."""
        return len(self._banned_until)
