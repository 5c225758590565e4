"""Log lines that peers cause, strangers among them: enough to see what goes on, and never a way to fill a disk."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

LINES_MAX: Final = 10
WINDOW_S: Final = 60.0


class Allowance:
    """``LINES_MAX`` lines in each ``WINDOW_S`` that begins with a line. Pure."""

    def __init__(self) -> None:
        self._began = float("-inf")
        self._lines = 0
        self._unsaid = 0

    def take(self, now: float) -> int | None:
        """How many lines were left out before this one; ``None`` when this one is left out too."""
        if now - self._began >= WINDOW_S:
            self._began, self._lines = now, 0
        self._lines += 1
        if self._lines > LINES_MAX:
            self._unsaid += 1
            return None
        unsaid, self._unsaid = self._unsaid, 0
        return unsaid


class Blame:
    """Warns of what peers did, by event and reason, both labels of ours. What is left out is counted in the next line
    of its kind, as ``unsaid``; the counters of refusals have everything."""

    def __init__(self, logger: Any, clock: Callable[[], float]) -> None:
        self._logger = logger
        self._clock = clock
        self._allowances: dict[tuple[str, str], Allowance] = {}

    def warning(self, event: str, *, peer: str, reason: str, detail: str) -> None:
        """One line, unless there were too many of the kind lately."""
        unsaid = self._allowances.setdefault((event, reason), Allowance()).take(self._clock())
        if unsaid is not None:
            more = {"unsaid": unsaid} if unsaid else {}
            self._logger.warning(event, peer=peer, reason=reason, detail=detail, **more)
