"""The clock's offset from made-up round trips: the truth lies within the bounds, whatever the delays and the drift."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.clock_offset import (
    CONTRADICTIONS_MAX,
    DRIFT_PPM_MAX,
    ROUND_TRIP_WINDOW_NS,
    TIME_NS_MAX,
    ClockOffset,
    Estimate,
    Verdict,
)

US, MS, SECOND = 1_000, 1_000_000, 1_000_000_000
HOUR_NS = 3600 * SECOND


class Peer:
    """A clock that is ahead by an offset and runs faster by a few millionths, and a path to it."""

    def __init__(self, offset_ns: int, drift_ppm: float = 0.0) -> None:
        self.offset_ns = offset_ns
        self.drift_ppm = drift_ppm

    def shows(self, now_ns: int) -> int:
        return self.offset_ns + now_ns + int(now_ns * self.drift_ppm / 1e6)

    def ahead(self, now_ns: int) -> int:
        return self.shows(now_ns) - now_ns

    def ask(self, clock: ClockOffset, asked_ns: int, there_ns: int, back_ns: int, held_ns: int = 0) -> Verdict:
        heard_ns = asked_ns + there_ns
        now_ns = heard_ns + held_ns + back_ns
        return clock.sample(asked_ns, self.shows(heard_ns), self.shows(heard_ns + held_ns), now_ns)


def test_a_known_round_trip() -> None:
    """There in 1 ms, held for 5 ms, back in 3 ms: the error is half the ways' difference, the bound half their sum."""
    clock = ClockOffset()
    assert clock.estimate(0) is None
    assert Peer(HOUR_NS).ask(clock, 100 * SECOND, 1 * MS, 3 * MS, 5 * MS) is Verdict.TAKEN
    away_drift = 9 * MS * DRIFT_PPM_MAX // 1_000_000
    found = clock.estimate(100 * SECOND + 9 * MS)
    assert found == Estimate(HOUR_NS - 1 * MS + away_drift // 2, 2 * MS + away_drift // 2, 4 * MS)


def test_a_negative_offset_and_a_symmetric_path() -> None:
    clock = ClockOffset()
    Peer(-7 * SECOND).ask(clock, 100 * SECOND, 200 * US, 200 * US)
    found = clock.estimate(100 * SECOND)
    assert found is not None and abs(found.offset_ns + 7 * SECOND) < 100 and 200 * US <= found.uncertainty_ns < 201 * US


DELAYS = st.integers(0, 50 * MS)
ROUNDS = st.lists(st.tuples(DELAYS, DELAYS, st.integers(0, 300 * MS), st.integers(0, 5 * SECOND)), max_size=60)


@given(
    ROUNDS,
    st.integers(-HOUR_NS, 1000 * HOUR_NS),
    st.floats(-DRIFT_PPM_MAX, DRIFT_PPM_MAX),
    st.integers(0, 20 * SECOND),
)
def test_the_truth_is_always_within_the_bounds(
    rounds: list[tuple[int, int, int, int]], offset_ns: int, drift_ppm: float, later_ns: int
) -> None:
    peer, clock, now_ns = Peer(offset_ns, drift_ppm * 0.999), ClockOffset(), 2 * HOUR_NS
    for there, back, held, pause in rounds:
        assert peer.ask(clock, now_ns, there, back, held) is Verdict.TAKEN
        now_ns += there + held + back
        for age in (0, later_ns):
            found = clock.estimate(now_ns + age)
            assert found is not None
            assert abs(peer.ahead(now_ns + age) - found.offset_ns) <= found.uncertainty_ns + 2
        now_ns += pause


def test_a_thousand_samples_are_surer_than_the_fastest_of_them() -> None:
    """Delays of 0.1 to 10 ms each way by chance: the fastest round trip alone leaves half of itself."""
    peer, clock, rng, fastest = Peer(5 * SECOND, 30), ClockOffset(), random.Random(3), 10**18
    for number in range(1000):
        there, back = (int(100 * US + rng.expovariate(1 / (2 * MS))) for _ in range(2))
        peer.ask(clock, number * 200 * MS, there, back)
        fastest = min(fastest, there + back)
    found = clock.estimate(1000 * 200 * MS)
    assert found is not None
    assert found.uncertainty_ns < fastest // 2 + 2 * MS
    assert found.uncertainty_ns < 1 * MS and abs(found.offset_ns - peer.ahead(1000 * 200 * MS)) < 500 * US


def test_one_sided_queues_do_not_fool_it() -> None:
    """The way there is always slow: the offset is off by half of that, and says so."""
    peer, clock = Peer(0), ClockOffset()
    for number in range(100):
        peer.ask(clock, number * SECOND, 20 * MS, 1 * MS)
    found = clock.estimate(100 * SECOND)
    assert found is not None and 10 * MS < found.uncertainty_ns < 12 * MS
    assert abs(found.offset_ns) <= found.uncertainty_ns


def test_it_grows_less_sure_by_the_drift_and_surer_by_a_sample() -> None:
    peer, clock = Peer(0), ClockOffset()
    peer.ask(clock, 0, 100 * US, 100 * US)
    first = clock.estimate(200 * US)
    later = clock.estimate(10 * SECOND + 200 * US)
    assert first is not None and later is not None
    assert later.uncertainty_ns - first.uncertainty_ns == 10 * SECOND * DRIFT_PPM_MAX // 1_000_000
    peer.ask(clock, 11 * SECOND, 100 * US, 100 * US)
    again = clock.estimate(11 * SECOND + 200 * US)
    assert again is not None and again.uncertainty_ns <= first.uncertainty_ns + 1


def test_the_fastest_round_trip_is_that_of_a_window() -> None:
    peer, clock = Peer(0), ClockOffset()
    peer.ask(clock, 0, 1 * MS, 1 * MS)
    for number in range(1, 25):
        peer.ask(clock, number * SECOND, 10 * MS, 10 * MS)
        found = clock.estimate(number * SECOND)
        assert found is not None
        assert (found.rtt_ns == 2 * MS) == (number * SECOND + 18 * MS < 2 * ROUND_TRIP_WINDOW_NS)


@pytest.mark.parametrize(
    ("asked", "heard", "answered", "now"),
    [
        (100, 50, 40, 200),  # answered before it was heard
        (100, 50, 10_000, 200),  # held for longer than it was away
        (100, 50, 60, 90),  # back before it left: not by our clock
        (100, TIME_NS_MAX, TIME_NS_MAX, 200),
        (100, 0, 2**64 - 1, 200),
        (100, -1, 0, 200),
    ],
)
def test_absurd_times_change_nothing(asked: int, heard: int, answered: int, now: int) -> None:
    clock = ClockOffset()
    assert clock.sample(asked, heard, answered, now) is Verdict.ABSURD
    assert clock.estimate(now) is None


def lies(rng: random.Random) -> Iterator[Callable[[int], tuple[int, int]]]:
    """What a peer may claim to have heard and answered at, by our time."""
    while True:
        jump = rng.choice((-1, 1)) * rng.randrange(10 * MS, HOUR_NS)
        yield lambda now, jump=jump: (now + jump, now + jump)


def test_single_lies_are_refused_and_the_truth_survives() -> None:
    peer, clock, rng = Peer(2 * HOUR_NS), ClockOffset(), random.Random(4)
    told = lies(rng)
    for number in range(500):
        now_ns = number * 200 * MS
        if number % 3 == 2:
            heard, answered = next(told)(peer.shows(now_ns))
            assert clock.sample(now_ns, heard, answered, now_ns + MS) is Verdict.CONTRADICTED
        else:
            assert peer.ask(clock, now_ns, 500 * US, 500 * US) is Verdict.TAKEN
    found = clock.estimate(500 * 200 * MS)
    assert found is not None and abs(found.offset_ns - 2 * HOUR_NS) <= found.uncertainty_ns < 2 * MS


def test_a_clock_that_was_set_is_believed_after_a_while() -> None:
    clock, now_ns = ClockOffset(), 0
    for _ in range(10):
        now_ns += SECOND
        Peer(0).ask(clock, now_ns, MS, MS)
    verdicts = []
    for _ in range(CONTRADICTIONS_MAX + 1):
        now_ns += SECOND
        verdicts.append(Peer(HOUR_NS).ask(clock, now_ns, MS, MS))
    contradicted = [Verdict.CONTRADICTED] * (CONTRADICTIONS_MAX - 1)
    assert verdicts == [*contradicted, Verdict.RESTARTED, Verdict.TAKEN]
    found = clock.estimate(now_ns)
    assert found is not None and abs(found.offset_ns - HOUR_NS) < 2 * MS


@given(st.lists(st.tuples(*[st.integers(0, 2**64 - 1)] * 2, st.integers(0, 10 * SECOND)), max_size=100))
def test_whatever_a_peer_says_numbers_stay_bounded(claims: list[tuple[int, int, int]]) -> None:
    clock, now_ns = ClockOffset(), HOUR_NS
    for heard, answered, pause in claims:
        now_ns += pause
        clock.sample(now_ns, heard, answered, now_ns + MS)
        found = clock.estimate(now_ns)
        if found is not None:
            assert abs(found.offset_ns) <= TIME_NS_MAX + now_ns and 0 <= found.uncertainty_ns < HOUR_NS
            assert 0 <= found.rtt_ns <= HOUR_NS
