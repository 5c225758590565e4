"""One run: a cluster, clients, a nemesis; then everything is healed, read once more and judged."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from consensus.raft.configuration import Configuration, decode_configuration
from consensus.storage import Storage
from profiling.bench.lane.client import LaneClient
from profiling.bench.lane.requests import Standing, Verb
from profiling.bench.lane.site import LaneSite, make_site, node_name
from protocol.codes import EntryKind
from protocol.messages import Entry
from tests.nemesis.clients import Client, Workload
from tests.nemesis.cluster import Cluster
from tests.nemesis.disks import disks_for
from tests.nemesis.faults import FAULTS, MEMBER_FAULTS, Nemesis
from tests.nemesis.verdict import judged, logs_disagree, writes_disagree
from tests.oracles.linearizability import Operation

HEALED_S: Final = 60.0
"""Within this, once everything is healed, every node has to answer a read."""


@dataclass(frozen=True)
class Plan:
    """What is run."""

    seed: int
    seconds: float = 8.0
    nodes: int = 3
    clients: int = 5
    faults: tuple[str, ...] = FAULTS
    broken: str = ""
    snapshot_every: int = 0
    transport: str = "aioquic"
    spares: int = 0
    """So many nodes beside ``nodes`` are no members at first."""
    lease_reads: bool = False
    drift_ppm: int = 200_000
    """By how much clocks may differ as the nodes are told,"""
    skew_ppm: int = 200_000
    """and by how much they do."""
    small_disks: bool = False
    """A file system for each node, so that a full disk is a real one, where the operating system lets us mount one."""

    @property
    def again(self) -> str:
        """The command that runs it again."""
        options = f"--seed {self.seed} --seconds {self.seconds:g} --nodes {self.nodes} --clients {self.clients}"
        options += f" --snapshot-every {self.snapshot_every} --transport {self.transport} --spares {self.spares}"
        options += f" --drift-ppm {self.drift_ppm} --skew-ppm {self.skew_ppm}"
        options += " --lease-reads" if self.lease_reads else ""
        options += f" --broken {self.broken}" if self.broken else ""
        options += " --small-disks" if self.small_disks else ""
        return f"python -m tests.nemesis {options} --faults {' '.join(self.faults)}"

    @property
    def possible(self) -> tuple[str, ...]:
        """Those of the faults that make sense here: no lease allows for a jump, and members need somebody to change."""
        senseless = (("clock_step",) if self.lease_reads else ()) + (() if self.spares else MEMBER_FAULTS)
        return tuple(fault for fault in self.faults if fault not in senseless)


@dataclass
class Outcome:
    """What happened, and what is wrong with it, if anything is."""

    plan: Plan
    workload: Workload
    faults: Counter[str] = field(default_factory=Counter)
    finals: dict[int, dict[bytes, bytes | None]] = field(default_factory=dict)
    """What each node reads in the end."""
    commit_indices: dict[int, int] = field(default_factory=dict)
    logs: dict[int, list[Entry]] = field(default_factory=dict)
    judged_s: float = 0.0

    @property
    def furthest(self) -> int:
        """The member that knows of the most commits."""
        return max(self.finals, key=lambda index: self.commit_indices[index])

    @property
    def committed(self) -> list[Entry]:
        """As far as the log of ``furthest`` still has it."""
        return [entry for entry in self.logs[self.furthest] if entry.index <= self.commit_indices[self.furthest]]

    @property
    def configurations(self) -> list[Configuration]:
        """Those among ``committed``."""
        return [decode_configuration(each.payload) for each in self.committed if each.kind == EntryKind.MEMBERSHIP]

    @property
    def history(self) -> list[Operation]:
        return self.workload.history

    def wrong(self) -> str | None:
        """Everything that can be said against it, in one sentence."""
        started = time.monotonic()
        objection = judged(self.history) or logs_disagree(self.logs, self.commit_indices)
        self.judged_s = time.monotonic() - started
        if objection is None:
            objection = writes_disagree(self.committed, self.workload.writes, self.finals[self.furthest])
        return None if objection is None else f"{objection}\nrun it again: {self.plan.again}"

    def figures(self) -> dict[str, Any]:
        """For a report."""
        unknown = sum(each.returned_ns is None for each in self.history)
        return {
            "seed": self.plan.seed,
            "operations": len(self.history),
            "unknown": unknown,
            "refused": sum(each is Standing.REFUSED for each in self.workload.writes.values()),
            "keys": len(self.workload.keys),
            "logs": [[log[0].index, log[-1].index] for log in self.logs.values() if log],
            "members_changed": len(self.configurations),
            "faults": dict(sorted(self.faults.items())),
            "answers": dict(self.workload.answers.most_common()),
            "judged_s": round(self.judged_s, 2),
        }


async def run(directory: Path, plan: Plan) -> Outcome:
    """Raises ``NodeFailed`` when a node ends by itself, and ``TimeoutError`` when the lane does not recover."""
    site = _site_of(directory, plan)
    outcome = Outcome(plan, Workload(plan.seed))
    with disks_for([site.data_dir(index) for index in range(len(site.ports))], plan.small_disks) as disks:
        cluster = Cluster(site, disks, plan.broken)
        try:
            await cluster.start(*cluster.indices)
            await _hurt(cluster, outcome)
            await cluster.heal()
            await _read_everything(cluster, outcome)
        except BaseException as error:
            cluster.close(in_order=False)
            error.add_note(f"run it again: {plan.again}")
            raise
        cluster.close()
        outcome.logs = {index: _log_of(cluster, index) for index in cluster.indices}
    return outcome


def _site_of(directory: Path, plan: Plan) -> LaneSite:
    return make_site(
        directory,
        plan.nodes + plan.spares,
        breakable=True,
        snapshot_every=plan.snapshot_every,
        transport=plan.transport,
        spares=plan.spares,
        lease_reads=plan.lease_reads,
        clock_drift_ppm=plan.drift_ppm,
    )


async def _hurt(cluster: Cluster, outcome: Outcome) -> None:
    plan, workload = outcome.plan, outcome.workload
    nemesis = Nemesis(cluster, plan.seed, plan.possible, plan.skew_ppm)
    clients = [Client(cluster.site, workload, number + 1) for number in range(plan.clients)]
    async with asyncio.TaskGroup() as group:
        for client in clients:
            group.create_task(client.run())
        try:
            await nemesis.run(plan.seconds)
        finally:
            workload.stopped = True
    outcome.faults = nemesis.done


async def _read_everything(cluster: Cluster, outcome: Outcome) -> None:
    """Every key on every member, into the history too. Nodes that answer reads have everything that is committed."""
    async with asyncio.timeout(HEALED_S):
        for index in await _members(cluster):
            outcome.finals[index] = await _final_reads(cluster, index, outcome)
        for index in cluster.indices:
            outcome.commit_indices[index] = (await cluster.status(index))["commit_index"]


async def _members(cluster: Cluster) -> list[int]:
    """Once no change is under way."""
    while True:
        leader = await cluster.leader()
        status = {} if leader is None else await cluster.status(leader)
        if status.get("role") == "leader" and not status["outgoing"]:
            return sorted(status["voters"] + status["learners"])
        await asyncio.sleep(0.05)


async def _final_reads(cluster: Cluster, index: int, outcome: Outcome) -> dict[bytes, bytes | None]:
    client = await LaneClient.connect(cluster.site, index)
    try:
        return {key: await _final_read(client, index, key, outcome) for key in outcome.workload.keys}
    finally:
        client.close()


async def _final_read(client: LaneClient, index: int, key: bytes, outcome: Outcome) -> bytes | None:
    while True:
        invoked_ns = time.monotonic_ns()
        response = await client.request(Verb.GET, key)
        if response.standing == Standing.DONE:
            final = Operation(-1 - index, key, "get", None, response.value, invoked_ns, time.monotonic_ns())
            outcome.workload.history.append(final)
            return response.value
        await asyncio.sleep(0.05)


def _log_of(cluster: Cluster, index: int) -> list[Entry]:
    """From a copy: the node's own directory may be in a file system that goes away."""
    copy = cluster.site.directory / "kept" / node_name(index)
    shutil.copytree(cluster.data_dir(index), copy)
    with Storage(copy, cluster.site.roster.cluster_id, node_name(index)) as storage:
        return storage.load().entries
