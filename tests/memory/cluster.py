"""A small cluster on disk, for processes that are told nothing but its folder."""

from __future__ import annotations

import json
from pathlib import Path

from protocol.pki import Subject, issue_cluster
from protocol.roster import Agent, Role, Roster
from tests.oracles.clusters import CLUSTER, CLUSTER_ID, Cluster, make_cluster

ROLES = {"trader-1": Role.TRADER, "risk-1": Role.RISK}


def write_cluster(directory: Path) -> Cluster:
    """Keys, certificates, and the ports that are free now."""
    cluster = make_cluster(directory, ROLES)
    rows = [(a.id, a.role.value, a.index, a.host, a.port, a.votes, a.public_key.hex()) for a in cluster.roster.agents]
    (directory / "roster.json").write_text(json.dumps(rows))
    return cluster


def read_roster(directory: Path) -> Roster:
    """The roster that ``write_cluster`` has left there."""
    rows = json.loads((directory / "roster.json").read_text())
    agents = tuple(Agent(id, Role(role), *rest, bytes.fromhex(key)) for id, role, *rest, key in rows)
    return Roster(CLUSTER, CLUSTER_ID, agents)


def renew(cluster: Cluster) -> None:
    """New certificates and TLS keys for everybody, of the same authority."""
    subjects = [Subject(agent.id, agent.role, agent.host) for agent in cluster.roster.agents]
    issue_cluster(cluster.directory, CLUSTER, subjects, authority=cluster.authority)
