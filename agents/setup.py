"""Everything a process needs before it starts: configuration, keys, data, profiler, logs. Every check happens here."""

from __future__ import annotations

import hashlib
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import structlog

from agents.config import ClusterConfig
from agents.data import catalog
from agents.data.dataset import Dataset, load_csv
from agents.network_cuts import CutsOf
from agents.switches import MODES, Switches
from agents.transports import check_transports, transport_of
from consensus.assembly import ReplicaSettings
from consensus.effects import Bodies, ReplicaKeys
from consensus.pbft.config import PbftConfig
from consensus.quorum import Quorum
from consensus.raft.config import RaftConfig
from consensus.runner import TICK_NS
from profiling.ring import RingWriter
from profiling.span import install, span
from profiling.stages import Operation
from protocol.codec import Codec, codec_for
from protocol.codes import CommandKind
from protocol.endpoint import Endpoint, OnMessage, OnPeerChange
from protocol.errors import PeerViolation, UsageError
from protocol.identity import Identity, Verifier, usable_identity
from protocol.messages import Frame, Outcome, SignedCommand, SliceGrant
from protocol.quic.chaos import ChaosPort, Impairment, parse_network
from protocol.quic.port import DatagramPort, UdpPort
from protocol.roster import Agent, Role, Roster
from protocol.signing import command_digest

MS = 1_000_000


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What differs from one start to the next; everything else stands in ``cluster.toml``."""

    run_id: str = ""
    """Names the run; its state and signatures are worth nothing in another. Empty: the cluster's standing state."""
    run_dir: Path | None = None
    """Where traces and state go; without it, below the cluster's state directory."""
    cycles: int = 0
    """How many cycles the trader makes; 0 until it is stopped or the data ends."""
    mode: str = "optimized"
    switches: Switches = MODES["optimized"]
    data: str = ""
    """Overrides ``data.source``."""
    rate_per_s: float = 0.0
    """How many bars a second the market sends; 0: the next one when the trader is ready for it."""
    bind_host: str = ""
    """Overrides the address to listen on, where the roster's name is not an own address (containers)."""
    transports: tuple[str, ...] = ()
    """Overrides the QUIC library: ``NAME`` for all agents, ``AGENT=NAME`` for one."""
    network: str = ""
    """What everything that an agent sends goes through, as ``quic.chaos.parse_network`` reads it; empty: the host's."""


@dataclass(frozen=True)
class Setup:
    """A checked start. ``roster.cluster_id`` is the run's, derived from the cluster's id and the run's name."""

    config: ClusterConfig
    options: RunOptions
    agent: Agent
    identity: Identity
    roster: Roster
    codec: Codec
    data: Dataset
    data_dir: Path
    verifier: Verifier
    log: Any
    start_index: int

    @property
    def switches(self) -> Switches:
        return self.options.switches

    @property
    def transport(self) -> str:
        """The QUIC library of this agent."""
        return transport_of(self.agent.id, self.options.transports, self.config.transport(self.agent))

    @property
    def pid(self) -> int:
        return os.getpid()

    def store_witness(self) -> Path | None:
        """What remembers this agent's store, beside its key; None in a run of its own, whose votes count nowhere else.

        A key folder that cannot be written, as in the containers, cannot remember: a lost disk goes unnoticed there.
        """
        folder = self.config.pki_dir / self.agent.id
        if self.options.run_id:
            return None
        if not os.access(folder, os.W_OK):
            self.log.warning("store_without_witness", folder=str(folder))
            return None
        return folder / "store"

    def open_profiler(self) -> None:
        """Record from now on. After the stores are open, because they refuse a directory that is somebody else's."""
        install(RingWriter(self.data_dir / "trace.ring", self.agent.index))

    def rng(self, purpose: str) -> random.Random:
        """A generator of its own per agent, purpose and process life."""
        return random.Random(f"{self.config.file.seed}/{self.options.run_id}/{self.agent.id}/{purpose}/{self.pid}")

    def endpoint(self, on_message: OnMessage, on_peer_change: OnPeerChange) -> Endpoint:
        """This agent's place on the network, not yet listening."""
        return Endpoint(
            self.identity,
            self.roster,
            self.codec,
            on_message=on_message,
            on_peer_change=on_peer_change,
            batch_max=self.switches.batch_max,
            profile=self.config.file.wire.profile,
            transport=self.transport,
            bind_host=self.options.bind_host or None,
            rng=self.rng("endpoint"),
            logger=self.log,
            port=self.datagram_port(),
            busy_poll_s=self.config.file.wire.busy_poll_us / 1e6,
        )

    def datagram_port(self) -> DatagramPort:
        """What carries datagrams. The same seed gives the same impairment, whatever the process."""
        if not self.options.network:
            return UdpPort()
        rng = random.Random(f"{self.config.file.seed}/{self.agent.id}/network")
        impairment = Impairment(parse_network(self.options.network), rng)
        cuts = CutsOf(self.data_dir.parent, self.roster, self.agent, self.log)
        return ChaosPort(UdpPort(), impairment, time.monotonic, cuts)

    def replica_settings(self) -> ReplicaSettings:
        file = self.config.file
        voters = tuple(agent.index for agent in self.roster.voters)
        quorum = Quorum(len(voters), file.consensus.faulty_max, self.switches.consensus)
        raft = RaftConfig(
            heartbeat_ns=file.consensus.heartbeat_ms * MS,
            election_timeout_min_ns=file.consensus.election_timeout_min_ms * MS,
            election_timeout_max_ns=file.consensus.election_timeout_max_ms * MS,
            commit_delay_ns=TICK_NS,
            thrift_delay_ns=file.consensus.thrift_ms * MS,
            prompt=frozenset(agent.index for agent in self.roster.voters if agent.role is Role.EXECUTOR),
        )
        pbft = PbftConfig(suspect_ns=file.consensus.critical_expiry_ms * MS // 2)
        keys = ReplicaKeys(self._sign, self._verify)
        return ReplicaSettings(
            own=self.agent.index,
            voters=voters,
            quorum=quorum,
            cluster_id=self.roster.cluster_id,
            rng=self.rng("raft"),
            raft=raft,
            pbft=pbft,
            keys=keys,
            bodies=self.bodies(),
            validate=self._validator(),
        )

    def bodies(self) -> Bodies:
        codec = self.codec
        return Bodies(
            encode_outcome=codec.encode_body,
            decode_outcome=lambda data: codec.decode_body(Outcome, data),
            decode_frame=self._decode_frame,
            decode_grant=lambda data: codec.decode_body(SliceGrant, data),
        )

    def _decode_frame(self, data: bytes) -> Frame:
        with span(Operation.FRAME_DECODE):
            return self.codec.decode_body(Frame, data)

    def _sign(self, data: bytes) -> bytes:
        with span(Operation.VOTE_SIGN):
            return self.identity.sign(data)

    def _verify(self, index: int, data: bytes, signature: bytes) -> bool:
        with span(Operation.VOTE_VERIFY):
            return self.verifier.verify(index, data, signature)

    def _validator(self) -> Callable[[SignedCommand], str | None]:
        """Which commands the spine may order: a trader's frame or a grant within the configured limits, well signed."""
        cluster_id, codec, verifier = self.roster.cluster_id, self.codec, self.verifier
        traders = {agent.index for agent in self.roster.agents if agent.role is Role.TRADER}
        gates = {agent.index for agent in self.roster.agents if agent.role is Role.EXECUTOR}
        limits = self.config.file.consensus

        def validate(command: SignedCommand) -> str | None:
            if command.author not in traders:
                return "author_not_a_trader"
            with span(Operation.SIGNATURE_VERIFY):
                digest = command_digest(cluster_id, command)
                if not verifier.verify(command.author, digest, command.signature):
                    return "signature_invalid"
            if command.kind == CommandKind.FRAME:
                return None
            try:
                grant = codec.decode_body(SliceGrant, command.body)
            except PeerViolation as violation:
                return violation.reason
            if grant.trader != command.author or grant.gate not in gates:
                return "grant_parties"
            within = grant.notional_limit <= limits.slice_notional_units
            if not within or grant.symbol_notional_limit > limits.slice_symbol_notional_units:
                return "grant_over_limits"
            return None

        return validate


def run_cluster_id(cluster_id: bytes, run_id: str) -> bytes:
    """A run's own cluster id: signatures, connections and stored state of one run mean nothing in another."""
    if not run_id:
        return cluster_id
    return hashlib.sha256(b"swarm/run/1" + cluster_id + run_id.encode()).digest()[:16]


def run_roster(config: ClusterConfig, run_id: str) -> Roster:
    roster = config.roster
    return Roster(roster.cluster_name, run_cluster_id(roster.cluster_id, run_id), roster.agents)


def load_data(config: ClusterConfig, source: str = "") -> Dataset:
    """The data set that the configuration, or ``source`` over it, names."""
    section = config.file.data
    if section.path and not source:
        path = config.path.parent / section.path
        return load_csv(path, path.name)
    name = source or section.source
    return catalog.load(
        name,
        catalog.data_directory(),
        seed=config.file.seed,
        symbols=section.synthetic_symbols,
        bars=section.synthetic_bars,
    )


def check_instruments(config: ClusterConfig, data: Dataset) -> None:
    """Nothing trades that is not on the allow-list; a data set without any of it is a mistake, not a quiet run."""
    if not set(data.symbols) & set(config.file.risk.instruments):
        raise UsageError(
            f"{config.path}: none of the symbols of '{data.name}' is in risk.instruments; list them there, "
            "or make a cluster for this data with `swarm init --dir DIR --data NAME`"
        )


def start_index(config: ClusterConfig, data: Dataset, cycles: int) -> int:
    """First bar to trade. There must be history before it and enough bars after it for the cycles asked for."""
    pattern, section = config.file.pattern, config.file.data
    needed = 3 * pattern.window + pattern.horizon
    start = section.start or max(needed, data.bars - 501)
    if start < needed:
        raise UsageError(f"{config.path}: data.start = {start} leaves too little history; use at least {needed}")
    room = data.bars - 1 - start
    if cycles > room:
        raise UsageError(
            f"--cycles {cycles}: {data.name} has {room} bars from bar {start} on; "
            "ask for fewer cycles or set data.start lower"
        )
    return start


def prepare(config: ClusterConfig, agent_id: str, role: Role, options: RunOptions) -> Setup:
    """Check everything. Raises ``UsageError`` or ``RunFailure``; nothing is damaged."""
    agent = config.agent(agent_id, role)
    check_transports(options.transports, config.roster)
    roster = run_roster(config, options.run_id)
    identity = usable_identity(config.pki_dir / agent.id, roster, agent.id)
    data = load_data(config, options.data)
    start = start_index(config, data, options.cycles)
    data_dir = (options.run_dir or config.state_dir) / agent.id
    data_dir.mkdir(parents=True, exist_ok=True)
    log = structlog.get_logger().bind(agent=agent.id)
    codec = codec_for(options.switches.codec)
    return Setup(config, options, agent, identity, roster, codec, data, data_dir, Verifier(roster), log, start)
