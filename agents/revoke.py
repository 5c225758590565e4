"""``swarm revoke``: the authority's list of certificates that are not valid any more, made and extended."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature

from agents.config import ClusterConfig
from protocol.errors import UsageError
from protocol.key_files import write_file
from protocol.pki import Authority, load_certificates
from protocol.revocation import LIST_NAME, Revocations, read_revocations, sign_revocations

SERIAL_BITS_MAX: Final = 160
"""RFC 5280, 4.1.2.2: at most 20 bytes."""


@dataclass(frozen=True, slots=True)
class Revoked:
    """What was done. ``serial`` is ``None`` where the list was only signed anew."""

    serial: int | None
    changed: bool
    """False when the list had named it already, and was good and everywhere."""
    revocations: Revocations
    path: Path


def revoke(
    config: ClusterConfig, ca_key: Path, agent_id: str, serial: int | None, *, now: datetime, valid_hours: float
) -> Revoked:
    """Put the agent's certificate, or the one with that serial number, on the list of all agents.

    Without either the list is signed anew as it is. Raises ``UsageError`` before anything is written.
    """
    if agent_id and config.roster.by_id(agent_id) is None:
        known = ", ".join(agent.id for agent in config.roster.agents)
        raise UsageError(f"agent '{agent_id}' is not in the roster of {config.path}; its agents are: {known}")
    authority = load_authority(config, ca_key)
    serial = _present_serial(config, authority, agent_id) if serial is None and agent_id else serial
    path = config.pki_dir / LIST_NAME
    with _alone(config.pki_dir):
        before = read_revocations(path, [authority.certificate])
        named = serial is not None and serial in before.revoked
        if named and not before.expired(now):
            return Revoked(serial, hand_out(config.pki_dir, path.read_bytes()), before, path)
        revoked = dict(before.revoked) if serial is None or named else {**before.revoked, serial: now}
        signed = sign_revocations(authority, revoked, before.number + 1, now=now, valid_hours=valid_hours)
        publish(config.pki_dir, signed)
        return Revoked(serial, True, read_revocations(path, [authority.certificate]), path)


def load_authority(config: ClusterConfig, ca_key: Path) -> Authority:
    """The cluster's authority with its key. Raises ``UsageError``."""
    if not ca_key.exists():
        raise UsageError(
            f"--ca-key {ca_key} does not exist; name the file that `swarm init --ca-key` wrote, or replace the whole "
            "authority with `swarm init --renew`"
        )
    return Authority.load(config.roster.cluster_name, config.pki_dir / "ca.crt", ca_key)


def publish(pki: Path, signed: bytes) -> None:
    """Write a list, and copy it into the folder of every agent that is here."""
    write_file(pki / LIST_NAME, signed)
    hand_out(pki, signed)


def hand_out(pki: Path, signed: bytes) -> bool:
    """Copy a list into the agents' folders; whether one of them had another."""
    folders = [entry for entry in pki.iterdir() if (entry / "tls.crt").exists()]
    stale = [each / LIST_NAME for each in folders if not _holds(each / LIST_NAME, signed)]
    for path in stale:
        write_file(path, signed)
    return bool(stale)


def serial_number(text: str) -> int:
    """A serial number in hexadecimal, as logs and `openssl x509 -serial` print it. Raises ``UsageError``."""
    try:
        serial = int(text.replace(":", ""), 16)
    except ValueError:
        serial = 0
    if not 0 < serial < 1 << SERIAL_BITS_MAX:
        raise UsageError(f"--serial {text!r}: give a certificate's serial number in hexadecimal, up to 40 digits")
    return serial


def _present_serial(config: ClusterConfig, authority: Authority, agent_id: str) -> int:
    path = config.pki_dir / agent_id / "tls.crt"
    leaf = load_certificates(path)[0]
    try:
        leaf.verify_directly_issued_by(authority.certificate)
    except (ValueError, TypeError, InvalidSignature):
        raise UsageError(f"{path} is of another authority, so nobody accepts it; there is nothing to revoke") from None
    return leaf.serial_number


def _holds(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


@contextmanager
def _alone(directory: Path) -> Iterator[None]:
    """Nobody else extends the list meanwhile: of two that read the same one, the later would lose the other's entry."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
