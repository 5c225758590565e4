"""Whoever knocks all day fills no disk."""

from __future__ import annotations

from typing import Any

from protocol.blame import LINES_MAX, WINDOW_S, Allowance, Blame


class Lines:
    """A logger that remembers."""

    def __init__(self) -> None:
        self.written: list[tuple[str, dict[str, Any]]] = []

    def warning(self, event: str, **fields: Any) -> None:
        self.written.append((event, fields))


def test_a_window_has_so_many_lines_and_the_next_one_says_how_many_it_lacked() -> None:
    allowance = Allowance()
    assert [allowance.take(100.0) for _ in range(LINES_MAX)] == [0] * LINES_MAX
    assert [allowance.take(100.0 + WINDOW_S / 2) for _ in range(7)] == [None] * 7
    assert allowance.take(100.0 + WINDOW_S) == 7
    assert allowance.take(100.0 + WINDOW_S) == 0


def test_a_flood_of_one_kind_hides_no_other() -> None:
    lines, now = Lines(), [0.0]
    blame = Blame(lines, lambda: now[0])
    for _ in range(1000):
        blame.warning("peer_refused", peer="unknown", reason="handshake_failure", detail="")
    blame.warning("peer_offence", peer="risk-1", reason="sequence", detail="5 after 7")
    assert len(lines.written) == LINES_MAX + 1
    assert lines.written[-1] == ("peer_offence", {"peer": "risk-1", "reason": "sequence", "detail": "5 after 7"})
    now[0] = WINDOW_S
    blame.warning("peer_refused", peer="unknown", reason="handshake_failure", detail="")
    assert lines.written[-1][1]["unsaid"] == 1000 - LINES_MAX
