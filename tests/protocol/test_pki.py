"""Certificates are issued and recognised; key files that cannot be trusted are refused with one line each."""

from __future__ import annotations

import shutil
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from protocol.errors import PeerViolation, UsageError
from protocol.identity import load_identity
from protocol.pki import CLIENT, SERVER, Authority, Subject, admit, issue_cluster, read_public_keys, spiffe_of
from protocol.roster import Role, Roster
from tests.oracles.clusters import CLUSTER, CLUSTER_ID, Cluster, make_cluster


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("pki"))


@pytest.fixture
def cluster(issued: Cluster, tmp_path: Path) -> Cluster:
    """A copy that a test may spoil."""
    shutil.copytree(issued.directory, tmp_path / "pki")
    return replace(issued, directory=tmp_path / "pki")


def test_issued_identity_signs_for_the_roster(cluster: Cluster) -> None:
    identity = cluster.identity("risk-1")
    assert identity.agent == cluster.agent("risk-1")
    assert spiffe_of(identity.certificate) == f"spiffe://{CLUSTER}/risk/risk-1"
    assert identity.signing_key.public_key().public_bytes_raw() == cluster.agent("risk-1").public_key
    assert admit(cluster.roster, identity.certificate, SERVER).id == "risk-1"
    assert admit(cluster.roster, identity.certificate, CLIENT, cluster.agent("risk-1")).id == "risk-1"


def test_keys_are_private_from_the_first_moment(cluster: Cluster) -> None:
    keys = list(cluster.directory.rglob("*.key"))
    assert len(keys) == 2 * len(cluster.roster.agents)
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert not list(cluster.directory.rglob("ca.key"))


def test_authority_key_is_written_only_when_asked_for(tmp_path: Path) -> None:
    subjects = [Subject("risk-1", Role.RISK, "risk-1.internal")]
    issue_cluster(tmp_path / "pki", CLUSTER, subjects, ca_key_out=tmp_path / "ca.key")
    again = Authority.load(CLUSTER, tmp_path / "pki" / "ca.crt", tmp_path / "ca.key")
    assert stat.S_IMODE((tmp_path / "ca.key").stat().st_mode) == 0o600
    leaf = again.issue(subjects[0], ec.generate_private_key(ec.SECP256R1()).public_key())
    leaf.verify_directly_issued_by(again.certificate)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["risk-1", "risk-1.internal"]


def test_issuing_again_renews_certificates_and_keeps_signing_keys(cluster: Cluster) -> None:
    subjects = [Subject(agent.id, agent.role, agent.host) for agent in cluster.roster.agents]
    before = cluster.identity("trader-1")
    keys = issue_cluster(cluster.directory, CLUSTER, subjects)
    after = cluster.identity("trader-1")
    assert keys == read_public_keys(cluster.directory, list(keys))
    assert keys["trader-1"] == before.agent.public_key
    assert after.certificate.serial_number != before.certificate.serial_number


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "agent.key", "ca.crt"])
def test_missing_file(cluster: Cluster, name: str) -> None:
    path = cluster.directory / "risk-1" / name
    path.unlink()
    with pytest.raises(UsageError, match=f"{path} is missing: write it with"):
        cluster.identity("risk-1")


@pytest.mark.parametrize("name", ["tls.crt", "tls.key", "agent.key", "ca.crt"])
def test_file_without_pem(cluster: Cluster, name: str) -> None:
    path = cluster.directory / "risk-1" / name
    path.write_bytes(b"not a key\n")
    with pytest.raises(UsageError, match=f"{path} holds no"):
        cluster.identity("risk-1")


def test_unreadable_file(cluster: Cluster) -> None:
    path = cluster.directory / "risk-1" / "tls.crt"
    path.unlink()
    path.mkdir()  # a mode would not stop root
    with pytest.raises(UsageError, match=f"{path} cannot be read"):
        cluster.identity("risk-1")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
@pytest.mark.parametrize("name", ["tls.key", "agent.key"])
def test_key_that_others_can_open(cluster: Cluster, name: str, mode: int) -> None:
    path = cluster.directory / "risk-1" / name
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"mode {mode:04o}.*chmod 600 {path}"):
        cluster.identity("risk-1")


@pytest.mark.parametrize(("hours", "says"), [(-25, "is valid from"), (25, "expired at")])
def test_certificate_out_of_date(cluster: Cluster, hours: float, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        load_identity(
            cluster.directory / "risk-1", cluster.roster, "risk-1", now=datetime.now(UTC) + timedelta(hours=hours)
        )


def test_key_of_another_certificate(cluster: Cluster) -> None:
    shutil.copy2(cluster.directory / "risk-2" / "tls.key", cluster.directory / "risk-1" / "tls.key")
    with pytest.raises(UsageError, match=r"tls.key is not the key of"):
        cluster.identity("risk-1")


def test_folder_of_another_agent(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="names spiffe://testing/risk/risk-2, not spiffe://testing/risk/risk-1"):
        load_identity(cluster.directory / "risk-2", cluster.roster, "risk-1")


def test_signing_key_that_the_roster_does_not_know(cluster: Cluster) -> None:
    shutil.copy2(cluster.directory / "risk-2" / "agent.key", cluster.directory / "risk-1" / "agent.key")
    with pytest.raises(UsageError, match="is not the key that the roster has for 'risk-1'"):
        cluster.identity("risk-1")


def test_signing_key_of_the_wrong_kind(cluster: Cluster) -> None:
    shutil.copy2(cluster.directory / "risk-1" / "tls.key", cluster.directory / "risk-1" / "agent.key")
    with pytest.raises(UsageError, match="holds no Ed25519 key"):
        cluster.identity("risk-1")


def test_certificate_of_another_authority(cluster: Cluster) -> None:
    stranger = Authority.create(CLUSTER).certificate.public_bytes(serialization.Encoding.PEM)
    (cluster.directory / "risk-1" / "ca.crt").write_bytes(stranger)
    with pytest.raises(UsageError, match="was not issued by"):
        cluster.identity("risk-1")


def test_agent_that_is_not_on_the_roster(cluster: Cluster) -> None:
    with pytest.raises(UsageError, match="agent 'risk-9' is not in cluster 'testing'"):
        load_identity(cluster.directory / "risk-1", cluster.roster, "risk-9")


def test_every_usage_error_is_one_line(cluster: Cluster) -> None:
    (cluster.directory / "risk-1" / "tls.key").chmod(0o644)
    with pytest.raises(UsageError) as caught:
        cluster.identity("risk-1")
    assert "\n" not in str(caught.value)


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("a file is in the way")
    with pytest.raises(UsageError, match="cannot be written"):
        issue_cluster(tmp_path / "pki", CLUSTER, [Subject("risk-1", Role.RISK, "127.0.0.1")])


def _leaf(cluster: Cluster, subject: Subject) -> x509.Certificate:
    return cluster.authority.issue(subject, ec.generate_private_key(ec.SECP256R1()).public_key())


@pytest.mark.parametrize("subject", [Subject("risk-9", Role.RISK, ""), Subject("risk-1", Role.TRADER, "")])
def test_admission_refuses_who_is_not_on_the_roster(cluster: Cluster, subject: Subject) -> None:
    with pytest.raises(PeerViolation) as caught:
        admit(cluster.roster, _leaf(cluster, subject), CLIENT)
    assert caught.value.reason == "agent_unknown"


def test_admission_refuses_another_than_the_expected(cluster: Cluster) -> None:
    with pytest.raises(PeerViolation) as caught:
        admit(cluster.roster, cluster.identity("risk-2").certificate, SERVER, cluster.agent("risk-1"))
    assert caught.value.reason == "certificate_mismatch"


def test_admission_refuses_a_certificate_without_purpose_or_name(cluster: Cluster) -> None:
    with pytest.raises(PeerViolation) as caught:
        admit(cluster.roster, cluster.authority.certificate, CLIENT)
    assert caught.value.reason == "certificate_purpose"


def test_admission_keeps_to_a_pinned_certificate(cluster: Cluster) -> None:
    pinned = cluster.identity("risk-1").certificate.fingerprint(hashes.SHA256())
    agents = [replace(agent, fingerprint=pinned) if agent.id == "risk-1" else agent for agent in cluster.roster.agents]
    roster = Roster(CLUSTER, CLUSTER_ID, tuple(agents))
    assert admit(roster, cluster.identity("risk-1").certificate, CLIENT).id == "risk-1"
    with pytest.raises(PeerViolation) as caught:
        admit(roster, _leaf(cluster, Subject("risk-1", Role.RISK, "")), CLIENT)
    assert caught.value.reason == "certificate_pinned"
