"""Busy polling: an event loop that stays awake for a little while after traffic, because the answer is near.

A process that sleeps is woken by the kernel, and finds its caches cold. On a virtual machine that costs more than all
that is done for a message (docs/benchmarks: a round trip with and without). Whoever has a core to spare for each agent
buys that time back with processor time; whoever has not leaves it off.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable


class BusyPoll:
    """After ``traffic`` the loop looks around for ``seconds`` without sleeping; 0 does nothing. Other processes that
    want the core have it between two looks."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._until = 0.0
        self._looking = False

    def traffic(self, now: float) -> None:
        """Something was sent or has come, on the running loop."""
        if self._seconds <= 0.0:
            return
        self._until = now + self._seconds
        if not self._looking:
            self._looking = True
            asyncio.get_running_loop().call_soon(self._look)

    def _look(self) -> None:
        self._looking = self._clock() < self._until
        if self._looking:
            os.sched_yield()
            asyncio.get_running_loop().call_soon(self._look)
