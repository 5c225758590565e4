"""Certificates and key files: issue them for a cluster, load them with every check, recognise a peer's.

One certificate authority per cluster (P-256). Each agent gets a short-lived TLS certificate that names cluster, role
and id in a URI (``spiffe://<cluster>/<role>/<id>``), and an Ed25519 signing key. Layout of a directory::

    ca.crt    <id>/ca.crt    <id>/tls.crt    <id>/tls.key    <id>/agent.key    <id>/agent.pub

and, once a certificate was revoked, ``ca.crl`` beside each ``ca.crt`` (``protocol.revocation``).
Each ``<id>`` folder is complete, so that it can be handed to its agent alone. The authority's own key stays in memory
unless it is asked for.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from protocol.errors import PeerViolation, UsageError
from protocol.key_files import read_signing_key, read_text, read_tls_key, write_file
from protocol.roster import Agent, Role, Roster

CLOCK_SKEW: Final = timedelta(minutes=5)
UNREADABLE: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
"""What the library raises, now or when a part is asked for, over bytes that are no good certificate or list."""
CLIENT: Final = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER: Final = ExtendedKeyUsageOID.SERVER_AUTH


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a certificate is for. ``host`` is a DNS name or an IP address, as in the roster."""

    id: str
    role: Role
    host: str


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority with its key in memory."""

    cluster_name: str
    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, cluster_name: str, *, valid_hours: float = 24 * 365, now: datetime | None = None) -> Authority:
        """A new self-signed authority. ``now`` defaults to the wall clock, UTC."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{cluster_name} authority")])
        builder = _builder(name, name, key.public_key(), now or datetime.now(UTC), valid_hours)
        usage = _key_usage(signs_certificates=True)
        certificate = (
            builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(cluster_name, certificate, key)

    @classmethod
    def load(cls, cluster_name: str, certificate_path: Path, key_path: Path) -> Authority:
        """An authority whose key was written out earlier. Raises ``UsageError``."""
        certificate = load_certificates(certificate_path)[0]
        key = read_tls_key(key_path)
        if certificate.public_key() != key.public_key():
            raise UsageError(f"{key_path} is not the key of {certificate_path}: give the pair that was issued together")
        return cls(cluster_name, certificate, key)

    def issue(
        self,
        subject: Subject,
        public_key: ec.EllipticCurvePublicKey,
        *,
        valid_hours: float = 24,
        now: datetime | None = None,
    ) -> x509.Certificate:
        """A leaf certificate that serves both ends of a connection. Valid from five minutes before ``now``."""
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject.id)])
        issuer = self.certificate.subject
        builder = _builder(issuer, name, public_key, now or datetime.now(UTC), valid_hours)
        authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key())
        return (
            builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([CLIENT, SERVER]), critical=False)
            .add_extension(_alternative_names(self.cluster_name, subject), critical=False)
            .add_extension(authority_key, critical=False)
            .sign(self.key, hashes.SHA256())
        )


def issue_cluster(
    directory: Path,
    cluster_name: str,
    subjects: Sequence[Subject],
    *,
    valid_hours: float = 24,
    authority: Authority | None = None,
    ca_key_out: Path | None = None,
    now: datetime | None = None,
) -> dict[str, bytes]:
    """Write certificates and keys of all agents; return their raw Ed25519 public keys by id.

    TLS keys and certificates are new each time; a signing key that is already there is kept, because the roster names
    it. Keys get mode 0600. Raises ``UsageError`` when the directory cannot be written.
    """
    issuer = authority or Authority.create(cluster_name, now=now)
    ca_pem = issuer.certificate.public_bytes(serialization.Encoding.PEM)
    if ca_key_out is not None:
        write_file(ca_key_out, private_pem(issuer.key), secret=True)
    write_file(directory / "ca.crt", ca_pem)
    public_keys: dict[str, bytes] = {}
    for subject in subjects:
        folder = directory / subject.id
        tls_key = ec.generate_private_key(ec.SECP256R1())
        certificate = issuer.issue(subject, tls_key.public_key(), valid_hours=valid_hours, now=now)
        write_file(folder / "ca.crt", ca_pem)
        write_file(folder / "tls.key", private_pem(tls_key), secret=True)
        write_file(folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM))
        public_keys[subject.id] = _signing_key(folder)
    return public_keys


def read_public_keys(directory: Path, agent_ids: Sequence[str]) -> dict[str, bytes]:
    """Raw Ed25519 public keys by id, as ``issue_cluster`` wrote them. Raises ``UsageError``."""
    keys: dict[str, bytes] = {}
    for agent_id in agent_ids:
        path = directory / agent_id / "agent.pub"
        try:
            keys[agent_id] = bytes.fromhex(read_text(path).decode("ascii").strip())
        except ValueError:
            raise UsageError(f"{path} is not a public key in hexadecimal: issue the cluster's keys again") from None
    return keys


def private_pem(key: ec.EllipticCurvePrivateKey | Ed25519PrivateKey) -> bytes:
    """PKCS #8, PEM, not encrypted."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def load_certificates(path: Path) -> list[x509.Certificate]:
    """All certificates of a PEM file, leaf first. Raises ``UsageError``."""
    try:
        return x509.load_pem_x509_certificates(read_text(path))
    except UNREADABLE:
        raise UsageError(f"{path} holds no PEM certificate: issue it again with 'swarm init --renew'") from None


def spiffe_uri(cluster_name: str, role: Role, agent_id: str) -> str:
    return f"spiffe://{cluster_name}/{role}/{agent_id}"


def spiffe_of(certificate: x509.Certificate) -> str | None:
    """The one SPIFFE URI of a certificate, or ``None`` when there is none, more than one, or no readable extension."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return None
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    return uris[0] if len(uris) == 1 else None


def admit(
    roster: Roster, certificate: x509.Certificate, purpose: x509.ObjectIdentifier, expected: Agent | None = None
) -> Agent:
    """The roster member whom a certificate names, its chain being checked already.

    Raises ``PeerViolation``: ``certificate_purpose`` (not issued for ``purpose``), ``agent_unknown`` (names nobody on
    the roster), ``certificate_mismatch`` (names somebody else than ``expected``), ``certificate_pinned`` (not the one
    that the roster pins).
    """
    _check_purpose(certificate, purpose)
    uri = spiffe_of(certificate)
    by_uri = {spiffe_uri(roster.cluster_name, agent.role, agent.id): agent for agent in roster.agents}
    agent = by_uri.get(uri) if uri is not None else None
    if agent is None:
        raise PeerViolation("agent_unknown", f"certificate names {uri}")
    if expected is not None and agent.id != expected.id:
        raise PeerViolation("certificate_mismatch", f"certificate names {agent.id}, expected {expected.id}")
    if agent.fingerprint is not None and certificate.fingerprint(hashes.SHA256()) != agent.fingerprint:
        raise PeerViolation("certificate_pinned", f"certificate of {agent.id} is not the pinned one")
    return agent


def _check_purpose(certificate: x509.Certificate, purpose: x509.ObjectIdentifier) -> None:
    try:
        allowed = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except UNREADABLE:
        raise PeerViolation("certificate_purpose", "no readable extended key usage") from None
    if purpose not in allowed:
        raise PeerViolation("certificate_purpose", f"not issued for {purpose.dotted_string}")


def _signing_key(folder: Path) -> bytes:
    path = folder / "agent.key"
    if path.exists():
        key = read_signing_key(path)
    else:
        key = Ed25519PrivateKey.generate()
        write_file(path, private_pem(key), secret=True)
    public_key = key.public_key().public_bytes_raw()
    write_file(folder / "agent.pub", public_key.hex().encode() + b"\n")
    return public_key


def _builder(
    issuer: x509.Name, subject: x509.Name, key: ec.EllipticCurvePublicKey, now: datetime, valid_hours: float
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .issuer_name(issuer)
        .subject_name(subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(hours=valid_hours))
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(cluster_name: str, subject: Subject) -> x509.SubjectAlternativeName:
    names: list[x509.GeneralName] = [
        x509.UniformResourceIdentifier(spiffe_uri(cluster_name, subject.role, subject.id)),
        x509.DNSName(subject.id),
    ]
    try:
        names.append(x509.IPAddress(ipaddress.ip_address(subject.host)))
    except ValueError:
        if subject.host not in ("", subject.id):
            names.append(x509.DNSName(subject.host))
    return x509.SubjectAlternativeName(names)
