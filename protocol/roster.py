"""Who is in the swarm: identities, roles, keys, and which role may say what to which.

The roster is the same in every process; its digest is compared in the first message of each connection, so that two
agents with different pictures of the swarm never exchange a vote.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from protocol import messages as m
from protocol import raft_messages as r
from protocol.errors import UsageError
from protocol.signing import digest

CLUSTER_ID_BYTES: Final = 16
PUBLIC_KEY_BYTES: Final = 32

_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


class Role(StrEnum):
    """What an agent is for. The value appears in certificates and configuration files."""

    TRADER = "trader"
    RISK = "risk"
    EXECUTOR = "executor"
    VENUE = "venue"
    OPERATOR = "operator"


VOTER_ROLES: Final = frozenset({Role.TRADER, Role.RISK, Role.EXECUTOR})


@dataclass(frozen=True, slots=True)
class Agent:
    """One line of the roster. ``host`` and ``port`` say where it listens; an operator's are not used."""

    id: str
    role: Role
    index: int
    """Position in the roster, and for a voter its number in both consensus machines."""
    host: str
    port: int
    votes: bool
    public_key: bytes
    """Raw Ed25519 key that checks everything that this agent signs, 32 bytes."""
    fingerprint: bytes | None = None
    """SHA-256 of the one TLS certificate (DER) accepted for this agent; ``None`` accepts what the CA signed."""


@dataclass(frozen=True)
class Roster:
    """The agents of one cluster in file order, voters first. Raises ``UsageError`` when that does not hold."""

    cluster_name: str
    cluster_id: bytes
    agents: tuple[Agent, ...]
    voters: tuple[Agent, ...] = field(init=False)
    digest: bytes = field(init=False)
    """32 bytes over cluster, ids, roles, vote flags and keys. Addresses may differ: they move when containers do."""
    _by_id: dict[str, Agent] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _check(self)
        set_field = object.__setattr__  # the dataclass is frozen for everybody else
        set_field(self, "voters", tuple(agent for agent in self.agents if agent.votes))
        set_field(self, "digest", _roster_digest(self))
        set_field(self, "_by_id", {agent.id: agent for agent in self.agents})

    def by_id(self, agent_id: str) -> Agent | None:
        return self._by_id.get(agent_id)

    def by_index(self, index: int) -> Agent | None:
        return self.agents[index] if 0 <= index < len(self.agents) else None


def may_talk(role_a: Role, role_b: Role) -> bool:
    """Whether two different agents with these roles have any business together. Symmetric.

    An agent may always ask itself for its status; that is decided by identity, not by role.
    """
    if Role.OPERATOR in (role_a, role_b):
        return True
    if Role.VENUE in (role_a, role_b):
        return {role_a, role_b} == {Role.VENUE, Role.EXECUTOR}
    return True


MessageTypes = frozenset[type[m.Message]]

_STATUS: Final[MessageTypes] = frozenset({m.StatusRequest, m.StatusReply})
_PROBE: Final[MessageTypes] = frozenset({m.StatusRequest})
_EXECUTION: Final[MessageTypes] = frozenset(
    {m.NewOrder, m.OrderStatusRequest, m.MarketAdvance, m.OrderEvent, m.OrderEventsHead}
)
_REPORTS: Final[MessageTypes] = frozenset({m.ExecutionReport})
_AGREEMENT: Final[MessageTypes] = frozenset({
    m.Submit, m.FrameVote,
    m.RequestVote, m.RequestVoteResponse, m.AppendEntries, m.AppendEntriesResponse,
    r.ReadIndex, r.ReadIndexResponse, r.TimeoutNow, r.InstallSnapshot, r.InstallSnapshotResponse,
    m.PrePrepare, m.Prepare, m.Commit, m.SlotRequest, m.SlotReply,
    m.OrderEventsRequest,
})  # fmt: skip

ALLOWED_MESSAGES: Final[dict[Role, MessageTypes]] = {
    Role.TRADER: _STATUS | _AGREEMENT | {m.MarketAdvance},
    Role.RISK: _STATUS | _AGREEMENT,
    Role.EXECUTOR: _STATUS | _AGREEMENT | _EXECUTION,
    Role.VENUE: _STATUS | _REPORTS,
    Role.OPERATOR: _PROBE,
}
"""What each role may send once it is greeted. ``Refused`` may always be sent: it ends the connection."""


def allowed_messages(role: Role, self_probe: bool = False) -> MessageTypes:
    """Message types that a peer of this role may send; a probe, of whatever role, may only ask for the status."""
    return _PROBE if self_probe else ALLOWED_MESSAGES[role]


def _roster_digest(roster: Roster) -> bytes:
    lines = [
        digest(struct.pack("<H?", agent.index, agent.votes), agent.id.encode(), agent.role.encode(), agent.public_key)
        for agent in roster.agents
    ]
    return digest(b"swarm/roster/1", roster.cluster_id, roster.cluster_name.encode(), *lines)


def _check(roster: Roster) -> None:
    where = f"cluster '{roster.cluster_name}'"
    if not _NAME.fullmatch(roster.cluster_name):
        raise UsageError(f"{where}: a cluster name has 1 to 63 of a-z, 0-9 and '-'; choose such a name")
    if len(roster.cluster_id) != CLUSTER_ID_BYTES:
        raise UsageError(f"{where}: the cluster id has {len(roster.cluster_id)} bytes, it needs {CLUSTER_ID_BYTES}")
    if not roster.agents:
        raise UsageError(f"{where}: the roster is empty; list at least one agent")
    seen: set[str] = set()
    for position, agent in enumerate(roster.agents):
        _check_agent(where, position, agent)
        if agent.id in seen:
            raise UsageError(f"{where}: agent '{agent.id}' is listed twice; every agent needs an id of its own")
        seen.add(agent.id)
        if agent.votes and position and not roster.agents[position - 1].votes:
            raise UsageError(f"{where}: voter '{agent.id}' comes after an agent without a vote; list voters first")
    _check_keys_differ(where, roster.agents)


def _check_agent(where: str, position: int, agent: Agent) -> None:
    what = f"{where}: agent '{agent.id}'"
    if not _NAME.fullmatch(agent.id):
        raise UsageError(f"{what}: an id has 1 to 63 of a-z, 0-9 and '-'; choose such an id")
    if agent.index != position:
        raise UsageError(f"{what} has index {agent.index} at position {position}; the index is the position")
    if len(agent.public_key) != PUBLIC_KEY_BYTES:
        raise UsageError(f"{what}: the public key has {len(agent.public_key)} bytes, Ed25519 needs {PUBLIC_KEY_BYTES}")
    if agent.votes and agent.role not in VOTER_ROLES:
        raise UsageError(f"{what}: a {agent.role} has no vote; only traders, risk agents and executors vote")
    if not 0 <= agent.port < 65536:
        raise UsageError(f"{what}: port {agent.port} is out of range; choose 1 to 65535")


def _check_keys_differ(where: str, agents: tuple[Agent, ...]) -> None:
    owner: dict[bytes, str] = {}
    for agent in agents:
        if agent.public_key in owner:
            raise UsageError(f"{where}: '{agent.id}' and '{owner[agent.public_key]}' share a key; issue new keys")
        owner[agent.public_key] = agent.id
