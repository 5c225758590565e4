"""``cluster.toml``: one file that every agent of a cluster reads, checked as a whole before anything starts.

Money is written in quote currency and kept in integer price units (``protocol.messages.PRICE_SCALE``) by the properties
that end in ``_units``. Unknown keys are refused everywhere: a typing error never silently means the default.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from agents.risk.limits import RiskLimits
from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE
from protocol.roster import Agent, Role, Roster

Positive = Annotated[int, Meta(gt=0, le=2**31 - 1)]
PositiveFloat = Annotated[float, Meta(gt=0, le=1e12)]
Natural = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Port = Annotated[int, Meta(ge=1, le=65535)]


class ClusterSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    name: str
    id: Annotated[str, Meta(pattern="^[0-9a-f]{32}$")]
    pki: str = "pki"
    """Directory of keys and certificates, relative to the file."""
    state: str = "state"
    """Directory below which every agent keeps its own data directory, relative to the file."""


class ConsensusSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    faulty_max: Natural = 1
    """f: how many replicas may lie."""
    heartbeat_ms: Positive = 100
    election_timeout_min_ms: Positive = 500
    election_timeout_max_ms: Positive = 1_000
    thrift_ms: Natural = 10
    """How long routine entries wait for replicas that the quorum can do without, executors never; 0 sends to all at
    once."""
    critical_notional: PositiveFloat = 15_000.0
    """Orders above it take the spine."""
    routine_expiry_ms: Positive = 4_000
    critical_expiry_ms: Positive = 3_000
    resubmit_ms: Positive = 200
    escalate_ms: Positive = 2_000
    """A routine frame that the lane has not settled by then escalates to the spine under the same intent ids."""
    slice_notional: PositiveFloat = 500_000.0
    """Budget that one grant gives a trader."""
    slice_symbol_notional: PositiveFloat = 120_000.0
    slice_refill_share: Annotated[float, Meta(gt=0, lt=1)] = 0.5
    """The next version is asked for when this share is used."""
    stress_distance: PositiveFloat = 4.0
    """A market this close to a known stress episode makes decisions critical; see ``agents/stress.py``."""

    @property
    def critical_notional_units(self) -> int:
        return round(self.critical_notional * PRICE_SCALE)

    @property
    def slice_notional_units(self) -> int:
        return round(self.slice_notional * PRICE_SCALE)

    @property
    def slice_symbol_notional_units(self) -> int:
        return round(self.slice_symbol_notional * PRICE_SCALE)


class WireSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    profile: Literal["loopback", "lan"] = "loopback"
    transport: Literal["aioquic", "qh3"] = "aioquic"
    """The QUIC library; they speak to each other, so that agents may differ."""
    busy_poll_us: Annotated[int, Meta(ge=0, le=10_000)] = 0
    """How long an agent stays awake after traffic: for hosts with a core for each agent. 0: it sleeps at once."""


class DataSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    source: str = "us-large-caps"
    """A name of `swarm data list`, or `synthetic`."""
    path: str = ""
    """A CSV file of your own instead (Date, then one close per symbol), relative to the file."""
    start: Natural = 0
    """First bar to trade; 0 leaves the last 500 bars to trade on and everything before as history."""
    synthetic_symbols: Positive = 20
    synthetic_bars: Positive = 4_000


class PatternSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    window: Annotated[int, Meta(ge=8, le=1024)] = 64
    band: Natural = 6
    neighbours: Annotated[int, Meta(ge=1, le=64)] = 8
    horizon: Annotated[int, Meta(ge=1, le=256)] = 5
    exclusion: Natural = 5
    """Two analogues start at least this many bars apart."""
    threads: Annotated[int, Meta(ge=1, le=64)] = 2
    """Threads of a trader's search, which the whole swarm waits for. Risk agents, all at once, repeat it in one."""


class StrategySection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    agreement: Annotated[float, Meta(gt=0.5, le=1)] = 0.75
    """Share of analogues that must point the same way."""
    edge_min_bps: PositiveFloat = 40.0
    order_notional: PositiveFloat = 9_000.0
    """Notional of a position of average conviction and volatility."""
    order_notional_max: PositiveFloat = 22_000.0
    trade_notional_min: PositiveFloat = 1_500.0
    """Smaller differences between wish and position are left alone."""
    gross_notional_max: PositiveFloat = 180_000.0
    volatility_window: Annotated[int, Meta(ge=5)] = 20
    value_at_risk_window: Annotated[int, Meta(ge=30)] = 250
    value_at_risk_max: PositiveFloat = 12_000.0


class VenueSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    latency_us: Natural = 200
    jitter_us: Natural = 50
    half_spread_bps: PositiveFloat = 2.0
    level_quantity: Positive = 400
    depth_levels: Positive = 5
    fee_bps: Annotated[float, Meta(ge=0, le=10_000)] = 0.5
    reject_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0


class AgentSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    id: str
    role: Literal["trader", "risk", "executor", "venue"]
    host: Annotated[str, Meta(min_length=1)]
    port: Port
    votes: bool
    public_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
    transport: Literal["aioquic", "qh3", ""] = ""
    """Overrides ``wire.transport`` for this agent."""
    feed_port: Annotated[int, Meta(ge=0, le=65535)] = 0
    """UDP port that tells anybody who can reach it how the agent is, and the venue's prices; 0 for none."""


class OperatorSection(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    public_key: Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class ClusterFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file as it stands."""

    cluster: ClusterSection
    consensus: ConsensusSection = ConsensusSection()
    wire: WireSection = WireSection()
    data: DataSection = DataSection()
    pattern: PatternSection = PatternSection()
    strategy: StrategySection = StrategySection()
    risk: RiskLimits = RiskLimits()
    venue: VenueSection = VenueSection()
    agent: list[AgentSection]
    operator: OperatorSection
    seed: Natural = 7


class ClusterConfig:
    """A checked file with the roster that follows from it. ``path`` is where it was read."""

    def __init__(self, path: Path, file: ClusterFile, roster: Roster) -> None:
        self.path = path
        self.file = file
        self.roster = roster

    @property
    def pki_dir(self) -> Path:
        return self.path.parent / self.file.cluster.pki

    @property
    def state_dir(self) -> Path:
        return self.path.parent / self.file.cluster.state

    def agent(self, agent_id: str, role: Role) -> Agent:
        """The roster's line for ``agent_id``; ``UsageError`` if there is none or it has another role."""
        found = self.roster.by_id(agent_id)
        known = ", ".join(agent.id for agent in self.roster.agents if agent.role is role)
        if found is None:
            raise UsageError(f"agent '{agent_id}' is not in {self.path}; its {role} agents are: {known or 'none'}")
        if found.role is not role:
            raise UsageError(f"agent '{agent_id}' is a {found.role}; start it with `swarm {found.role}`")
        return found

    def transport(self, agent: Agent) -> str:
        """The QUIC library that the file wants for this agent."""
        own = self.file.agent[agent.index].transport if agent.role is not Role.OPERATOR else ""
        return own or self.file.wire.transport

    def feed_port(self, agent: Agent) -> int:
        """Where the agent's public feed listens; 0 when it has none."""
        return self.file.agent[agent.index].feed_port if agent.role is not Role.OPERATOR else 0

    def with_role(self, role: Role) -> tuple[Agent, ...]:
        return tuple(agent for agent in self.roster.agents if agent.role is role)


def load_config(path: Path) -> ClusterConfig:
    """Read and check ``cluster.toml``. Every mistake is a ``UsageError`` of one line with the place and the mend."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UsageError(f"{path} does not exist; make one with `swarm init --dir {path.parent}`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} cannot be read ({error}); check the file and its permissions") from None
    try:
        file = msgspec.convert(tomllib.loads(text), ClusterFile)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}; correct it or make a new one with `swarm init`") from None
    except msgspec.ValidationError as error:
        raise UsageError(f"{path}: {error}; correct the key or remove it to take the default") from None
    return ClusterConfig(path, file, _roster(path, file))


def _roster(path: Path, file: ClusterFile) -> Roster:
    agents = [
        Agent(line.id, Role(line.role), index, line.host, line.port, line.votes, bytes.fromhex(line.public_key))
        for index, line in enumerate(file.agent)
    ]
    operator_key = bytes.fromhex(file.operator.public_key)
    agents.append(Agent("operator", Role.OPERATOR, len(agents), "", 0, False, operator_key))
    _check_addresses(path, file)
    _check_roles(path, agents)
    _check_fault_budget(path, file, sum(agent.votes for agent in agents))
    try:
        return Roster(file.cluster.name, bytes.fromhex(file.cluster.id), tuple(agents))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _check_addresses(path: Path, file: ClusterFile) -> None:
    owner: dict[tuple[str, int], str] = {}
    listening = [(line, f"'{line.id}'", line.port) for line in file.agent]
    listening += [(line, f"the feed of '{line.id}'", line.feed_port) for line in file.agent if line.feed_port]
    for line, name, port in listening:
        other = owner.setdefault((line.host, port), name)
        if other != name:
            raise UsageError(f"{path}: {name} and {other} both listen on {line.host}:{port}; give each its own port")


def _check_roles(path: Path, agents: list[Agent]) -> None:
    for role, most in ((Role.TRADER, None), (Role.EXECUTOR, None), (Role.VENUE, 1)):
        count = sum(agent.role is role for agent in agents)
        if count == 0 or (most is not None and count > most):
            wanted = "at least one" if most is None else "exactly one"
            raise UsageError(f"{path}: the roster has {count} agents of role {role.value}; list {wanted} in [[agent]]")


def _check_fault_budget(path: Path, file: ClusterFile, voters: int) -> None:
    faulty = file.consensus.faulty_max
    if voters < 3 * faulty + 1:
        raise UsageError(
            f"{path}: {voters} voters cannot bear consensus.faulty_max = {faulty}; it takes 3f+1, "
            f"so add voters or lower it to {max(0, (voters - 1) // 3)}"
        )
    if file.consensus.election_timeout_min_ms <= 2 * file.consensus.heartbeat_ms:
        raise UsageError(
            f"{path}: consensus.election_timeout_min_ms must be over twice heartbeat_ms "
            f"({file.consensus.heartbeat_ms}); raise it"
        )
    if file.consensus.election_timeout_max_ms <= file.consensus.election_timeout_min_ms:
        raise UsageError(
            f"{path}: consensus.election_timeout_max_ms must be over election_timeout_min_ms "
            f"({file.consensus.election_timeout_min_ms}); raise it"
        )
