"""A disk whose syncs outlast the election timeout slows commits down and unseats nobody: heartbeats do not wait."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from consensus.assembly import ReplicaSettings, build_replica
from consensus.callbacks import Callbacks
from consensus.effects import Effects, ReplicaKeys
from consensus.machine import BROADCAST, Outgoing, Record
from consensus.pbft.config import PbftConfig
from consensus.raft.config import RaftConfig, Role
from consensus.replica import Replica
from consensus.runner import Runner
from consensus.storage import KeyValue, Storage
from profiling.clock import now_ns
from protocol.codes import Path as Route
from protocol.messages import AppendEntries, Submit
from tests.oracles.replica_cluster import (
    CLUSTER,
    QUORUM,
    VOTERS,
    honest_bodies,
    sign_frame,
    signer,
    valid_command,
    verify,
)

TIMINGS = RaftConfig(election_timeout_min_ns=1_000_000_000, election_timeout_max_ns=1_100_000_000)
SYNC_S = 1.2
"""Longer than any election timeout; a busy machine that stops us for half a second does not matter to either."""
HEARTBEATS_PER_SYNC_MIN = 3
"""Of the 24 that are due."""


class SlowStorage:
    """The store itself, on a disk that becomes slow; it notes how many appends were sent during each slow commit."""

    def __init__(self, directory: Path, own: int, appends_sent: Callable[[], int]) -> None:
        self.storage = Storage(directory, CLUSTER, f"agent-{own}")
        self.sync_s = 0.0
        self.sent_meanwhile: list[int] = []
        self._appends_sent = appends_sent

    def commit(self, records: Sequence[Record | KeyValue]) -> None:
        if self.sync_s:
            before = self._appends_sent()
            time.sleep(self.sync_s)
            self.sent_meanwhile.append(self._appends_sent() - before)
        self.storage.commit(records)


class Agents:
    """Four replicas, their real runners and stores, and links in memory."""

    def __init__(self, directory: Path) -> None:
        self.appends_sent = 0
        self.disks = [SlowStorage(directory / str(own), own, lambda: self.appends_sent) for own in VOTERS]
        self.failures: list[BaseException] = []
        self.replicas: list[Replica] = []
        self.runners = [self._runner(own) for own in VOTERS]

    def _runner(self, own: int) -> Runner[Effects]:
        keys = ReplicaKeys(signer(own), verify)
        settings = ReplicaSettings(
            own, VOTERS, QUORUM, CLUSTER, random.Random(own), TIMINGS, PbftConfig(), keys, honest_bodies(),
            valid_command,
        )  # fmt: skip
        replica = build_replica(settings, self.disks[own].storage.load()).replica
        self.replicas.append(replica)
        callbacks: Callbacks[Effects] = Callbacks(
            lambda outgoing, trace: self._send(own, outgoing, trace), lambda effects: None, self.failures.append
        )
        return Runner(replica, self.disks[own], callbacks)

    def _send(self, own: int, outgoing: Outgoing, trace: int) -> None:
        if isinstance(outgoing.message, AppendEntries):
            self.appends_sent += 1
        everybody = outgoing.destination == BROADCAST
        for to in [other for other in VOTERS if other != own] if everybody else [outgoing.destination]:
            asyncio.get_running_loop().call_soon(self.runners[to].step, own, outgoing.message, trace)

    @property
    def terms(self) -> list[int]:
        return [replica.raft.term for replica in self.replicas]

    @property
    def committed(self) -> int:
        return min(replica.raft.commit_index for replica in self.replicas)

    def submit(self, sequence: int) -> None:
        command = sign_frame(sequence)
        for runner in self.runners:
            runner.step(0, Submit(Route.LANE, True, command), 0)

    async def until(self, condition: Any, seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110  # nothing tells when
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        for runner, disk in zip(self.runners, self.disks, strict=True):
            await runner.close()
            disk.storage.close()


async def test_a_slow_disk_causes_no_election(tmp_path: Path) -> None:
    agents = Agents(tmp_path)
    for replica, runner in zip(agents.replicas, agents.runners, strict=True):
        replica.restored(now_ns())
        runner.start()
    await agents.until(lambda: any(replica.raft.role is Role.LEADER for replica in agents.replicas), 20)
    await agents.until(lambda: agents.committed >= 1, 20)
    terms, committed = agents.terms, agents.committed
    for disk in agents.disks:
        disk.sync_s = SYNC_S
    for sequence in range(1, 6):
        agents.submit(sequence)
        await asyncio.sleep(0.1)
    await agents.until(lambda: agents.committed >= committed + 5, 60)
    assert agents.terms == terms and len(set(terms)) == 1
    slow = [sent for disk in agents.disks for sent in disk.sent_meanwhile]
    assert slow and min(slow) >= HEARTBEATS_PER_SYNC_MIN, slow
    assert not agents.failures
    for disk in agents.disks:
        disk.sync_s = 0.0
    await agents.close()
