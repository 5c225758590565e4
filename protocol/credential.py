"""A TLS certificate shown in the greeting, for a listener whose QUIC library cannot ask for it in the handshake.

The dialler sends its chain, and signs the session's exporter with the certificate's key: what a certificate in the TLS
handshake proves, one message later. A listener that has asked in the handshake does not look at it.
"""

from __future__ import annotations

from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from protocol.errors import PeerViolation
from protocol.fields import CHAIN_BYTES_MAX
from protocol.identity import Identity
from protocol.messages import Hello
from protocol.pki import UNREADABLE
from protocol.signing import possession_bytes

ALGORITHM = ec.ECDSA(SHA256())


def show_certificate(identity: Identity, exporter: bytes) -> tuple[bytes, bytes]:
    """The chain, PEM, leaf first, and the proof that its key is here. Both empty when the chain is too long to be sent:
    a listener that needs it will say so."""
    chain = b"".join(each.public_bytes(Encoding.PEM) for each in (identity.certificate, *identity.certificate_chain))
    if len(chain) > CHAIN_BYTES_MAX:
        return b"", b""
    return chain, identity.tls_key.sign(possession_bytes(exporter), ALGORITHM)


def shown_certificate(hello: Hello, authorities: bytes, exporter: bytes, now: datetime) -> x509.Certificate:
    """The certificate of whoever greets, with its chain and its key checked; whom it names is not looked at here.

    Raises ``PeerViolation`` with the reasons of the TLS handshake: ``certificate_missing``, ``certificate_untrusted``,
    ``certificate_expired``, ``certificate_not_owned``.
    """
    if not hello.certificates:
        raise PeerViolation("certificate_missing", "a greeting without a certificate")
    try:
        leaf, *chain = x509.load_pem_x509_certificates(hello.certificates)
        if not leaf.not_valid_before_utc <= now <= leaf.not_valid_after_utc:
            raise PeerViolation("certificate_expired", f"serial {leaf.serial_number:x}")
        store = Store(x509.load_pem_x509_certificates(authorities))
        at = now.astimezone(UTC).replace(tzinfo=None)  # the verifier takes UTC without saying so
        PolicyBuilder().store(store).time(at).build_client_verifier().verify(leaf, chain)
        key = leaf.public_key()
    except (*UNREADABLE, VerificationError) as error:
        raise PeerViolation("certificate_untrusted", str(error)[:200]) from None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PeerViolation("certificate_untrusted", "not an elliptic-curve key")
    try:
        key.verify(hello.possession, possession_bytes(exporter), ALGORITHM)
    except InvalidSignature:
        raise PeerViolation("certificate_not_owned", f"serial {leaf.serial_number:x}") from None
    return leaf
