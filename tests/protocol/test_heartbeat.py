"""Heartbeats of one connection without a connection: bytes, rhythm, and what is put down."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PeerViolation
from protocol.heartbeat import (
    ASKED_MAX,
    HEARTBEAT,
    HEARTBEAT_BYTES,
    MISSED_MAX,
    Heartbeat,
    Liveness,
    read_heartbeat,
    write_heartbeat,
)
from protocol.suspicion import Change, Patience

MS = 1_000_000
INTERVAL_NS = 200 * MS
PATIENCE = Patience(INTERVAL_NS)
UNSIGNED = st.integers(0, 2**64 - 1)


@given(st.builds(Heartbeat, st.integers(1, 2**64 - 1), UNSIGNED, UNSIGNED, UNSIGNED), st.binary(max_size=20))
def test_bytes_come_back_and_a_newer_peer_may_say_more(beat: Heartbeat, more: bytes) -> None:
    assert read_heartbeat(write_heartbeat(beat) + more) == beat


@given(st.binary(max_size=100))
def test_rubbish_is_unknown_or_malformed(data: bytes) -> None:
    try:
        beat = read_heartbeat(data)
    except PeerViolation as violation:
        assert violation.reason == "heartbeat_malformed" and data[0] == HEARTBEAT
    else:
        assert beat is None or (len(data) >= HEARTBEAT_BYTES and beat.number > 0)


@pytest.mark.parametrize("data", [b"\x01", bytes([1]) + bytes(HEARTBEAT_BYTES - 2), bytes([1]) + bytes(39)])
def test_short_ones_and_number_0_are_malformed(data: bytes) -> None:
    with pytest.raises(PeerViolation, match="heartbeat_malformed"):
        read_heartbeat(data)


class Two:
    """Two ends and a path of 1 ms each way, with a clock in milliseconds. ``deaf`` ends hear nothing."""

    def __init__(self, follower_phase_ms: int = 0) -> None:
        self.counts = (Counter[str](), Counter[str]())
        self.ends = tuple(
            Liveness(PATIENCE, counts, leads=leads) for counts, leads in zip(self.counts, (True, False), strict=True)
        )
        self.phases = (0, follower_phase_ms)
        self.on_the_way: list[tuple[int, int, bytes]] = []
        self.deaf: set[int] = set()
        self.now_ms = 0
        self.said: list[tuple[int, int, Change]] = []

    def live(self, until_ms: int) -> None:
        while self.now_ms < until_ms:
            for side, end in enumerate(self.ends):
                if self.now_ms % 200 == self.phases[side]:
                    if end.due(self.now_ms * MS):
                        self.send(side)
                    end.judge(self.now_ms * MS)
                    self.said += [(self.now_ms, side, change) for change in end.take_changes()]
            self.now_ms += 1
            arriving = [(to, data) for at, to, data in self.on_the_way if at == self.now_ms]
            self.on_the_way = [each for each in self.on_the_way if each[0] != self.now_ms]
            for to, data in arriving:
                if to not in self.deaf and self.ends[to].heard(data, self.now_ms * MS):
                    self.send(to)

    def send(self, side: int) -> None:
        self.on_the_way.append((self.now_ms + 1, 1 - side, self.ends[side].beat(self.now_ms * MS)))


@pytest.mark.parametrize("phase_ms", [0, 1, 50, 100, 149, 150, 151, 198, 199])
def test_two_ends_fall_into_step(phase_ms: int) -> None:
    """Whatever their timers' phases: one heartbeat an interval each way, every one an answer but the leader's."""
    two = Two(phase_ms)
    two.live(20_000)
    for counts in two.counts:
        assert 99 <= counts["heartbeats_out"] <= 102
        assert counts["heartbeats_missed"] == counts["heartbeats_late"] == 0
    assert two.said == []


@pytest.mark.parametrize("deaf", [0, 1])
def test_only_the_deaf_end_suspects_the_other(deaf: int) -> None:
    """One direction is cut: the other end still hears, because who hears nothing goes on by itself."""
    two = Two(70)
    two.live(10_000)
    two.deaf.add(deaf)
    two.live(30_000)
    two.deaf.clear()
    two.live(40_000)
    assert [(side, change) for _, side, change in two.said] == [(deaf, Change.SUSPECTED), (deaf, Change.RECOVERED)]
    assert 10_500 < two.said[0][0] < 12_500 and 30_000 < two.said[1][0] < 31_500
    assert two.counts[deaf]["suspected"] == two.counts[deaf]["recovered"] == 1
    assert two.counts[deaf]["heartbeats_missed"] >= 60


def test_a_flood_is_answered_no_faster_than_twice_an_interval() -> None:
    end = Liveness(PATIENCE, Counter(), leads=False)
    answers = 0
    for number in range(1, 10_001):
        now_ns = number * MS // 10
        if end.heard(write_heartbeat(Heartbeat(number, 0, 0, 0)), now_ns):
            end.beat(now_ns)
            answers += 1
    assert answers == 10


def test_overtaken_and_repeated_ones_do_not_count_as_signs_of_life() -> None:
    counts: Counter[str] = Counter()
    end = Liveness(PATIENCE, counts, leads=True)
    for number in (1, 2, 5, 4, 5, 3):
        end.heard(write_heartbeat(Heartbeat(number, 0, 0, 0)), number * 100 * MS)
    assert counts == {"heartbeats_in": 3, "heartbeats_late": 3, "heartbeats_missed": 2}


def test_a_liar_s_numbers_are_bounded() -> None:
    counts: Counter[str] = Counter()
    end = Liveness(PATIENCE, counts, leads=True)
    for number in (1, 2**64 - 1):
        end.heard(write_heartbeat(Heartbeat(number, 0, 0, 0)), number)
    assert counts["heartbeats_missed"] == MISSED_MAX


def test_both_ends_know_the_round_trip_and_each_other_s_clock() -> None:
    two = Two(70)
    two.live(5_000)
    for end in two.ends:
        found = end.clock(two.now_ms * MS)
        assert found is not None and found.rtt_ns == 2 * MS
        assert abs(found.offset_ns) <= found.uncertainty_ns < 1.1 * MS
    assert not any(name.startswith("clock") for counts in two.counts for name in counts)


@pytest.mark.parametrize(
    ("beat", "reason"),
    [
        (Heartbeat(1, 5, 77, 5), "clock_unasked"),
        (Heartbeat(1, 5, 2**64 - 1, 5), "clock_unasked"),
        (Heartbeat(1, 5, 1, 6), "clock_absurd"),
        (Heartbeat(1, 2**64 - 1, 1, 2**64 - 1), "clock_absurd"),
    ],
)
def test_lies_about_time_are_counted_and_not_believed(beat: Heartbeat, reason: str) -> None:
    counts: Counter[str] = Counter()
    end = Liveness(PATIENCE, counts, leads=True)
    end.beat(1_000)
    end.heard(write_heartbeat(beat), 2_000)
    assert counts[reason] == 1 and counts["heartbeats_in"] == 1
    assert end.clock(2_000) is None


def test_the_memory_of_what_was_sent_is_bounded() -> None:
    counts: Counter[str] = Counter()
    end = Liveness(PATIENCE, counts, leads=True)
    for number in range(10 * ASKED_MAX):
        end.beat(number)
    assert len(end._asked) == ASKED_MAX
    end.heard(write_heartbeat(Heartbeat(1, 5, 9 * ASKED_MAX, 5)), 10_000)
    assert counts["clock_unasked"] == 1
    end.heard(write_heartbeat(Heartbeat(2, 5, 9 * ASKED_MAX + 1, 5)), 10_000)
    assert counts["clock_unasked"] == 1 and end.clock(10_000) is not None


def test_an_answer_says_what_was_heard_and_when() -> None:
    ends = [Liveness(PATIENCE, Counter(), leads=leads) for leads in (True, False)]
    assert read_heartbeat(ends[0].beat(1_000)) == Heartbeat(1, 1_000, 0, 0)
    assert ends[1].heard(ends[0].beat(2_000), 3_000)
    assert read_heartbeat(ends[1].beat(4_000)) == Heartbeat(1, 4_000, 2, 3_000)
