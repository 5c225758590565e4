"""A revocation list is taken from the authority only, whole, and never backwards; what is refused changes nothing."""

from __future__ import annotations

import base64
import contextlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.errors import PeerViolation, UsageError
from protocol.identity import load_identity
from protocol.pki import Authority, Subject
from protocol.revocation import NOTHING_REVOKED, Revocations, read_revocations, sign_revocations
from protocol.roster import Role
from tests.oracles.clusters import make_cluster

NOW = datetime(2031, 5, 6, 7, 8, 9, tzinfo=UTC)
AUTHORITY = Authority.create("testing", now=NOW)
OTHER = Authority.create("testing", now=NOW)
TRUSTED = [OTHER.certificate, AUTHORITY.certificate]
LEAF = AUTHORITY.issue(Subject("risk-1", Role.RISK, ""), ec.generate_private_key(ec.SECP256R1()).public_key(), now=NOW)
LIST_3 = sign_revocations(AUTHORITY, {LEAF.serial_number: NOW, 5: NOW}, 3, now=NOW, valid_hours=2)


def read(tmp_path: Path, data: bytes, known: Revocations = NOTHING_REVOKED) -> Revocations:
    path = tmp_path / "ca.crl"
    path.write_bytes(data)
    return read_revocations(path, [AUTHORITY.certificate], known)


def refused(tmp_path: Path, data: bytes, says: str, known: Revocations = NOTHING_REVOKED) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read(tmp_path, data, known)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_what_was_signed_is_read(tmp_path: Path) -> None:
    found = read(tmp_path, LIST_3)
    assert (found.number, found.revoked) == (3, {LEAF.serial_number: NOW, 5: NOW})
    assert found.issuer == AUTHORITY.certificate
    assert found.as_dict() == {"number": 3, "revoked": 2, "valid_until": "2031-05-06T09:08:09+00:00"}
    with pytest.raises(PeerViolation, match=f"serial {LEAF.serial_number:x}, list 3") as caught:
        found.check(LEAF)
    assert caught.value.reason == "certificate_revoked"
    found.check(AUTHORITY.certificate)


def test_a_list_of_any_authority_of_the_file_will_do(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    path.write_bytes(LIST_3)
    assert read_revocations(path, TRUSTED).issuer == AUTHORITY.certificate


def test_no_file_is_no_list_at_first_and_the_last_one_later(tmp_path: Path) -> None:
    path = tmp_path / "ca.crl"
    assert read_revocations(path, TRUSTED) == NOTHING_REVOKED
    known = read(tmp_path, LIST_3)
    path.unlink()
    assert read_revocations(path, TRUSTED, known) == known
    assert read_revocations(path, [OTHER.certificate], known) == NOTHING_REVOKED, "its authority is gone too"


def test_an_expired_list_still_revokes_and_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, LIST_3)
    assert not found.expired(NOW + timedelta(hours=2))
    assert found.expired(NOW + timedelta(hours=2, seconds=1))
    assert found.revokes(LEAF)
    assert not NOTHING_REVOKED.expired(NOW)


def test_numbers_only_grow(tmp_path: Path) -> None:
    known = read(tmp_path, LIST_3)
    assert read(tmp_path, LIST_3, known) == known
    newer = read(tmp_path, sign_revocations(AUTHORITY, {5: NOW}, 4, now=NOW, valid_hours=2), known)
    assert newer.number == 4
    older = sign_revocations(AUTHORITY, {}, 2, now=NOW, valid_hours=99)
    refused(tmp_path, older, "has number 2, but 3 was in force", known)
    twin = sign_revocations(AUTHORITY, {}, 3, now=NOW, valid_hours=2)
    refused(tmp_path, twin, "another list than the one in force with number 3", known)
    assert read(tmp_path, older).number == 2, "a process that has seen nothing yet cannot know"
    elsewhere = Revocations(9, {}, NOW, OTHER.certificate)
    assert read(tmp_path, LIST_3, elsewhere).number == 3, "another authority counts for itself"


@pytest.mark.parametrize("data", [b"", b"rubbish", LIST_3[:150], LIST_3.replace(b"X509 CRL", b"CERTIFICATE")])
def test_rubbish_is_refused(tmp_path: Path, data: bytes) -> None:
    refused(tmp_path, data, "holds no numbered revocation list in PEM: copy the newest")


def test_no_changed_byte_changes_what_the_list_says(tmp_path: Path) -> None:
    """Everything that is signed is covered; one byte behind it, the count of unused bits, says nothing."""
    signed, good = x509.load_pem_x509_crl(LIST_3), read(tmp_path, LIST_3)
    data, taken = signed.public_bytes(Encoding.DER), []
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= 0x01
        pem = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(bytes(changed)) + b"-----END X509 CRL-----\n"
        with contextlib.suppress(UsageError):
            assert read(tmp_path, pem) == good
            taken.append(position)
    assert all(position >= data.index(signed.tbs_certlist_bytes) + len(signed.tbs_certlist_bytes) for position in taken)
    assert len(taken) <= 1


def test_a_stranger_signs_nothing(tmp_path: Path) -> None:
    refused(tmp_path, sign_revocations(OTHER, {}, 9, now=NOW, valid_hours=1), "was not signed by an authority")
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "somebody else authority")])
    refused(tmp_path, _signed(_builder().issuer_name(name)), "was not signed by an authority")


def test_another_kind_of_key_signs_nothing(tmp_path: Path) -> None:
    name = AUTHORITY.certificate.subject
    signed = _builder().issuer_name(name).sign(Ed25519PrivateKey.generate(), None)
    refused(tmp_path, signed.public_bytes(Encoding.PEM), "was not signed by an authority")


def test_a_part_of_a_list_is_refused(tmp_path: Path) -> None:
    base = _builder().issuer_name(AUTHORITY.certificate.subject)
    delta = base.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    refused(tmp_path, _signed(delta), "not the complete list of one authority")
    issuer = x509.CertificateIssuer([x509.DirectoryName(OTHER.certificate.subject)])
    entry = x509.RevokedCertificateBuilder().serial_number(1).revocation_date(NOW).add_extension(issuer, critical=True)
    refused(tmp_path, _signed(base.add_revoked_certificate(entry.build())), "not the complete list of one authority")


def test_a_list_without_a_number_is_refused(tmp_path: Path) -> None:
    bare = x509.CertificateRevocationListBuilder().last_update(NOW).next_update(NOW + timedelta(hours=1))
    refused(tmp_path, _signed(bare.issuer_name(AUTHORITY.certificate.subject)), "holds no numbered revocation list")


def _builder() -> x509.CertificateRevocationListBuilder:
    bare = x509.CertificateRevocationListBuilder().last_update(NOW).next_update(NOW + timedelta(hours=1))
    return bare.add_extension(x509.CRLNumber(7), critical=False)


def _signed(builder: x509.CertificateRevocationListBuilder) -> bytes:
    return builder.sign(AUTHORITY.key, hashes.SHA256()).public_bytes(Encoding.PEM)


def test_an_agents_folder_with_a_bad_list_does_not_hold_together(tmp_path: Path) -> None:
    cluster = make_cluster(tmp_path)
    path = tmp_path / "risk-1" / "ca.crl"
    path.write_bytes(sign_revocations(cluster.authority, {}, 4, now=datetime.now(UTC), valid_hours=1))
    identity = cluster.identity("risk-1")
    assert identity.revocations.number == 4
    path.write_bytes(LIST_3)
    with pytest.raises(UsageError, match=f"{path} was not signed by an authority"):
        load_identity(tmp_path / "risk-1", cluster.roster, "risk-1", known=identity.revocations)
