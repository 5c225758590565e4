"""``swarm init``: a new cluster's file, keys and certificates."""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.config import ClusterConfig
from agents.data import catalog
from protocol.errors import UsageError
from protocol.pki import Subject, issue_cluster
from protocol.roster import Role

CONFIG_NAME: Final = "cluster.toml"
DEFAULT_BASE_PORT: Final = 7401


@dataclass(frozen=True, slots=True)
class Line:
    """An agent of the new roster."""

    id: str
    role: Role
    votes: bool
    host: str
    port: int


def default_roster(base_port: int, hosts: str) -> list[Line]:
    """The smallest roster that bears one liar: four voters and a venue.

    ``hosts`` is an address for all of them, or ``names`` for one host per agent, called like it (containers).
    """
    agents = [
        ("risk-1", Role.RISK),
        ("risk-2", Role.RISK),
        ("executor-1", Role.EXECUTOR),
        ("trader-1", Role.TRADER),
        ("venue", Role.VENUE),
    ]
    return [
        Line(
            agent_id,
            role,
            role is not Role.VENUE,
            agent_id if hosts == "names" else hosts,
            base_port if hosts == "names" else base_port + number,
        )
        for number, (agent_id, role) in enumerate(agents)
    ]


def init_cluster(
    directory: Path,
    *,
    name: str,
    base_port: int,
    hosts: str,
    valid_hours: float,
    data: str,
    force: bool,
    symbols: Sequence[str],
) -> Path:
    """Write ``cluster.toml`` and ``pki/``; refuse to overwrite a cluster unless ``force``."""
    path = directory / CONFIG_NAME
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; use it, choose another --dir, or overwrite it with --force")
    if data != catalog.SYNTHETIC and data not in catalog.SOURCES:
        raise UsageError(f"--data {data}: unknown; choose one of {', '.join([*catalog.SOURCES, catalog.SYNTHETIC])}")
    if not 1024 <= base_port <= 65000:
        raise UsageError(f"--base-port {base_port}: choose one between 1024 and 65000")
    roster = default_roster(base_port, hosts)
    keys = issue_keys(directory / "pki", name, roster, valid_hours)
    profile = "loopback" if hosts.startswith("127.") else "lan"
    directory.mkdir(parents=True, exist_ok=True)
    path.write_text(_toml(name, roster, keys, profile, data, symbols))
    return path


def renew_certificates(config: ClusterConfig, valid_hours: float) -> None:
    """New certificates for every agent of an existing cluster, from a new authority; signing keys stay."""
    roster = [Line(a.id, a.role, a.votes, a.host, a.port) for a in config.roster.agents if a.role is not Role.OPERATOR]
    keys = issue_keys(config.pki_dir, config.roster.cluster_name, roster, valid_hours)
    for agent in config.roster.agents:
        if keys[agent.id] != agent.public_key:
            raise UsageError(
                f"{config.path}: the public key of '{agent.id}' is not that of {config.pki_dir / agent.id}/agent.key; "
                "restore the key or make a new cluster with `swarm init --force`"
            )


def issue_keys(pki: Path, name: str, roster: Sequence[Line], valid_hours: float) -> dict[str, bytes]:
    """Certificates and keys for all agents and the operator; signing keys that exist are kept."""
    subjects = [Subject(line.id, line.role, line.host) for line in roster]
    subjects.append(Subject("operator", Role.OPERATOR, "operator"))
    return issue_cluster(pki, name, subjects, valid_hours=valid_hours)


def _toml(
    name: str, roster: Sequence[Line], keys: dict[str, bytes], profile: str, data: str, symbols: Sequence[str]
) -> str:
    """The file: what must be said, and the keys that people change first. Everything else has its default."""
    lines = [
        "# One file for the whole cluster. `swarm config` prints it with every default filled in.",
        "seed = 7",
        "",
        "[cluster]",
        f"name = {json.dumps(name)}",
        f'id = "{secrets.token_hex(16)}"',
        "",
        "[consensus]",
        "faulty_max = 1",
        "critical_notional = 15000.0",
        "",
        "[wire]",
        f'profile = "{profile}"',
        "",
        "[data]",
        f"source = {json.dumps(data)}",
        "",
        "[risk]",
        f"instruments = {json.dumps(list(symbols))}",
        "max_order_notional = 25000.0",
        "max_position_notional = 100000.0",
        "max_gross_notional = 250000.0",
        "",
        "[venue]",
        "latency_us = 200",
        "",
        "[operator]",
        f'public_key = "{keys["operator"].hex()}"',
    ]
    for line in roster:
        lines += [
            "",
            "[[agent]]",
            f'id = "{line.id}"',
            f'role = "{line.role.value}"',
            f'host = "{line.host}"',
            f"port = {line.port}",
            f"votes = {str(line.votes).lower()}",
            f'public_key = "{keys[line.id].hex()}"',
        ]
    return "\n".join(lines) + "\n"
