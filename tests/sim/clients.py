"""Clients of the simulated service. Each has one request at a time, repeats it elsewhere when nobody answers, and in
the end gives it up: then nobody knows whether it took place."""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from consensus.machine import ReadResult
from consensus.raft.core import Raft
from consensus.raft.outcome import Standing
from protocol.codes import EntryKind
from tests.oracles.linearizability import Operation
from tests.sim.host import Host
from tests.sim.plan import MILLISECOND_NS
from tests.sim.service import Command, Service

if TYPE_CHECKING:
    from tests.sim.cluster import Cluster

KEYS: Final = ("x", "y", "z")
ATTEMPTS_MAX: Final = 4


@dataclass
class _Request:
    """What is under way."""

    command: Command
    reads: bool
    """Asked as a linearizable read, without an entry of its own."""
    payload: bytes
    invoked_ns: int
    attempts: int = 0
    replica: int = 0
    life: int = 0
    doubtful: bool = False
    """Somebody may have taken it, and may commit it even if nobody says so."""
    read_index: int | None = None
    elsewhere: bool = False
    """It was asked of more than one replica, or life of one."""


class Client:
    """``number`` tells clients apart; after an unknown outcome a client goes on under another one."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._rng = random.Random(f"client/{cluster.plan.seed}/{number}")
        self._number = number
        self._requests = 0
        self._seen: dict[str, Any] = {}
        """The last value of each key, for the next comparison."""
        self._now: _Request | None = None
        self.keys: list[bytes] = []
        """Of every command that this client may have proposed."""
        self.acknowledged: dict[str, Any] = {}
        """What this client was told became of its commands."""
        self.stopped = False
        cluster.after(self._rng.randint(1, 60 * MILLISECOND_NS), self._begin)

    def _begin(self) -> None:
        if self.stopped:
            return
        self._requests += 1
        command = self._command()
        reads = command.kind == "get" and self._rng.random() < 0.85
        self._now = _Request(command, reads, command.encode(), self._cluster.now_ns)
        self._attempt(self._now)

    def _is_under_way(self, request: _Request) -> bool:
        """And was not given up since, nor answered."""
        return request is self._now

    def _command(self) -> Command:
        key = self._rng.choice(KEYS)
        identity = f"{self._number}.{self._requests}"
        kind = self._rng.choice(("get", "get", "put", "put", "cas"))
        argument = {"get": None, "put": identity, "cas": (self._seen.get(key), identity)}[kind]
        return Command(identity, kind, key, argument, "." * self._rng.choice((0, 0, 30, 90)))

    def _attempt(self, request: _Request) -> None:
        """Ask one replica, mostly one that takes itself for the leader, which may be one of the past."""
        leaders = self._cluster.believed_leaders()
        own = self._rng.choice(leaders if leaders and self._rng.random() < 0.8 else self._cluster.everybody)
        host = self._cluster.hosts[own]
        place = (own, host.life)
        request.elsewhere = request.elsewhere or (request.attempts > 0 and place != (request.replica, request.life))
        request.attempts += 1
        request.replica, request.life, request.read_index = own, host.life, None
        patience_ns = self._rng.choice((15, 60, 200)) * MILLISECOND_NS
        attempts = request.attempts
        self._cluster.after(patience_ns, lambda: self._impatient(request, attempts))
        if request.reads:
            self._cluster.read(own, partial(self._read_answered, request))
        else:
            self.keys.append(request.payload)
            request.doubtful = request.doubtful or self._cluster.sleeps(own)
            self._cluster.give(host, lambda raft, _: self._propose(host, raft, request))

    def _propose(self, host: Host, raft: Raft, request: _Request) -> None:
        """The request has arrived, perhaps long after its client has given it up."""
        outcome = raft.propose_once(request.payload, EntryKind.FRAME, request.payload)
        self._cluster.watch.told(host, request.payload, outcome)
        if outcome.standing is not Standing.REFUSED:
            request.doubtful = True
        elif self._is_under_way(request) and not request.doubtful and request.attempts >= ATTEMPTS_MAX:
            return self._end()
        if self._is_under_way(request) and (host.own, host.life) == (request.replica, request.life):
            self.replica_applied(host)
        return None

    def _read_answered(self, request: _Request, host: Host, result: ReadResult) -> None:
        """Refused, or from which index on the replica's own state answers. A replica that slept may answer a read that
        was given up long ago."""
        if not self._is_under_way(request) or (host.own, host.life) != (request.replica, request.life):
            return None
        if result.index is None:
            return self._end()
        request.read_index = result.index
        return self.replica_applied(host)

    def replica_applied(self, host: Host) -> None:
        """The state of a replica may hold the answer now."""
        request = self._now
        if request is None or (host.own, host.life) != (request.replica, request.life):
            return
        service = host.application
        assert isinstance(service, Service)
        if request.reads:
            if request.read_index is not None and service.index >= request.read_index:
                self._end(True, service.table.get(request.command.key))
        elif request.command.identity in service.results:
            self._end(True, service.results[request.command.identity])

    def _impatient(self, request: _Request, attempts: int) -> None:
        """No answer for a while. Ask what became of it, ask somebody else, or give up."""
        if not self._is_under_way(request) or attempts != request.attempts:
            return None
        host = self._cluster.hosts[request.replica]
        if host.machine is not None and host.life == request.life:
            self.replica_applied(host)
            if not self._is_under_way(request):
                return None
            if not request.reads and self._refused_for_good(host, request):
                return self._end()
        if request.reads or self.stopped or request.attempts >= ATTEMPTS_MAX or self._rng.random() < 0.2:
            return self._end()
        return self._attempt(request)

    def _refused_for_good(self, host: Host, request: _Request) -> bool:
        """The only replica that was asked took it, and now says that it can never be committed."""
        outcome = host.raft.outcome(request.payload)
        self._cluster.watch.told(host, request.payload, outcome)
        certain = outcome is not None and outcome.standing is Standing.REFUSED
        if certain and not request.elsewhere:
            request.doubtful = False
        return certain and not request.elsewhere

    def _end(self, answered: bool = False, result: Any = None) -> None:
        """Note the operation if it took place, or may have; then think a while."""
        request, self._now = self._now, None
        assert request is not None
        command = request.command
        if answered or (request.doubtful and not request.reads):
            returned_ns = self._cluster.now_ns if answered else None
            self._cluster.history.append(
                Operation(
                    self._number, command.key, command.kind, command.argument, result, request.invoked_ns, returned_ns
                )
            )
        if answered and not request.reads:
            self.acknowledged[command.identity] = result
        if answered:
            self._seen[command.key] = result if command.kind == "get" else command.argument
            if command.kind == "cas":
                self._seen[command.key] = command.identity
        else:
            self._number += 1000
        self._cluster.after(self._rng.randint(1, 20 * MILLISECOND_NS), self._begin)

    def stop(self) -> None:
        """Ask nothing more."""
        self.stopped = True

    def give_up(self) -> None:
        """The run ends: what is under way stays unknown."""
        if self._now is not None:
            self._end()
