"""A certificate that comes with the greeting proves as much as one in the handshake, or is refused with its reason."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from protocol.credential import show_certificate, shown_certificate
from protocol.errors import PeerViolation
from protocol.fields import CHAIN_BYTES_MAX
from protocol.identity import Identity
from protocol.messages import Hello
from protocol.pki import Authority, Subject
from protocol.roster import Role
from tests.oracles.clusters import CLUSTER, Cluster, make_cluster

EXPORTER = bytes(range(32))
RISK_1 = Subject("risk-1", Role.RISK, "")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("credential"))


def greeting(identity: Identity, exporter: bytes = EXPORTER) -> Hello:
    return Hello(bytes(16), 1, 1, bytes(32), bytes(64), *show_certificate(identity, exporter))


def check(cluster: Cluster, hello: Hello, now: datetime | None = None) -> x509.Certificate:
    authorities = cluster.identity("risk-2").authorities
    return shown_certificate(hello, authorities, EXPORTER, now or datetime.now(UTC))


def reason(cluster: Cluster, hello: Hello, now: datetime | None = None) -> str:
    with pytest.raises(PeerViolation) as caught:
        check(cluster, hello, now)
    return caught.value.reason


def test_a_good_one_is_known(cluster: Cluster) -> None:
    identity = cluster.identity("risk-1")
    assert check(cluster, greeting(identity)) == identity.certificate


def test_each_refusal_has_its_reason(cluster: Cluster) -> None:
    identity, other = cluster.identity("risk-1"), cluster.identity("trader-1")
    good, now = greeting(identity), datetime.now(UTC)
    assert reason(cluster, msgspec.structs.replace(good, certificates=b"")) == "certificate_missing"
    assert reason(cluster, greeting(identity, bytes(32))) == "certificate_not_owned"
    assert reason(cluster, msgspec.structs.replace(good, possession=b"")) == "certificate_not_owned"
    assert reason(cluster, greeting(replace(identity, tls_key=other.tls_key))) == "certificate_not_owned"
    assert reason(cluster, good, now + timedelta(days=2)) == "certificate_expired"
    assert reason(cluster, good, now - timedelta(days=2)) == "certificate_expired"
    foreign = Authority.create(CLUSTER).issue(RISK_1, identity.tls_key.public_key())
    assert reason(cluster, greeting(replace(identity, certificate=foreign))) == "certificate_untrusted"


def test_a_leaf_issues_nothing(cluster: Cluster) -> None:
    """An agent signs a certificate for another name with its own key, and shows both."""
    liar, key = cluster.identity("trader-1"), ec.generate_private_key(ec.SECP256R1())
    forged = Authority(CLUSTER, liar.certificate, liar.tls_key).issue(RISK_1, key.public_key())
    shown = replace(liar, certificate=forged, certificate_chain=(liar.certificate,), tls_key=key)
    assert reason(cluster, greeting(shown)) == "certificate_untrusted"


def test_a_chain_that_is_too_long_is_not_sent(cluster: Cluster) -> None:
    identity = cluster.identity("risk-1")
    hello = greeting(replace(identity, certificate_chain=(identity.certificate,) * 9))
    assert hello.certificates == hello.possession == b""
    assert len(greeting(identity).certificates) < CHAIN_BYTES_MAX / 3


@pytest.mark.filterwarnings("ignore:.*which is disallowed by:Warning")
def test_changed_bytes_are_refused_and_never_raise_anything_else(cluster: Cluster) -> None:
    """But for one byte behind everything that is signed, the count of unused bits, which says nothing."""
    certificate = cluster.identity("risk-1").certificate
    good, leaf = greeting(cluster.identity("risk-1")), certificate.public_bytes(Encoding.DER)
    signed_until = leaf.index(certificate.tbs_certificate_bytes) + len(certificate.tbs_certificate_bytes)
    for position in range(len(leaf)):
        for bit in (0x01, 0x20, 0x80):
            changed = bytearray(leaf)
            changed[position] ^= bit
            pem = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(bytes(changed)) + b"-----END CERTIFICATE-----\n"
            try:
                check(cluster, msgspec.structs.replace(good, certificates=pem))
                assert position >= signed_until
            except PeerViolation as violation:
                assert violation.reason in ("certificate_untrusted", "certificate_expired")
    for position in range(len(good.possession)):
        damaged = bytearray(good.possession)
        damaged[position] ^= 0x40
        hello = msgspec.structs.replace(good, possession=bytes(damaged))
        assert reason(cluster, hello) == "certificate_not_owned"
