from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from agents.cluster_init import renew_certificates
from agents.config import load_config
from protocol.errors import UsageError
from protocol.identity import load_identity
from protocol.key_files import read_signing_key
from protocol.pki import load_certificates
from tests.oracles.agent_examples import SYMBOLS, make_cluster_file

AGENTS = ("risk-1", "risk-2", "executor-1", "trader-1", "venue", "operator")
FILES = ["agent.key", "agent.pub", "ca.crt", "tls.crt", "tls.key"]


def snapshot(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file()}


def test_everything_is_there_and_secrets_are_secret(tmp_path: Path) -> None:
    path = make_cluster_file(tmp_path / "new")
    config = load_config(path)
    for agent_id in AGENTS:
        folder = config.pki_dir / agent_id
        assert sorted(entry.name for entry in folder.iterdir()) == FILES
        for name in ("agent.key", "tls.key"):
            assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        load_identity(folder, config.roster, agent_id)
    assert config.file.risk.instruments == SYMBOLS
    assert config.file.data.source == "synthetic"
    assert config.file.wire.profile == "loopback"
    assert not list(tmp_path.rglob("ca.key")), "the authority's key stays in memory"


def test_names_as_hosts_are_for_containers(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path, hosts="names"))
    assert [agent.host for agent in config.roster.agents[:5]] == list(AGENTS[:5])
    assert config.file.wire.profile == "lan"


def test_two_clusters_have_different_ids_and_keys(tmp_path: Path) -> None:
    first, second = (load_config(make_cluster_file(tmp_path / name)) for name in ("a", "b"))
    assert first.roster.cluster_id != second.roster.cluster_id
    assert not {agent.public_key for agent in first.roster.agents} & {
        agent.public_key for agent in second.roster.agents
    }


def test_a_cluster_is_not_overwritten_but_by_force(tmp_path: Path) -> None:
    path = make_cluster_file(tmp_path)
    before = snapshot(tmp_path)
    with pytest.raises(UsageError, match="exists already; use it, choose another --dir, or overwrite it with --force"):
        make_cluster_file(tmp_path)
    assert snapshot(tmp_path) == before
    old = load_config(path)
    make_cluster_file(tmp_path, force=True)
    new = load_config(path)
    assert new.roster.cluster_id != old.roster.cluster_id
    assert [agent.public_key for agent in new.roster.agents] == [agent.public_key for agent in old.roster.agents]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"base_port": 80}, "--base-port 80"),
        ({"base_port": 65001}, "--base-port 65001"),
        ({"base_port": -1}, "--base-port -1"),
        ({"data": "moon"}, "--data moon: unknown; choose one of us-large-caps, synthetic"),
        ({"name": "My Cluster"}, "--name 'My Cluster'"),
        ({"name": ""}, "--name ''"),
        ({"hosts": "a b"}, "--hosts 'a b'"),
        ({"hosts": 'x"\n'}, "--hosts"),
        ({"hosts": ""}, "--hosts ''"),
        ({"valid_hours": 0.0}, "--hours 0"),
        ({"valid_hours": -2.0}, "--hours -2"),
        ({"valid_hours": float("nan")}, "--hours nan"),
        ({"valid_hours": 1e9}, "--hours 1e"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        make_cluster_file(tmp_path / "new", **changes)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "new").exists()


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="cannot be written"):
        make_cluster_file(tmp_path / "file" / "new")


def test_renewal_keeps_the_signing_keys(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path, valid_hours=1.0))
    old = snapshot(config.pki_dir)
    renew_certificates(config, 48.0)
    new = snapshot(config.pki_dir)
    changed = {Path(name).name for name in old if old[name] != new[name]}
    assert changed == {"ca.crt", "tls.crt", "tls.key"}
    for agent_id in AGENTS:
        load_identity(config.pki_dir / agent_id, config.roster, agent_id)
        (leaf,) = load_certificates(config.pki_dir / agent_id / "tls.crt")
        assert (leaf.not_valid_after_utc - datetime.now(UTC)).total_seconds() > 47 * 3600


def test_renewal_without_the_rosters_keys_changes_nothing(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path / "a"))
    stranger = load_config(make_cluster_file(tmp_path / "b"))
    key = config.pki_dir / "venue" / "agent.key"
    key.write_bytes((stranger.pki_dir / "venue" / "agent.key").read_bytes())
    before = snapshot(config.pki_dir)
    with pytest.raises(UsageError, match=r"public key of 'venue' is not that of .*agent.key; restore the key"):
        renew_certificates(config, 48.0)
    key.unlink()
    with pytest.raises(UsageError, match=r"agent.key is missing"):
        renew_certificates(config, 48.0)
    with pytest.raises(UsageError, match="--hours 0"):
        renew_certificates(config, 0)
    assert {**snapshot(config.pki_dir), str(key): before[str(key)]} == before


def test_a_signing_key_is_never_replaced(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path))
    path = config.pki_dir / "trader-1" / "agent.key"
    before = read_signing_key(path).private_bytes_raw()
    make_cluster_file(tmp_path, force=True)
    assert read_signing_key(path).private_bytes_raw() == before
