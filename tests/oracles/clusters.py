"""Small clusters with real keys and certificates, for tests of identity and transport."""

from __future__ import annotations

import socket
from dataclasses import dataclass, replace
from pathlib import Path

from protocol.identity import Identity, load_identity
from protocol.pki import Authority, Subject, issue_cluster
from protocol.roster import VOTER_ROLES, Agent, Role, Roster

CLUSTER = "testing"
CLUSTER_ID = bytes(range(16))

TRANSPORT_PAIRS = ("aioquic dials aioquic", "qh3 dials qh3", "aioquic dials qh3", "qh3 dials aioquic")

ROLES = {
    "trader-1": Role.TRADER,
    "risk-1": Role.RISK,
    "risk-2": Role.RISK,
    "executor-1": Role.EXECUTOR,
    "venue-1": Role.VENUE,
    "operator-1": Role.OPERATOR,
}


@dataclass(frozen=True)
class Cluster:
    directory: Path
    authority: Authority
    roster: Roster

    def identity(self, agent_id: str) -> Identity:
        return load_identity(self.directory / agent_id, self.roster, agent_id)

    def agent(self, agent_id: str) -> Agent:
        agent = self.roster.by_id(agent_id)
        assert agent is not None
        return agent

    def moved(self) -> Cluster:
        """The same keys on ports that are free now."""
        ports = free_ports(len(self.roster.agents))
        agents = tuple(replace(agent, port=ports[agent.index]) for agent in self.roster.agents)
        return replace(self, roster=Roster(CLUSTER, CLUSTER_ID, agents))


def free_ports(count: int) -> list[int]:
    """UDP ports of 127.0.0.1 that nobody uses at this moment."""
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for udp in sockets:
            udp.bind(("127.0.0.1", 0))
        return [udp.getsockname()[1] for udp in sockets]
    finally:
        for udp in sockets:
            udp.close()


def make_roster(public_keys: dict[str, bytes], roles: dict[str, Role] | None = None) -> Roster:
    roles = roles or ROLES
    ports = free_ports(len(roles))
    agents = tuple(
        Agent(agent_id, role, index, "127.0.0.1", ports[index], role in VOTER_ROLES, public_keys[agent_id])
        for index, (agent_id, role) in enumerate(roles.items())
    )
    return Roster(CLUSTER, CLUSTER_ID, agents)


def make_cluster(directory: Path, roles: dict[str, Role] | None = None) -> Cluster:
    roles = roles or ROLES
    authority = Authority.create(CLUSTER)
    subjects = [Subject(agent_id, role, "127.0.0.1") for agent_id, role in roles.items()]
    public_keys = issue_cluster(directory, CLUSTER, subjects, authority=authority)
    return Cluster(directory, authority, make_roster(public_keys, roles))
