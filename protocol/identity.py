"""One agent's keys, how they are loaded, and the check of everybody else's signatures.

The Ed25519 key that signs the first message of a connection is the key that signs votes and commands: transport
identity and consensus identity are one line of the roster.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509 import Certificate

from protocol.errors import UsageError
from protocol.key_files import read_signing_key, read_text, read_tls_key
from protocol.pki import load_certificates, spiffe_of, spiffe_uri
from protocol.revocation import LIST_NAME, NOTHING_REVOKED, Revocations, read_revocations
from protocol.roster import Agent, Roster
from protocol.signing import digest

SIGNATURE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Identity:
    """What an agent holds of its own. ``authorities`` is the cluster's CA, PEM, against which peers are checked."""

    agent: Agent
    certificate: Certificate
    certificate_chain: tuple[Certificate, ...]
    """Intermediate certificates, leaf excluded; empty when the CA signed the leaf itself."""
    tls_key: EllipticCurvePrivateKey
    signing_key: Ed25519PrivateKey
    authorities: bytes
    revocations: Revocations = NOTHING_REVOKED
    """Which of the certificates that the authorities signed are not valid any more."""

    @property
    def revoked(self) -> bool:
        """Whether the certificate here is one that nobody will accept."""
        return self.revocations.revokes(self.certificate)

    def sign(self, data: bytes) -> bytes:
        """Ed25519 signature, 64 bytes. ``data`` comes from ``protocol.signing``, so that its domain is separated."""
        return self.signing_key.sign(data)


def load_identity(
    folder: Path,
    roster: Roster,
    agent_id: str,
    *,
    now: datetime | None = None,
    known: Revocations = NOTHING_REVOKED,
) -> Identity:
    """Read an agent's folder (``protocol.pki`` names the files) and check that everything in it belongs together.

    ``known`` is the revocation list that was in force before. Raises ``UsageError``, one line with what, where and the
    mend: a file missing, unreadable or not what its name says, a key that others can read, a certificate that is out of
    date, of another agent, of another authority or without its key, a signing key that is not the roster's, a
    revocation list that ``protocol.revocation`` refuses.
    """
    agent = roster.by_id(agent_id)
    if agent is None:
        raise UsageError(f"agent '{agent_id}' is not in cluster '{roster.cluster_name}': check the id")
    certificates = load_certificates(folder / "tls.crt")
    _check_certificate(folder, roster, agent, certificates, now or datetime.now(UTC))
    tls_key = read_tls_key(folder / "tls.key")
    if tls_key.public_key() != certificates[0].public_key():
        raise UsageError(f"{folder}/tls.key is not the key of {folder}/tls.crt: run 'swarm init --renew' again")
    signing_key = read_signing_key(folder / "agent.key")
    if signing_key.public_key().public_bytes_raw() != agent.public_key:
        raise UsageError(f"{folder}/agent.key is not the key that the roster has for '{agent_id}': use the issued one")
    authorities = read_text(folder / "ca.crt")
    revocations = read_revocations(folder / LIST_NAME, load_certificates(folder / "ca.crt"), known)
    return Identity(agent, certificates[0], tuple(certificates[1:]), tls_key, signing_key, authorities, revocations)


def usable_identity(folder: Path, roster: Roster, agent_id: str) -> Identity:
    """``load_identity`` for a start. Raises ``UsageError`` too when the certificate is revoked: all would refuse it."""
    identity = load_identity(folder, roster, agent_id)
    if identity.revoked:
        raise UsageError(
            f"{folder}/tls.crt is revoked (serial {identity.certificate.serial_number:x}): "
            "issue a new one with 'swarm init --renew'"
        )
    return identity


def _check_certificate(
    folder: Path, roster: Roster, agent: Agent, certificates: list[Certificate], now: datetime
) -> None:
    path = folder / "tls.crt"
    leaf = certificates[0]
    expected = spiffe_uri(roster.cluster_name, agent.role, agent.id)
    if spiffe_of(leaf) != expected:
        raise UsageError(f"{path} names {spiffe_of(leaf)}, not {expected}: give the folder of agent '{agent.id}'")
    if now < leaf.not_valid_before_utc:
        raise UsageError(f"{path} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on: check the clock")
    if now > leaf.not_valid_after_utc:
        raise UsageError(
            f"{path} expired at {leaf.not_valid_after_utc:%Y-%m-%d %H:%M} UTC: renew it with 'swarm init --renew'"
        )
    last = certificates[-1]
    for authority in load_certificates(folder / "ca.crt"):
        try:
            last.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return
    raise UsageError(f"{path} was not issued by {folder}/ca.crt: take both from one run of 'swarm init --renew'")


class Verifier:
    """Checks signatures of roster members, and remembers those that it has found good.

    One frame's signature is checked by admission, by the replica and by the gate; the second and third time cost a
    hash. Only good signatures are kept, so that an attacker cannot fill the cache with rubbish.
    """

    def __init__(self, roster: Roster, cache_size: int = 8192) -> None:
        self._keys = [Ed25519PublicKey.from_public_bytes(agent.public_key) for agent in roster.agents]
        assert cache_size >= 64, "worker threads verify at once; a tiny cache could be emptied between two of them"
        self._cache_size = cache_size
        self._good: OrderedDict[bytes, None] = OrderedDict()
        self.cache_hits = 0

    def verify(self, index: int, data: bytes, signature: bytes) -> bool:
        """Whether the agent at roster position ``index`` signed ``data``. Never raises on a peer's bytes."""
        if not 0 <= index < len(self._keys) or len(signature) != SIGNATURE_BYTES:
            return False
        key = digest(index.to_bytes(2, "little"), data, signature)
        if key in self._good:
            self.cache_hits += 1
            return True
        try:
            self._keys[index].verify(signature, data)
        except InvalidSignature:
            return False
        self._remember(key)
        return True

    def _remember(self, key: bytes) -> None:
        self._good[key] = None
        if len(self._good) > self._cache_size:
            self._good.popitem(last=False)
