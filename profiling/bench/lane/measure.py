"""``swarm bench consensus --path lane``: durable commits of our lane, beside etcd and PySyncObj in one run."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog
import uvloop

from consensus.raft.config import RaftConfig
from profiling.bench.lane.client import Lane, LaneClient
from profiling.bench.lane.loads import closed, embedded, opened
from profiling.bench.lane.peers import Etcd, PySyncObj, etcd_version, peers_python
from profiling.bench.lane.site import THRIFT_MS, make_site
from profiling.bench.result import Ratio, Result, at_least, at_most, paired_ratio, variation
from protocol.native import VARIABLE, in_use

Progress = Callable[[str], None]
Found = dict[str, Any]

SIZE: Final = 200
IN_FLIGHT: Final = (1, 64, 256)
US: Final = 1e-3
TRANSPORTS: Final = ("aioquic", "qh3")
PYSYNCOBJ: Final = "PySyncObj 0.3.17, nothing durable"
SOURCES: Final = "aioquic from source"
AT_ONCE: Final = "entries to all at once"
FROM_SOURCE: Final = {VARIABLE: "0"}
ELECTION_TIMEOUT_S: Final = RaftConfig().election_timeout_max_ns / 1e9


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    blocks: int
    sequential: int
    """Writes one after the other, in a block."""
    pipelined: int
    open_s: float
    """Of each rate, in a block; 0 leaves the open loop out."""
    failovers: int
    behind: int
    """Entries that a follower has to catch up."""
    sizes: tuple[int, ...]
    """Numbers of nodes."""


FULL: Final = Effort(10, 400, 12_000, 2.0, 30, 100_000, (3, 5, 7, 9))
QUICK: Final = Effort(2, 80, 2_000, 0.0, 2, 2_000, ())
RATES: Final = (200, 1_000, 3_000)


def measure(effort: Effort, progress: Progress) -> Result:
    """Rows, claims and noise of one run. Raises ``UsageError`` when a peer is not installed."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    peers_python(), etcd_version()
    result = Result("consensus")
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as scratch:
        runs = _Runs(Path(scratch), effort, progress)
        _beside_peers(result, runs)
        if effort.open_s:
            _open_loop(result, runs)
        _failover(result, runs)
        _losing_one(result, runs)
        _catching_up(result, runs)
        _sizes(result, runs)
    return result


class _Runs:
    """Makes clusters in a directory of its own, and runs loads on them."""

    def __init__(self, scratch: Path, effort: Effort, progress: Progress) -> None:
        self.scratch = scratch
        self.effort = effort
        self.progress = progress
        self._count = 0

    def directory(self) -> Path:
        self._count += 1
        return self.scratch / str(self._count)

    def lane(
        self, transport: str, nodes: int = 3, environment: Mapping[str, str] | None = None, **settings: object
    ) -> Lane:
        """``settings`` are those of ``LaneSite``."""
        lane = Lane(make_site(self.directory(), nodes, transport=transport, **settings), environment)
        lane.start()
        return lane

    def on(self, lane: Lane, load: Callable[[LaneClient], Awaitable[Found]], warm: int = 200) -> Found:
        """A load by a client of the leader, warmed up. Adds the processor time of all nodes."""

        async def work() -> Found:
            client = await LaneClient.connect(lane.site, await lane.leader())
            await closed(client, 1, warm, SIZE)
            before = lane.cpu_ns()
            found = await load(client)
            found["cpu_ns"] = lane.cpu_ns() - before
            client.close()
            return found

        return uvloop.run(work())


def p50(found: Found) -> float:
    """Microseconds."""
    return float(np.median(found["latency_ns"])) * US


def p99(found: Found) -> float:
    """Microseconds."""
    return float(np.quantile(found["latency_ns"], 0.99)) * US


def rate(found: Found) -> float:
    """Writes a second."""
    return len(found["latency_ns"]) / float(found["seconds"])


def cpu_us(found: Found) -> float:
    """Processor time of all nodes for one write."""
    return float(found["cpu_ns"]) * US / len(found["latency_ns"])


# --- beside the peers ------------------------------------------------------------------------------------------------


def _beside_peers(result: Result, runs: _Runs) -> None:
    """All sides in turn, block after block, each on a fresh cluster: an idle one would cost its heartbeats."""
    found: dict[tuple[str, int], list[Found]] = {}
    for block in range(runs.effort.blocks):
        for side in _sides(runs):
            runs.progress(f"block {block + 1} of {runs.effort.blocks}, {side.name}")
            with side.cluster() as cluster:
                for in_flight in IN_FLIGHT:
                    count = runs.effort.sequential if in_flight == 1 else runs.effort.pipelined
                    for name, each in side.load(cluster, in_flight, count).items():
                        found.setdefault((name, in_flight), []).append(each)
    _rows_beside_peers(result, found, whole="four" in {name for name, _ in found})
    _claims_beside_peers(result, found)


@dataclass(frozen=True, slots=True)
class _Side:
    """One kind of cluster, and the loads that it gets: by name, what was found."""

    name: str
    cluster: Callable[[], Any]
    load: Callable[[Any, int, int], dict[str, Found]]


def _sides(runs: _Runs) -> list[_Side]:
    sides = [
        *(_Side(name, partial(runs.lane, name), partial(_load_lane, runs, name)) for name in TRANSPORTS),
        _Side("etcd", lambda: Etcd(runs.directory(), 3), _load_etcd),
        _Side("PySyncObj", lambda: PySyncObj(3, batches=False), partial(_load_pysyncobj, "pysyncobj")),
        _Side("PySyncObj, batching", lambda: PySyncObj(3, batches=True), partial(_load_pysyncobj, "batching")),
    ]
    if in_use():
        sides.append(
            _Side(SOURCES, lambda: runs.lane("aioquic", environment=FROM_SOURCE), partial(_load_lane, runs, SOURCES))
        )
    if runs.effort.open_s:
        sides.append(
            _Side("four", lambda: runs.lane("aioquic", 4, profile="hybrid"), partial(_load_lane, runs, "four"))
        )
        sides.append(_Side(AT_ONCE, lambda: runs.lane("aioquic", thrift_ms=0), partial(_load_lane, runs, AT_ONCE)))
    return sides


def _load_lane(runs: _Runs, name: str, lane: Lane, in_flight: int, count: int) -> dict[str, Found]:
    by_client = runs.on(lane, lambda client: closed(client, in_flight, count, SIZE))
    by_leader = runs.on(lane, lambda client: embedded(client, in_flight, count, SIZE), warm=20)
    return {name: by_client, f"{name} by its leader": by_leader}


def _load_etcd(etcd: Etcd, in_flight: int, count: int) -> dict[str, Found]:
    """By the protocol that is the faster one there, from Python: the gateway alone, gRPC in a crowd."""
    return {"etcd": etcd.load("json" if in_flight == 1 else "grpc", in_flight, max(count // 4, 80), SIZE)}


def _load_pysyncobj(name: str, cluster: PySyncObj, in_flight: int, count: int) -> dict[str, Found]:
    """With its batching a write waits for the next period of 100 ms: a few in a row say it all."""
    few = name == "batching" and in_flight == 1
    return {name: cluster.load(in_flight, min(count, 20) if few else count, SIZE)}


def _rows_beside_peers(result: Result, found: dict[tuple[str, int], list[Found]], whole: bool) -> None:
    etcd = f"etcd {etcd_version()}, durable"
    pairs = [
        ("3 nodes, aioquic", "aioquic", etcd, "etcd"),
        ("3 nodes, qh3", "qh3", etcd, "etcd"),
        ("3 nodes, the leader writes, aioquic", "aioquic by its leader", PYSYNCOBJ, "pysyncobj"),
        ("3 nodes, the leader writes, aioquic", "aioquic by its leader", PYSYNCOBJ + ", batching", "batching"),
        ("3 nodes, the leader writes, qh3", "qh3 by its leader", PYSYNCOBJ, "pysyncobj"),
    ]
    if in_use():
        pairs.append(("3 nodes, aioquic, hot modules compiled", "aioquic", "the same from source", SOURCES))
    if whole:
        pairs.append(("4 nodes with a quorum of 3, aioquic", "four", etcd + ", 3 nodes", "etcd"))
        pairs.append(("3 nodes, aioquic, with thrift", "aioquic", AT_ONCE, AT_ONCE))
    figures: list[tuple[str, str, Callable[[Found], float]]] = [
        ("p50", "us", p50), ("p99", "us", p99), ("throughput", "writes/s", rate),
        ("processor time of all nodes", "us/write", cpu_us),
    ]  # fmt: skip
    for case, side, peer, other in pairs:
        for in_flight in IN_FLIGHT:
            for what, unit, figure in figures:
                ours = [figure(each) for each in found[side, in_flight]]
                theirs = [figure(each) for each in found[other, in_flight]]
                name = f"{case}, {in_flight} in flight, {what}"
                ratio = paired_ratio(ours, theirs)
                result.row(name, float(np.median(ours)), unit, peer, float(np.median(theirs)), ratio)


def _claims_beside_peers(result: Result, found: dict[tuple[str, int], list[Found]]) -> None:
    def ratio(side: str, peer: str, in_flight: int, figure: Callable[[Found], float]) -> Ratio:
        return paired_ratio(
            [figure(each) for each in found[side, in_flight]], [figure(each) for each in found[peer, in_flight]]
        )

    result.variations.append(variation([p50(each) for each in found["aioquic", 1]]))
    result.variations.append(variation([rate(each) for each in found["aioquic", 256]]))
    result.claim("lane.p50_vs_etcd", at_most(1.2), ratio("aioquic", "etcd", 1, p50))
    result.claim("lane.p50_vs_etcd_qh3", at_most(0.9), ratio("qh3", "etcd", 1, p50))
    result.claim("lane.throughput_vs_etcd", at_least(5), ratio("aioquic", "etcd", 256, rate))
    against = [ratio("aioquic by its leader", each, 256, rate) for each in ("pysyncobj", "batching")]
    result.claim("lane.throughput_vs_pysyncobj", at_least(1), min(against, key=lambda each: each.median))


def _open_loop(result: Result, runs: _Runs) -> None:
    """Latency at fixed rates, from when each write should have begun."""
    ours: dict[int, list[Found]] = {}
    theirs: dict[int, list[Found]] = {}
    with runs.lane("aioquic") as lane, Etcd(runs.directory(), 3) as etcd:
        for block in range(max(3, runs.effort.blocks // 2)):
            for per_s in RATES:
                runs.progress(f"open loop, block {block + 1}, {per_s} writes/s")
                count = int(per_s * runs.effort.open_s)

                def load(client: LaneClient, n: int = count, r: int = per_s) -> Any:
                    return opened(client, n, SIZE, r)

                ours.setdefault(per_s, []).append(runs.on(lane, load))
                theirs.setdefault(per_s, []).append(etcd.load("grpc", 512, count, SIZE, per_s))
    for per_s in RATES:
        for what, figure in (("p50", p50), ("p99", p99)):
            mine, other = [figure(each) for each in ours[per_s]], [figure(each) for each in theirs[per_s]]
            name = f"open loop, 3 nodes, aioquic, {per_s} writes/s, {what}"
            peer = f"etcd {etcd_version()}, durable"
            result.row(name, float(np.median(mine)), "us", peer, float(np.median(other)), paired_ratio(mine, other))


# --- by itself -------------------------------------------------------------------------------------------------------


def _failover(result: Result, runs: _Runs) -> None:
    """From SIGKILL of the leader to a write that its successor has committed, in election timeouts."""
    with runs.lane("aioquic") as lane:

        async def once() -> float:
            leader = await lane.leader()
            others = tuple(index for index in lane.nodes if index != leader)
            began = time.perf_counter()
            lane.nodes[leader].kill()
            await lane.leader(among=others)
            took = time.perf_counter() - began
            lane.start(leader)
            await asyncio.sleep(0.3)
            return took

        took = []
        for number in range(runs.effort.failovers):
            runs.progress(f"failover {number + 1} of {runs.effort.failovers}")
            took.append(uvloop.run(once()) / ELECTION_TIMEOUT_S)
    limit = [1.0] * len(took)
    name, timeout = "a new leader after SIGKILL, {}", f"election timeout of {ELECTION_TIMEOUT_S:g} s"
    result.row(name.format("p50"), float(np.median(took)), "timeouts", timeout, 1.0, paired_ratio(took, limit))
    worst = _quantile_interval(took, 0.99)
    result.row(name.format("p99"), worst.median, "timeouts", timeout, 1.0, worst)
    result.claim("lane.failover_p99_in_election_timeouts", at_most(2), worst)


def _losing_one(result: Result, runs: _Runs) -> None:
    """What thrift costs: the slowest of the writes around the SIGKILL of a follower that had entries at once."""
    slowest: dict[int, list[float]] = {}
    for thrift_ms in (THRIFT_MS, 0):
        with runs.lane("aioquic", thrift_ms=thrift_ms) as lane:

            async def once(lane: Lane = lane) -> float:
                leader = await lane.leader()
                client = await LaneClient.connect(lane.site, leader)
                await closed(client, 1, 200, SIZE)
                followers = (await client.status())["followers"]
                victim = next(int(index) for index, picture in followers.items() if not picture["waits"])
                load = asyncio.ensure_future(closed(client, 1, 400, SIZE))
                await asyncio.sleep(0.1)
                lane.nodes[victim].kill()
                found = await load
                client.close()
                lane.start(victim)
                await asyncio.sleep(0.5)
                return float(max(found["latency_ns"])) / 1e6

            for number in range(runs.effort.failovers):
                runs.progress(f"a follower is killed, {number + 1} of {runs.effort.failovers}")
                slowest.setdefault(thrift_ms, []).append(uvloop.run(once()))
    ours, theirs = slowest[THRIFT_MS], slowest[0]
    name = "slowest write around the SIGKILL of a follower, with thrift, p50"
    result.row(name, float(np.median(ours)), "ms", AT_ONCE, float(np.median(theirs)), paired_ratio(ours, theirs))


def _quantile_interval(values: list[float], share: float) -> Ratio:
    """A quantile with its bootstrap interval."""
    rng = np.random.Generator(np.random.PCG64(0))
    resampled = np.quantile(rng.choice(values, (2_000, len(values))), share, axis=1)
    low, high = np.quantile(resampled, [0.025, 0.975])
    return Ratio(float(np.quantile(values, share)), float(low), float(high), len(values))


def _catching_up(result: Result, runs: _Runs) -> None:
    """A follower that missed everything, and what a long log costs the writes after it."""
    behind = runs.effort.behind
    with runs.lane("aioquic") as lane:

        async def work() -> tuple[float, float, float]:
            leader = await lane.leader()
            client = await LaneClient.connect(lane.site, leader)
            short = p50(await closed(client, 1, runs.effort.sequential, SIZE))
            follower = (leader + 1) % len(lane.nodes)
            lane.nodes[follower].kill()
            await closed(client, 256, behind, SIZE)
            long = p50(await closed(client, 1, runs.effort.sequential, SIZE))
            goal = (await client.status())["commit_index"]
            lane.start(follower)
            began = time.perf_counter()
            follow = await LaneClient.connect(lane.site, follower)
            while (await follow.status())["commit_index"] < goal:  # noqa: ASYNC110  # another process
                await asyncio.sleep(0.01)
            took = time.perf_counter() - began
            for each in (client, follow):
                each.close()
            return short, long, took

        runs.progress(f"a follower catches up {behind:,} entries")
        short, long, took = uvloop.run(work())
    once = paired_ratio([took], [1.0])
    result.row(f"catching up {behind:,} entries of {SIZE} B, aioquic", took, "s", "one second", 1.0, once)
    name = f"p50 with {behind:,} entries in the log, one follower down"
    result.row(name, long, "us", "the same lane with an empty log", short, paired_ratio([long], [short]))


def _sizes(result: Result, runs: _Runs) -> None:
    """What more nodes cost, on the same two cores."""
    three: dict[str, list[float]] = {}
    for nodes in runs.effort.sizes:
        figures: dict[str, list[float]] = {"p50": [], "throughput": []}
        with runs.lane("aioquic", nodes) as lane:
            for block in range(3):
                runs.progress(f"{nodes} nodes, block {block + 1}")
                one = runs.on(lane, lambda client: closed(client, 1, runs.effort.sequential // 2, SIZE))
                many = runs.on(lane, lambda client: closed(client, 256, runs.effort.pipelined // 2, SIZE))
                figures["p50"].append(p50(one))
                figures["throughput"].append(rate(many))
        three = three or figures
        for what, unit in (("p50", "us"), ("throughput", "writes/s")):
            ratio = paired_ratio(figures[what], three[what])
            ours, theirs = float(np.median(figures[what])), float(np.median(three[what]))
            in_flight = 1 if what == "p50" else 256
            result.row(f"{nodes} nodes, {in_flight} in flight, {what}", ours, unit, "3 nodes", theirs, ratio)
        shutil.rmtree(lane.site.directory)
