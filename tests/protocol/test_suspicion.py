"""The phi-accrual detector: known values, laws that hold for any arrivals, and a mind that does not flap."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.suspicion import GAPS_MAX, PHI_MAX, Change, Patience, PhiAccrual, Suspicion

MS = 1_000_000
PATIENCE = Patience(100 * MS)
"""Pause 500 ms, deviation 50 ms at least."""
GAPS = st.lists(st.integers(0, 5_000 * MS), max_size=3 * GAPS_MAX)


def steady(count: int = 200, gap_ns: int = 100 * MS, detector: PhiAccrual | None = None) -> tuple[PhiAccrual, int]:
    """A detector that has heard as many even heartbeats, and when the last one came."""
    detector = detector or PhiAccrual(PATIENCE)
    for number in range(count):
        detector.heard(number * gap_ns)
    return detector, (count - 1) * gap_ns


@pytest.mark.parametrize(
    ("silence_ms", "phi"),
    [
        (0, 0.0),
        (600, 0.30103),  # mean and pause: one half
        (650, 0.79955),  # one deviation more: 0.15866
        (700, 1.64302),  # two: 0.02275
        (850, 6.54265),  # five: 2.8665e-7
        (1100, 23.11805),  # ten: 7.6199e-24
        (60_000, PHI_MAX),
    ],
)
def test_known_values_of_the_normal_tail(silence_ms: int, phi: float) -> None:
    detector, last_ns = steady()
    assert detector.phi(last_ns + silence_ms * MS) == pytest.approx(phi, abs=1e-5)


def test_a_wider_history_is_more_patient() -> None:
    """Gaps of 0 and 200 ms in turn: mean 100 ms, deviation 100 ms; one deviation beyond mean and pause is 0.15866."""
    detector, now_ns = PhiAccrual(PATIENCE), 0
    for number in range(2 * GAPS_MAX + 1):
        now_ns += 200 * MS * (number % 2)
        detector.heard(now_ns)
    assert detector.mean_gap_ns == 100 * MS
    assert detector.phi(now_ns + 700 * MS) == pytest.approx(-math.log10(0.1586552539), abs=1e-6)


def test_nothing_is_strange_about_a_peer_that_never_began() -> None:
    detector = PhiAccrual(PATIENCE)
    assert detector.phi(10**18) == 0.0 and detector.mean_gap_ns == 0.0


@given(GAPS, st.lists(st.integers(0, 20_000 * MS), min_size=2, max_size=20))
def test_phi_never_falls_while_the_peer_is_silent(gaps: list[int], silences: list[int]) -> None:
    detector, now_ns = PhiAccrual(PATIENCE), 0
    for gap in gaps:
        now_ns += gap
        detector.heard(now_ns)
    phis = [detector.phi(now_ns + silence) for silence in sorted(silences)]
    assert phis == sorted(phis)
    assert all(0.0 <= phi <= PHI_MAX for phi in phis)


@given(GAPS.filter(bool))
def test_an_arrival_makes_it_small_again_and_memory_stays_bounded(gaps: list[int]) -> None:
    detector, now_ns = PhiAccrual(PATIENCE), 0
    for gap in gaps:
        now_ns += gap
        detector.heard(now_ns)
        assert detector.phi(now_ns) < 0.30103 + 1e-6, "no more than even odds at the moment of arrival"
    assert len(detector._gaps) <= GAPS_MAX
    assert detector._sum == sum(detector._gaps)
    assert detector._sum_of_squares == sum(gap * gap for gap in detector._gaps)


@given(st.lists(st.integers(-1_000 * MS, 1_000 * MS), max_size=50))
def test_a_clock_that_steps_back_does_no_harm(steps: list[int]) -> None:
    detector, now_ns = PhiAccrual(PATIENCE), 0
    for step in steps:
        now_ns += step
        detector.heard(now_ns)
        assert 0.0 <= detector.phi(now_ns) <= PHI_MAX
        assert all(gap >= 0 for gap in detector._gaps)


def test_an_outage_does_not_blind_the_detector() -> None:
    """After an hour of silence and a window's tenth of even heartbeats, two seconds of it are strange again."""
    detector, last_ns = steady()
    began_ns = last_ns + 3_600_000 * MS
    for number in range(GAPS_MAX // 10):
        detector.heard(began_ns + number * 100 * MS)
    assert detector.phi(began_ns + 900 * MS + 2_000 * MS) > PATIENCE.suspect_phi


def test_it_follows_a_peer_that_beats_more_slowly() -> None:
    detector, last_ns = steady()
    assert detector.phi(last_ns + 900 * MS) > PATIENCE.suspect_phi
    detector, last_ns = steady(gap_ns=800 * MS, detector=detector)
    assert detector.phi(last_ns + 900 * MS) < PATIENCE.trust_phi


# --- a mind ---


def changes(arrivals_ms: list[float], until_ms: float) -> list[tuple[int, str]]:
    """What is said about a peer that is looked at every 10 ms, and when."""
    suspicion, waiting, found = Suspicion(PATIENCE), [int(at * MS) for at in arrivals_ms], []
    for now_ms in range(0, int(until_ms), 10):
        while waiting and waiting[0] <= now_ms * MS:
            change = suspicion.heard(waiting.pop(0))
            found += [(now_ms, change.value)] if change else []
        change = suspicion.judge(now_ms * MS)
        found += [(now_ms, change.value)] if change else []
    return found


def test_silence_is_suspected_once_and_trust_takes_three_heartbeats_in_time() -> None:
    steady_ms = [100.0 * number for number in range(50)]
    back_ms = [10_000 + 100.0 * number for number in range(50)]
    assert changes(steady_ms + back_ms, 15_000) == [(4_900 + 890, "suspected"), (10_300, "recovered")]


def test_one_heartbeat_in_a_long_silence_changes_nothing() -> None:
    """It resets phi, but neither takes the suspicion back nor repeats it."""
    steady_ms = [100.0 * number for number in range(50)]
    found = changes([*steady_ms, 8_000.0, 8_050.0], 20_000)
    assert [what for _, what in found] == ["suspected"]


@pytest.mark.parametrize("loss", [0.01, 0.1])
def test_a_lossy_path_with_jitter_is_not_suspected(loss: float) -> None:
    """An hour of heartbeats, each up to 30 ms late, of which so many are lost."""
    rng = random.Random(5)
    arrivals = [100.0 * number + rng.uniform(0, 30) for number in range(36_000) if rng.random() >= loss]
    suspicion, said = Suspicion(PATIENCE), []
    for early, late in itertools.pairwise(arrivals):
        said.append(suspicion.heard(int(early * MS)))
        said.append(suspicion.judge(int(late * MS) - 1))
    assert sum(change is Change.SUSPECTED for change in said) == 0
