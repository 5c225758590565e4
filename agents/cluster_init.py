"""``swarm init``: a new cluster's file, keys and certificates."""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature

from agents.config import ClusterConfig
from agents.data import catalog
from agents.revoke import load_authority, publish
from protocol.errors import UsageError
from protocol.key_files import read_signing_key, write_file
from protocol.pki import Authority, Subject, issue_cluster, load_certificates
from protocol.revocation import LIST_NAME, sign_revocations
from protocol.roster import Role

CONFIG_NAME: Final = "cluster.toml"
DEFAULT_BASE_PORT: Final = 7401
NAMES: Final = "names"
HOURS_MAX: Final = 24.0 * 365 * 10

_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")


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
            agent_id if hosts == NAMES else hosts,
            base_port if hosts == NAMES else base_port + number,
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
    ca_key: Path | None = None,
) -> Path:
    """Write ``cluster.toml`` and ``pki/``; refuse to overwrite a cluster unless ``force``.

    ``ca_key`` is where the authority's key is kept, which is forgotten otherwise. Raises ``UsageError`` before anything
    is written. Signing keys that lie there already are kept.
    """
    path = check_new_cluster(
        directory,
        name=name,
        base_port=base_port,
        hosts=hosts,
        valid_hours=valid_hours,
        data=data,
        force=force,
        ca_key=ca_key,
    )
    roster = default_roster(base_port, hosts)
    keys = issue_new(directory / "pki", name, roster, valid_hours, ca_key)
    profile = "loopback" if hosts.startswith("127.") else "lan"
    write_file(path, _toml(name, roster, keys, profile, data, symbols).encode())
    return path


def check_new_cluster(
    directory: Path,
    *,
    name: str,
    base_port: int,
    hosts: str,
    valid_hours: float,
    data: str,
    force: bool,
    ca_key: Path | None = None,
) -> Path:
    """Where the new cluster's file will lie. Raises ``UsageError`` for what ``init_cluster`` would refuse."""
    path = directory / CONFIG_NAME
    if path.exists() and not force:
        raise UsageError(f"{path} exists already; use it, choose another --dir, or overwrite it with --force")
    if data != catalog.SYNTHETIC and data not in catalog.SOURCES:
        raise UsageError(f"--data {data}: unknown; choose one of {', '.join([*catalog.SOURCES, catalog.SYNTHETIC])}")
    if not 1024 <= base_port <= 65000:
        raise UsageError(f"--base-port {base_port}: choose one between 1024 and 65000")
    if not _LABEL.fullmatch(name):
        raise UsageError(f"--name {name!r}: a cluster name has 1 to 63 of a-z, 0-9 and '-'; choose such a name")
    if not _is_host(hosts):
        raise UsageError(f"--hosts {hosts!r}: give an IP address, a host name, or `{NAMES}`")
    if ca_key is not None and ca_key.exists():
        raise UsageError(f"--ca-key {ca_key} exists already; name another file for the new authority's key")
    check_hours(valid_hours)
    return path


def _is_host(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return len(host) < 254 and all(_LABEL.fullmatch(label.lower()) for label in host.split("."))
    return True


def check_hours(valid_hours: float) -> None:
    """How long certificates and lists may hold. Raises ``UsageError``."""
    if not 0 < valid_hours <= HOURS_MAX:
        raise UsageError(f"--hours {valid_hours:g}: certificates hold for more than 0 and at most {HOURS_MAX:g} hours")


def certificates_hold(config: ClusterConfig, hours: float) -> bool:
    """Whether every agent has a certificate of the present authority that holds for ``hours`` more.

    False too when a file is missing or cannot be read, and after a renewal that broke off half-way.
    """
    until = datetime.now(UTC) + timedelta(hours=hours)
    try:
        authority = load_certificates(config.pki_dir / "ca.crt")[0]
        for agent in config.roster.agents:
            folder = config.pki_dir / agent.id
            certificate = load_certificates(folder / "tls.crt")[0]
            certificate.verify_directly_issued_by(authority)
            if load_certificates(folder / "ca.crt")[0] != authority or certificate.not_valid_after_utc < until:
                return False
    except (UsageError, InvalidSignature, ValueError):
        return False
    return True


def renew_certificates(config: ClusterConfig, valid_hours: float, ca_key: Path | None = None) -> None:
    """New certificates for every agent of an existing cluster; signing keys stay.

    They come from the authority whose key is in ``ca_key``, or else from a new one, whose key is kept there. Raises
    ``UsageError`` before anything is written, also when a signing key is missing or not the roster's.
    """
    check_hours(valid_hours)
    for agent in config.roster.agents:
        key = read_signing_key(config.pki_dir / agent.id / "agent.key")
        if key.public_key().public_bytes_raw() != agent.public_key:
            raise UsageError(
                f"{config.path}: the public key of '{agent.id}' is not that of {config.pki_dir / agent.id}/agent.key; "
                "restore the key or make a new cluster with `swarm init --force`"
            )
    roster = [Line(a.id, a.role, a.votes, a.host, a.port) for a in config.roster.agents if a.role is not Role.OPERATOR]
    if ca_key is not None and ca_key.exists():
        authority = load_authority(config, ca_key)
        _check_lifetime(authority, ca_key, valid_hours)
        issue_keys(config.pki_dir, authority, roster, valid_hours)
        return
    issue_new(config.pki_dir, config.roster.cluster_name, roster, valid_hours, ca_key)


def _check_lifetime(authority: Authority, ca_key: Path, valid_hours: float) -> None:
    until = authority.certificate.not_valid_after_utc
    if until < datetime.now(UTC) + timedelta(hours=valid_hours):
        raise UsageError(
            f"--hours {valid_hours:g}: the authority of {ca_key} itself ends at {until:%Y-%m-%d %H:%M} UTC; "
            "choose fewer hours, or name a new file to have a new authority"
        )


def issue_new(
    pki: Path, name: str, roster: Sequence[Line], valid_hours: float, ca_key: Path | None
) -> dict[str, bytes]:
    """``issue_keys`` from a new authority, which has revoked nothing yet: the old one's list means nothing any more."""
    authority = Authority.create(name)
    keys = issue_keys(pki, authority, roster, valid_hours, ca_key)
    if (pki / LIST_NAME).exists():
        publish(pki, sign_revocations(authority, {}, 1, now=datetime.now(UTC), valid_hours=valid_hours))
    return keys


def issue_keys(
    pki: Path, authority: Authority, roster: Sequence[Line], valid_hours: float, ca_key_out: Path | None = None
) -> dict[str, bytes]:
    """Certificates and keys for all agents and the operator; signing keys that exist are kept."""
    subjects = [Subject(line.id, line.role, line.host) for line in roster]
    subjects.append(Subject("operator", Role.OPERATOR, "operator"))
    return issue_cluster(
        pki, authority.cluster_name, subjects, valid_hours=valid_hours, authority=authority, ca_key_out=ca_key_out
    )


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
            f"host = {json.dumps(line.host)}",
            f"port = {line.port}",
            f"votes = {str(line.votes).lower()}",
            f'public_key = "{keys[line.id].hex()}"',
        ]
    return "\n".join(lines) + "\n"
