"""Busy polling: how long the loop stays awake, with a clock of ours."""

from __future__ import annotations

import asyncio

from protocol.quic.polling import BusyPoll


class Clock:
    """Moves by a second whenever it is asked."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0

    def __call__(self) -> float:
        self.now += 1.0
        self.asked += 1
        return self.now


async def test_the_loop_stays_awake_for_as_long_as_it_is_told() -> None:
    clock = Clock()
    polling = BusyPoll(10.0, clock)
    polling.traffic(clock.now)
    for _ in range(20):
        await asyncio.sleep(0)
    assert clock.asked == 10
    for _ in range(5):
        polling.traffic(clock.now)
        await asyncio.sleep(0)
    for _ in range(20):
        await asyncio.sleep(0)
    assert clock.asked == 10 + 4 + 10, "every message begins the time anew, and there is one look at a time"


async def test_without_a_time_nobody_stays_awake() -> None:
    clock = Clock()
    BusyPoll(0.0, clock).traffic(0.0)
    await asyncio.sleep(0)
    assert clock.asked == 0
