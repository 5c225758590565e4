"""Certificates that are not valid any more: the authority's signed list, and what is made of one that is wrong.

A list (X.509, RFC 5280, section 5) lies beside the authority's certificate as ``ca.crl``; a cluster that never revoked
anything has none. It can only take away: an agent needs no key to use it, and whoever forges one gains nothing.

What a list must be: PEM, signed by an authority of ``ca.crt``, complete, and numbered no lower than the one before. One
that is not is refused and the last good one stays in force; a process that has no last good one does not start. A list
that has expired goes on revoking what it names, and refuses nobody else: that nobody signed a newer one in time is no
reason to stop a swarm. A list that is gone is not a list that is empty, so the last good one stays then too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.errors import PeerViolation, UsageError
from protocol.key_files import read_text
from protocol.pki import CLOCK_SKEW, UNREADABLE, Authority

LIST_NAME: Final = "ca.crl"
MEND: Final = "copy the newest list that `swarm revoke` wrote"


@dataclass(frozen=True, slots=True)
class Revocations:
    """One list, checked. ``issuer`` is the authority that signed it; ``None`` where nothing was ever revoked."""

    number: int = 0
    revoked: Mapping[int, datetime] = field(default_factory=dict)
    """Serial number -> since when."""
    valid_until: datetime | None = None
    issuer: x509.Certificate | None = None

    def revokes(self, certificate: x509.Certificate) -> bool:
        return certificate.serial_number in self.revoked

    def check(self, certificate: x509.Certificate) -> None:
        """Raises ``PeerViolation``: ``certificate_revoked``."""
        if self.revokes(certificate):
            raise PeerViolation("certificate_revoked", f"serial {certificate.serial_number:x}, list {self.number}")

    def expired(self, now: datetime) -> bool:
        """Whether a newer list should have come by now."""
        return self.valid_until is not None and self.valid_until < now

    def as_dict(self) -> dict[str, Any]:
        """For JSON: number, how many are revoked, until when the list is good."""
        until = None if self.valid_until is None else self.valid_until.isoformat()
        return {"number": self.number, "revoked": len(self.revoked), "valid_until": until}


NOTHING_REVOKED: Final = Revocations()


def read_revocations(
    path: Path, authorities: Sequence[x509.Certificate], known: Revocations = NOTHING_REVOKED
) -> Revocations:
    """The list that is in force: that of the file, or ``known`` while there is no file. Raises ``UsageError``.

    ``known`` is the one before; under another authority it means nothing.
    """
    known = known if known.issuer in authorities else NOTHING_REVOKED
    if not path.exists():
        return known
    found = parse_revocations(path, read_text(path), authorities)
    if found.issuer == known.issuer and found.number < known.number:
        raise UsageError(f"{path} has number {found.number}, but {known.number} was in force already: {MEND}")
    if found.issuer == known.issuer and found.number == known.number and found != known:
        raise UsageError(f"{path} is another list than the one in force with number {found.number}: {MEND}")
    return found


def parse_revocations(path: Path, data: bytes, authorities: Sequence[x509.Certificate]) -> Revocations:
    """A list out of its bytes; ``path`` is for the text of a ``UsageError``."""
    try:
        signed = x509.load_pem_x509_crl(data)
        until = signed.next_update_utc
        number = signed.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number
        revoked = {entry.serial_number: entry.revocation_date_utc for entry in signed}
        extensions = [*signed.extensions, *(extension for entry in signed for extension in entry.extensions)]
        issuer = _issuer(path, signed, authorities)
    except UNREADABLE:
        raise UsageError(f"{path} holds no numbered revocation list in PEM: {MEND}") from None
    if any(extension.critical for extension in extensions):  # a delta, some certificates only, others' (RFC 5280, 5.2)
        raise UsageError(f"{path} is not the complete list of one authority: {MEND}")
    return Revocations(number, revoked, until, issuer)


def sign_revocations(
    authority: Authority, revoked: Mapping[int, datetime], number: int, *, now: datetime, valid_hours: float
) -> bytes:
    """A new list in PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(authority.certificate.subject)
        .last_update(now - CLOCK_SKEW)
        .next_update(now + timedelta(hours=valid_hours))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    for serial, since in sorted(revoked.items()):
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(since)
        builder = builder.add_revoked_certificate(entry.build())
    return builder.sign(authority.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def _issuer(
    path: Path, signed: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]
) -> x509.Certificate:
    for authority in authorities:
        key: Any = authority.public_key()
        if signed.issuer == authority.subject and signed.is_signature_valid(key):
            return authority
    raise UsageError(f"{path} was not signed by an authority of the ca.crt beside it: {MEND}, or remove the file")
