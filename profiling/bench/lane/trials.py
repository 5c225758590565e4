"""What a breakable node lets be done to it: to be cut off, to have another clock, and to change who its members are.

In the swarm nobody can ask for any of these: there a change of members is the spine's to decide.
"""

from __future__ import annotations

import random
import time
from typing import Final

import msgspec

from consensus.raft.core import Raft
from profiling.bench.lane.requests import ClockSetting, Members, Request, Verb
from profiling.bench.lane.site import LaneSite
from profiling.bench.transport.site import HOST
from profiling.clock import now_ns
from protocol.messages import Message
from protocol.quic.chaos import ChaosPort, Impairment, Network
from protocol.quic.port import DatagramPort

MILLION: Final = 1_000_000


class SkewedClock:
    """A monotonic clock that is made of a true one: it may run fast or slow, and jump forward."""

    def __init__(self) -> None:
        self._rate_ppm = self._base_ns = self._since_ns = 0

    def local_ns(self, true_ns: int) -> int:
        """What it shows then."""
        return self._base_ns + (true_ns - self._since_ns) * (MILLION + self._rate_ppm) // MILLION

    def set(self, setting: ClockSetting, true_ns: int) -> None:
        """From now on."""
        self._base_ns, self._since_ns = self.local_ns(true_ns) + setting.step_ms * MILLION, true_ns
        self._rate_ppm = setting.rate_ppm


class SkewedMachine:
    """A machine whose only clock is ``clock``."""

    def __init__(self, raft: Raft, clock: SkewedClock) -> None:
        self._raft = raft
        self._clock = clock
        self.take_ready = raft.take_ready
        self.persisted = raft.persisted

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """As ``Raft.step``."""
        self._raft.step(sender, message, self._clock.local_ns(now_ns))

    def tick(self, now_ns: int) -> None:
        """As ``Raft.tick``."""
        self._raft.tick(self._clock.local_ns(now_ns))

    def peer_connected(self, peer: int, now_ns: int) -> None:
        """As ``Raft.peer_connected``."""
        self._raft.peer_connected(peer, self._clock.local_ns(now_ns))


class Trials:
    """Of one node."""

    def __init__(self, site: LaneSite, index: int) -> None:
        self.clock = SkewedClock()
        self._site = site
        self._impairment = Impairment(Network(), random.Random(index))
        self._cuts: tuple[tuple[str, int], ...] = ()

    def now_ns(self) -> int:
        """What the node's clock shows."""
        return self.clock.local_ns(now_ns())

    def port(self, port: DatagramPort) -> DatagramPort:
        """``port``, with what is cut off left out."""
        return ChaosPort(port, self._impairment, time.monotonic, lambda: self._cuts)

    def undergo(self, request: Request, raft: Raft) -> str | None:
        """Do what ``request`` says. Why that is refused, or None."""
        try:
            match request.verb:
                case Verb.CUT:
                    return self._cut(request.key)
                case Verb.CLOCK:
                    self.clock.set(msgspec.json.decode(request.value, type=ClockSetting), now_ns())
                    return None
            members = msgspec.json.decode(request.value, type=Members)
        except msgspec.MsgspecError as error:
            return f"the request makes no sense: {error}"
        return raft.propose_membership(members.voters, members.learners)

    def _cut(self, others: bytes) -> str | None:
        if any(index >= len(self._site.ports) for index in others):
            return "there is no such node"
        self._cuts = tuple((HOST, self._site.ports[index]) for index in others)
        self._impairment.cut = frozenset(self._cuts)
        return None
