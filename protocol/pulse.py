"""The shell around heartbeats: a clock, a link and one timer for all connections of an endpoint."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, Final

from protocol.heartbeat import HEARTBEAT_BYTES, Liveness
from protocol.path_size import PATH_ECHO, PATH_PROBE, PathSize, Verdict, echo
from protocol.quic.link import Link
from protocol.quic.settings import DATAGRAM_BYTES_MIN
from protocol.roster import Agent
from protocol.suspicion import Change, Patience
from protocol.traffic import Traffic

NANOSECONDS: Final = 1_000_000_000
Clock = Callable[[], float]
OnChange = Callable[[Agent, Change, float], None]
"""Agent, what there is to say about it, and phi."""


class Pulse:
    """Heartbeats over one connection, and at its start probes of the path."""

    def __init__(self, link: Link, traffic: Traffic, interval_s: float, clock: Clock, logger: Any) -> None:
        self._link = link
        self._traffic = traffic
        self._clock = clock
        self._logger = logger
        patience = Patience(int(interval_s * NANOSECONDS))
        self.liveness = Liveness(patience, traffic.datagrams, leads=link.connection.is_client)
        self._path = PathSize() if link.connection.path_unproved else None
        self._probe_path()

    def on_datagram(self, data: bytes) -> None:
        """Raises ``PeerViolation``."""
        kind = data[0] if data else 0
        if kind == PATH_PROBE:
            self._link.send_datagram(echo(data))
        elif kind == PATH_ECHO and self._path is not None:
            self._settle_path(self._path.echoed(data))
        else:
            now_ns = self._now_ns()
            if self.liveness.heard(data, now_ns):
                self._send(now_ns)

    def tick(self, *, judge: bool) -> None:
        """Once an interval."""
        now_ns = self._now_ns()
        if self.liveness.due(now_ns):
            self._send(now_ns)
        if judge:
            self.liveness.judge(now_ns)
            self._probe_path()

    def gauges(self) -> dict[str, Any]:
        """For JSON."""
        now_ns = self._now_ns()
        clock = self.liveness.clock(now_ns)
        return {
            "phi": round(self.liveness.phi(now_ns), 2),
            "suspected": self.liveness.suspected,
            "gap_ms": round(self.liveness.mean_gap_ns / 1e6, 1),
            "overtaken": self._link.connection.datagrams_overtaken,
            "clock": clock._asdict() if clock is not None else None,
            "max_datagram_bytes": self._link.connection.max_datagram_bytes,
        }

    def phi(self) -> float:
        """How strange the peer's present silence is."""
        return self.liveness.phi(self._now_ns())

    def _probe_path(self) -> None:
        if self._path is None:
            return
        self._settle_path(self._path.verdict())
        beginning = self._path.probe()
        if beginning is not None:
            self._traffic.datagrams["path_probes"] += 1
            self._link.send_path_probe(beginning)

    def _settle_path(self, verdict: Verdict | None) -> None:
        if verdict is None:
            return
        if verdict is Verdict.NARROW:
            self._traffic.datagrams[verdict.value] += 1
            self._logger.warning("path_narrow", address=self._link.address, carries=DATAGRAM_BYTES_MIN)
        self._link.settle_path(carries=verdict is Verdict.CARRIES)

    def _send(self, now_ns: int) -> None:
        self._link.send_datagram(self.liveness.beat(now_ns))

    def _now_ns(self) -> int:
        return int(self._clock() * NANOSECONDS)


def begin_pulse(link: Link, traffic: Traffic, interval_s: float, clock: Clock, logger: Any) -> Pulse | None:
    """Heartbeats over a connection whose peer has greeted. ``None`` when none are wanted, or when the peer takes no
    datagrams, which is counted; the profile is then believed about the path."""
    supported = link.connection.datagram_payload_bytes_max >= HEARTBEAT_BYTES
    if interval_s and supported:
        return Pulse(link, traffic, interval_s, clock, logger)
    if interval_s:
        traffic.datagrams["unsupported"] += 1
    link.settle_path(carries=True)
    return None


class Pacemaker:
    """One timer. ``pulses`` says whose; what they find is told once, in order, from here."""

    def __init__(
        self,
        interval_s: float,
        clock: Clock,
        pulses: Callable[[], Iterable[tuple[Agent, Pulse]]],
        on_change: OnChange,
    ) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._pulses = pulses
        self._on_change = on_change
        self._expected_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tick, unless the interval is 0."""
        if self._interval_s:
            self._wind(self._clock())

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _wind(self, now: float) -> None:
        self._expected_at = now + self._interval_s
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self._tick)

    def _tick(self) -> None:
        now = self._clock()
        paused = now - self._expected_at > self._interval_s  # we, or the host: nobody else is to blame for that
        self._wind(now)
        for agent, pulse in list(self._pulses()):
            pulse.tick(judge=not paused)
            for change in pulse.liveness.take_changes():
                self._on_change(agent, change, pulse.phi())
