"""One node of a measured lane, in a process of its own: ``python -m profiling.bench.lane.node SITE.json INDEX``.

The lane's machine, its store and its runner, the swarm's own endpoint to the other nodes, and a plain TCP port for
clients. It is ready when it says so on standard output; the end of standard input ends it, and every line there is
answered with the processor time that the process has used, in nanoseconds.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import structlog
import uvloop

from consensus.callbacks import Callbacks
from consensus.machine import BROADCAST, Outgoing, Ready
from consensus.raft.config import RaftConfig
from consensus.raft.core import Raft
from consensus.runner import SWITCH_INTERVAL_S, TICK_NS, Runner
from consensus.storage import Storage
from profiling.bench.lane.requests import Request
from profiling.bench.lane.service import Client, Service
from profiling.bench.lane.site import LaneSite, node_name, read_site
from profiling.bench.lane.store import KeyValues, once_of
from profiling.bench.lane.trials import SkewedMachine, Trials
from profiling.bench.transport.site import HOST
from profiling.clock import now_ns
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.errors import RunFailure, UsageError
from protocol.identity import load_identity
from protocol.messages import Message
from protocol.peer import Peer
from protocol.quic.port import DatagramPort, UdpPort
from protocol.roster import Agent

TRAILING_ENTRIES: Final = 1_000
"""Kept behind a snapshot, for followers that are a little late."""


class Node:
    """Wires one machine. ``run`` lasts until standard input ends, or until the node fails."""

    def __init__(self, site: LaneSite, index: int) -> None:
        self.site = site
        self.own = index
        self.log = structlog.get_logger().bind(node=node_name(index))
        self.fault: BaseException | None = None
        self._stopped = asyncio.Event()
        self._storage = Storage(site.data_dir(index), site.roster.cluster_id, node_name(index))
        self._trials = Trials(site, index) if site.breakable else None
        self.service = self._service()
        raft = self.service.raft
        machine = raft if self._trials is None else SkewedMachine(raft, self._trials.clock)
        callbacks = Callbacks(self._send, self.service.perform, self._fail)
        self.runner: Runner[Ready] = Runner(machine, self._storage, callbacks)
        self.service.touch = self.runner.touch
        self.endpoint = self._endpoint()

    def _service(self) -> Service:
        values, trials = KeyValues(), self._trials
        return Service(
            self._machine(values),
            values,
            self.log,
            now_ns if trials is None else trials.now_ns,
            lambda: self.endpoint.connected,
            _unbreakable if trials is None else trials.undergo,
            self.site.snapshot_every,
            TRAILING_ENTRIES,
        )

    def _machine(self, values: KeyValues) -> Raft:
        stored = self._storage.load()
        config = RaftConfig(
            snapshots=bool(self.site.snapshot_every),
            commit_delay_ns=TICK_NS,
            thrift_delay_ns=self.site.thrift_ms * 1_000_000,
            lease_reads=self.site.lease_reads,
            clock_drift_ppm=self.site.clock_drift_ppm,
        )
        raft = Raft(
            self.own,
            self.site.voters,
            self.site.lane_quorum.size_for,
            random.Random(),
            config,
            stored.hard_state,
            stored.entries,
            key_of=once_of,
            snapshot=stored.snapshot,
            log_base=stored.log_base,
            roster=tuple(range(len(self.site.ports))),
        )
        if stored.snapshot is not None:
            assert raft.proposals is not None
            raft.proposals.load(values.load(stored.snapshot.data), stored.snapshot.index)
        return raft

    def _endpoint(self) -> Endpoint:
        roster = self.site.roster
        name = node_name(self.own)
        port: DatagramPort = UdpPort()
        if self._trials is not None:
            port = self._trials.port(port)
        return Endpoint(
            load_identity(self.site.directory / "pki" / name, roster, name),
            roster,
            codec_for("capnp"),
            on_message=self._on_message,
            on_peer_change=self._on_peer_change,
            transport=self.site.transport,
            port=port,
            logger=self.log,
        )

    async def run(self) -> None:
        """Serve. Raises what made the node fail."""
        loop = asyncio.get_running_loop()
        await self.endpoint.start()
        self.runner.start()
        server = await loop.create_server(self._accept, HOST, self.site.client_ports[self.own])
        await loop.connect_read_pipe(lambda: _Questions(self._stopped.set), sys.stdin)
        gc.collect()
        gc.freeze()
        print("ready", flush=True)  # noqa: T201  # whoever started us waits for it
        await self._stopped.wait()
        server.close()
        await self.runner.close()
        await self.endpoint.close()
        self._storage.close()
        if self.fault is not None:
            raise self.fault

    # --- between the machine and the network -------------------------------------------------------------------------

    def _send(self, outgoing: Outgoing, trace: int) -> None:
        if outgoing.destination == BROADCAST:
            self.endpoint.broadcast(outgoing.message, channel=Channel.CONSENSUS)
        else:
            self.endpoint.send(outgoing.destination, outgoing.message, channel=Channel.CONSENSUS)

    def _on_message(self, peer: Peer, trace: int, message: Message) -> None:
        self.runner.step(peer.agent.index, message, trace)

    def _on_peer_change(self, peer: Agent, connected: bool) -> None:
        if connected:
            self.runner.peer_connected(peer.index)

    def _accept(self) -> asyncio.Protocol:
        return cast("asyncio.Protocol", Client(self.service))

    def _fail(self, error: BaseException) -> None:
        self.fault = error
        self._stopped.set()


def _unbreakable(request: Request, raft: Raft) -> str:
    return "this node is not breakable"


class _Questions(asyncio.Protocol):
    """Standard input."""

    def __init__(self, ended: Callable[[], None]) -> None:
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        sys.stdout.write(f"{time.process_time_ns()}\n" * data.count(b"\n"))
        sys.stdout.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()


async def _run(site: LaneSite, index: int) -> None:
    await Node(site, index).run()


def main(arguments: list[str]) -> None:
    """Serve until standard input ends. A failure of the world, the disk's above all, ends it with one line and 1."""
    path, index = arguments
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(30), logger_factory=structlog.PrintLoggerFactory(sys.stderr)
    )
    try:
        uvloop.run(_run(read_site(Path(path)), int(index)))
    except (RunFailure, UsageError) as error:
        raise SystemExit(f"{node_name(int(index))}: {error}") from None


if __name__ == "__main__":
    main(sys.argv[1:])
