"""The estimator, some seconds of real processes, and the ten minutes of the soak (``SOAK_SECONDS`` says otherwise)."""

from __future__ import annotations

import json
import os
import random

import pytest

from protocol.quic.backend import TRANSPORTS
from tests.memory.run import SLOPE_MIB_PER_HOUR_MAX, Outcome, run
from tests.memory.slope import theil_sen

MIB = 1024 * 1024


def test_a_slope_is_found_among_noise_and_outliers() -> None:
    rng = random.Random(3)
    times = [number / 2 for number in range(1000)]
    values = [100 + 0.25 * at + rng.gauss(0, 5) for at in times]
    for number in range(0, 1000, 5):
        values[number] += 1000
    assert theil_sen(times, values) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("size", [2, 3, 599, 600, 601, 1201])
def test_a_straight_line_is_its_own_slope(size: int) -> None:
    assert theil_sen(list(range(size)), [7 - 2 * at for at in range(size)]) == pytest.approx(-2)


@pytest.mark.parametrize("size", [0, 1])
def test_a_point_has_no_slope(size: int) -> None:
    with pytest.raises(ValueError, match="at least two"):
        theil_sen([1.0] * size, [1.0] * size)


@pytest.mark.parametrize(("mib_per_hour", "rises"), [(0.0, False), (-300.0, False), (50.0, False), (80.0, True)])
def test_what_rises_is_called_so(mib_per_hour: float, rises: bool) -> None:
    """Above a saw-tooth of eight MiB, as queues that fill and empty make it."""
    outcome = Outcome("aioquic", 600.0)
    rng = random.Random(1)
    samples = [(at / 2, int(MIB * (80 + 8 * rng.random() + mib_per_hour * at / 7200))) for at in range(1200)]
    outcome.samples = {"trader-1": samples, "risk-1": [(at, 90 * MIB) for at, _ in samples]}
    assert (outcome.slopes["trader-1"] > SLOPE_MIB_PER_HOUR_MAX) is rises
    assert outcome.slopes["risk-1"] == 0


@pytest.mark.processes
def test_a_few_seconds_of_two_processes() -> None:
    outcome = run(6.0, "qh3")
    assert outcome.failure is None, outcome.figures()
    assert outcome.total("delivered") > 1000


@pytest.mark.soak
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("transport", TRANSPORTS)
def test_memory_does_not_rise(transport: str) -> None:
    """Two agents at full load for ten minutes; every four seconds new certificates, or an end of a connection."""
    outcome = run(float(os.environ.get("SOAK_SECONDS", "600")), transport)
    assert outcome.failure is None, json.dumps(outcome.figures(), indent=2)
