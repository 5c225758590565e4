"""The congestion window against the library's own, number for number."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest
from aioquic.quic.congestion.base import create_congestion_control
from aioquic.quic.congestion.reno import RenoCongestionControl

from protocol.quic.newreno import NAME, NewReno


def test_the_library_makes_it_by_its_name() -> None:
    assert isinstance(create_congestion_control(NAME, max_datagram_size=1200), NewReno)


@pytest.mark.parametrize("seed", range(8))
def test_same_window_as_the_librarys(seed: int) -> None:
    """Packets that leave, arrive, are lost or expire, round trips that grow, and a network that is gone for a while."""
    rng = random.Random(seed)
    ours: Any = NewReno(max_datagram_size=1200)
    theirs: Any = RenoCongestionControl(max_datagram_size=1200)
    now, round_trip_s, flight = 100.0, 0.001, []
    windows, thresholds = set(), set()
    for _ in range(3_000):
        now += rng.choice((0.0001, 0.002))
        if rng.random() < 0.6:
            packet = SimpleNamespace(sent_bytes=rng.randint(40, 1200), sent_time=now)
            flight.append(packet)
            _both(ours, theirs, "on_packet_sent", packet=packet)
        elif flight:
            some = [flight.pop(0) for _ in range(rng.randint(1, min(3, len(flight))))]
            fate = rng.random()
            if fate < 0.02:
                _both(ours, theirs, "on_packets_lost", now=now, packets=some)
            elif fate < 0.03:
                _both(ours, theirs, "on_packets_expired", packets=some)
            else:
                for packet in some:
                    _both(ours, theirs, "on_packet_acked", now=now, packet=packet)
                round_trip_s *= rng.choice((0.99, 1.02))
                _both(ours, theirs, "on_rtt_measurement", now=now, rtt=round_trip_s)
        if rng.random() < 0.001:
            _both(ours, theirs, "on_persistent_congestion")
        state = ours.bytes_in_flight, ours.congestion_window, ours.ssthresh
        assert state == (theirs.bytes_in_flight, theirs.congestion_window, theirs.ssthresh)
        windows.add(state[1])
        thresholds.add(state[2])
    assert len(windows) > 100 and len(thresholds) > 2


def _both(ours: Any, theirs: Any, name: str, **arguments: Any) -> None:
    getattr(ours, name)(**arguments)
    getattr(theirs, name)(**arguments)
