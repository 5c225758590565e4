"""Counts decisions: every intent once, by its final outcome, however often and by whatever path it was submitted."""

from __future__ import annotations

from collections import Counter
from typing import Final

from protocol.codes import DenyCode, Path

_PENDING: Final = -1

REFUSED_BY_TIME: Final = frozenset({DenyCode.QUORUM_MISSING, DenyCode.LANE_UNAVAILABLE, DenyCode.SPINE_UNAVAILABLE})
"""What the trader says when a frame has expired undecided. The gate releases nothing of it any more."""


class DecisionTally:
    """One trader's decisions, or with several traders' keys everybody's. Pure."""

    def __init__(self) -> None:
        self._outcomes: dict[tuple[int, int], tuple[int, int]] = {}
        """(trader, sequence) -> (path, deny code or pending)."""

    def propose(self, trader: int, sequence: int, path: Path) -> None:
        self._outcomes.setdefault((trader, sequence), (path, _PENDING))

    def settle(self, trader: int, sequence: int, path: int, code: int) -> None:
        """An approval stands whatever is said later; a denial gives way to it (the frame escalated, say).

        One that comes after the time ran out changes nothing, unless ``released`` proves that an order had left.
        """
        key = (trader, sequence)
        _, known = self._outcomes.get(key, (0, _PENDING))
        if known != DenyCode.APPROVED and known not in REFUSED_BY_TIME:
            self._outcomes[key] = (path, code)

    def released(self, trader: int, sequence: int) -> None:
        """An order of this intent has left for the venue: it was decided in time, whatever we thought."""
        path, code = self._outcomes.get((trader, sequence), (Path.LANE, _PENDING))
        if code in REFUSED_BY_TIME:
            self._outcomes[(trader, sequence)] = (path, DenyCode.APPROVED)

    def code(self, trader: int, sequence: int) -> int | None:
        """The deny code so far, 0 for approved, None while nothing is known."""
        code = self._outcomes.get((trader, sequence), (0, _PENDING))[1]
        return None if code == _PENDING else code

    def counts(self) -> dict[str, object]:
        """The report's ``decisions`` object. ``routine`` and ``critical`` count committed ones by path."""
        codes = Counter(code for _, code in self._outcomes.values())
        committed = [path for path, code in self._outcomes.values() if code == DenyCode.APPROVED]
        denied = {code: count for code, count in codes.items() if code not in (DenyCode.APPROVED, _PENDING)}
        return {
            "proposed": len(self._outcomes),
            "committed": len(committed),
            "routine": committed.count(Path.LANE),
            "critical": committed.count(Path.SPINE),
            "denied": sum(denied.values()),
            "pending": codes[_PENDING],
            "by_code": {code_name(code): count for code, count in sorted(denied.items())},
        }

    def rows(self) -> list[tuple[int, int, int, int]]:
        """For the trader's own records: (trader, sequence, path, code) of what has been refused without a log entry."""
        return [(*key, *outcome) for key, outcome in self._outcomes.items() if outcome[1] not in (0, _PENDING)]


def code_name(code: int) -> str:
    """A deny code's stable name. A lying voter may deny with a number that has none."""
    return DenyCode(code).name if code in DenyCode._value2member_map_ else f"CODE_{code}"
