"""One node of a measured lane, in a process of its own: ``python -m profiling.bench.lane.node SITE.json INDEX``.

The lane's machine, its store and its runner, the swarm's own endpoint to the other nodes, and a plain TCP port for
clients. It is ready when it says so on standard output; the end of standard input ends it, and every line there is
answered with the processor time that the process has used, in nanoseconds.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog
import uvloop

from consensus.callbacks import Callbacks
from consensus.machine import BROADCAST, Outgoing, Ready
from consensus.raft.config import RaftConfig, Role
from consensus.raft.core import Raft
from consensus.raft.outcome import Outcome
from consensus.raft.outcome import Standing as Proposed
from consensus.runner import SWITCH_INTERVAL_S, TICK_NS, Runner
from consensus.storage import Storage
from profiling.bench.lane.embedded import EmbeddedLoad
from profiling.bench.lane.site import LaneSite, node_name, read_site
from profiling.bench.lane.store import (
    ONCE_BYTES,
    RESPONSE_BYTES_MAX,
    Deframer,
    KeyValues,
    Load,
    Request,
    Response,
    Standing,
    Verb,
    frames,
    once_of,
    payload_of,
)
from profiling.bench.lane.trials import SkewedMachine, Trials
from profiling.bench.transport.site import HOST
from profiling.clock import now_ns
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.codes import EntryKind
from protocol.endpoint import Endpoint
from protocol.errors import RunFailure, UsageError
from protocol.identity import load_identity
from protocol.messages import Message
from protocol.peer import Peer
from protocol.quic.port import DatagramPort, UdpPort
from protocol.roster import Agent

WRITES: Final = frozenset({Verb.PUT, Verb.CAS})
DONE: Final = Standing.DONE
TRAILING_ENTRIES: Final = 1_000
"""Kept behind a snapshot, for followers that are a little late."""

_requests: Final = msgspec.msgpack.Decoder(list[Request])
_responses: Final = msgspec.msgpack.Encoder()


class Client(asyncio.Protocol):
    """One client's connection. What it is answered within a turn of the loop leaves together."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._answers: list[Response] = []
        self._frames = Deframer(self._on_frame)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.receive(data)
        except (ValueError, msgspec.MsgspecError) as error:
            self._node.log.warning("client_refused", reason=str(error))
            self._transport.close()
        self._node.runner.touch()

    def _on_frame(self, data: bytes) -> None:
        self._node.on_requests(self, _requests.decode(data))

    def answer(self, response: Response) -> None:
        """Take an answer; ``flush`` sends it."""
        if not self._answers:
            self._node.answering.append(self)
        self._answers.append(response)

    def flush(self) -> None:
        """Send what was answered."""
        if not self._transport.is_closing():
            self._transport.write(frames(_responses, self._answers, RESPONSE_BYTES_MAX))
        self._answers.clear()


class Node:
    """Wires one machine. ``run`` lasts until standard input ends, or until the node fails."""

    def __init__(self, site: LaneSite, index: int) -> None:
        self.site = site
        self.own = index
        self.log = structlog.get_logger().bind(node=node_name(index))
        self.values = KeyValues()
        self.answering: list[Client] = []
        """Clients with answers that have not left."""
        self.fault: BaseException | None = None
        self._stopped = asyncio.Event()
        self._waiting: dict[bytes, list[tuple[Client, int]]] = {}
        """Writes that this node proposed as leader, by idempotency key."""
        self._reading: dict[int, tuple[Client, int, bytes]] = {}
        """Reads that wait for their index, or for the state to reach it: client, its number, the key."""
        self._readable: list[tuple[int, int]] = []
        """(index, read) of reads that wait for the state."""
        self._read_count = 0
        self._load: EmbeddedLoad | None = None
        self._storage = Storage(site.data_dir(index), site.roster.cluster_id, node_name(index))
        self.raft = self._machine()
        self._trials = Trials(site, index) if site.breakable else None
        self._now_ns = now_ns if self._trials is None else self._trials.now_ns
        machine = self.raft if self._trials is None else SkewedMachine(self.raft, self._trials.clock)
        callbacks = Callbacks(self._send, self._perform, self._fail)
        self.runner: Runner[Ready] = Runner(machine, self._storage, callbacks)
        self.endpoint = self._endpoint()

    def _machine(self) -> Raft:
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
            raft.proposals.load(self.values.load(stored.snapshot.data), stored.snapshot.index)
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
        server = await loop.create_server(lambda: Client(self), HOST, self.site.client_ports[self.own])
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

    def _fail(self, error: BaseException) -> None:
        self.fault = error
        self._stopped.set()

    # --- requests ----------------------------------------------------------------------------------------------------

    def on_requests(self, client: Client, requests: list[Request]) -> None:
        """Do them, or begin them; the answers may come much later."""
        for request in requests:
            if request.verb in WRITES:
                self._on_write(client, request)
            else:
                self._on_question(client, request)
        self._flush_answers()

    def _on_question(self, client: Client, request: Request) -> None:
        match request.verb:
            case Verb.GET:
                self._on_read(client, request)
            case Verb.STATUS:
                picture = {**self.raft.status(), "connected": sorted(self.endpoint.connected)}
                client.answer(Response(request.number, Standing.DONE, json.dumps(picture).encode()))
            case Verb.TRANSFER:
                reason = self.raft.transfer_leadership(int(request.key), self._now_ns())
                standing = Standing.REFUSED if reason else Standing.DONE
                client.answer(Response(request.number, standing, None, reason or ""))
            case Verb.CUT | Verb.CLOCK | Verb.MEMBERS:
                reason = "this node is not breakable"
                if self._trials is not None:
                    reason = self._trials.undergo(request, self.raft)
                standing = Standing.REFUSED if reason else Standing.DONE
                client.answer(Response(request.number, standing, None, reason or ""))
            case Verb.LOAD:
                self._on_load(client, request)
            case _:
                client.answer(Response(request.number, Standing.REFUSED, None, f"verb {request.verb} is unknown"))

    def _on_write(self, client: Client, request: Request) -> None:
        if len(request.once) != ONCE_BYTES:
            return client.answer(Response(request.number, Standing.REFUSED, None, f"once has no {ONCE_BYTES} bytes"))
        outcome = self.raft.propose_once(request.once, EntryKind.FRAME, payload_of(request))
        if outcome.standing is Proposed.PENDING:
            self._waiting.setdefault(request.once, []).append((client, request.number))
            return None
        return client.answer(self._response(request.number, request.once, outcome))

    def _response(self, number: int, once: bytes, outcome: Outcome | None) -> Response:
        leader = -1 if self.raft.leader is None else self.raft.leader
        if outcome is None or outcome.standing in (Proposed.UNKNOWN, Proposed.PENDING):
            return Response(number, Standing.UNKNOWN, None, "", leader)
        if outcome.standing is Proposed.REFUSED:
            return Response(number, Standing.REFUSED, None, outcome.reason, leader)
        done = self.values.result(once)
        if done is None:  # committed, and not applied here yet, or forgotten
            return Response(number, Standing.UNKNOWN, None, "its result is not known here", leader)
        return Response(number, Standing.DONE, b"" if done else None, "", leader)

    def _on_read(self, client: Client, request: Request) -> None:
        self._read_count += 1
        self._reading[self._read_count] = (client, request.number, request.key)
        self.raft.read(self._read_count, self._now_ns())

    def _on_load(self, client: Client, request: Request) -> None:
        def finished(figures: dict[str, Any]) -> None:
            self._load = None
            client.answer(Response(request.number, Standing.DONE, json.dumps(figures).encode()))
            self._flush_answers()

        wanted = msgspec.json.decode(request.value, type=Load)
        self._load = EmbeddedLoad(self.raft, self.runner.touch, finished, wanted)
        self._load.start()

    # --- what is committed -------------------------------------------------------------------------------------------

    def _perform(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            assert self.raft.proposals is not None
            self.raft.proposals.load(self.values.load(ready.snapshot.data), ready.snapshot.index)
        if ready.committed_entries:
            self._apply(ready)
        if ready.reads:
            self._on_read_results(ready)
        if self._readable:
            self._answer_readable()
        if self._waiting and self.raft.role is not Role.LEADER:
            self._give_up_waiting()
        self._flush_answers()

    def _apply(self, ready: Ready) -> None:
        values, waiting, load = self.values, self._waiting, self._load
        keys = values.apply(ready.committed_entries)
        if waiting:
            for once in keys:
                for client, number in waiting.pop(once, ()):
                    client.answer(Response(number, DONE, b"" if values.result(once) else None))
        if load is not None:
            for once in keys:
                load.committed(once)
        if self.site.snapshot_every:
            self._compact(self.site.snapshot_every)

    def _compact(self, every: int) -> None:
        last = 0 if self.raft.snapshot is None else self.raft.snapshot.index
        if self.values.index - last >= every:
            assert self.raft.proposals is not None
            data = self.values.dump(self.raft.proposals.dump(self.values.index))
            self.raft.compact(self.values.index, data, TRAILING_ENTRIES)

    def _on_read_results(self, ready: Ready) -> None:
        for result in ready.reads:
            if result.index is None:
                client, number, _ = self._reading.pop(result.request)
                leader = -1 if self.raft.leader is None else self.raft.leader
                client.answer(Response(number, Standing.REFUSED, None, result.reason, leader))
            else:
                self._readable.append((result.index, result.request))

    def _answer_readable(self) -> None:
        waiting = []
        for index, request in self._readable:
            if index > self.values.index:
                waiting.append((index, request))
                continue
            client, number, key = self._reading.pop(request)
            client.answer(Response(number, Standing.DONE, self.values.values.get(key)))
        self._readable = waiting

    def _give_up_waiting(self) -> None:
        """This node leads no more: what it proposed may or may not be committed by others."""
        waiting, self._waiting = self._waiting, {}
        for once, clients in waiting.items():
            for client, number in clients:
                client.answer(self._response(number, once, self.raft.outcome(once)))

    def _flush_answers(self) -> None:
        answering, self.answering = self.answering, []
        for client in answering:
            client.flush()


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
