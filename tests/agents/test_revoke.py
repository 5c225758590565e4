"""``swarm revoke``: one list for all folders, extended one at a time, and never a half-written or a wrong one."""

from __future__ import annotations

import asyncio
import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import structlog

from agents import certificates
from agents.certificates import Certificates
from agents.cli import main
from agents.cluster_init import renew_certificates
from agents.config import ClusterConfig, load_config
from agents.revoke import Revoked, revoke, serial_number
from agents.setup import RunOptions, Setup, prepare
from protocol.errors import UsageError
from protocol.identity import usable_identity
from protocol.pki import Authority, load_certificates
from protocol.revocation import Revocations, read_revocations, sign_revocations
from protocol.roster import Role
from tests.oracles.agent_examples import make_cluster_file
from tests.oracles.strangers import Recorder, until
from tests.oracles.swarm_process import free_base_port

NOW = datetime.now(UTC)


@pytest.fixture
def ca_key(tmp_path: Path) -> Path:
    return tmp_path / "safe" / "ca.key"


@pytest.fixture
def config(tmp_path: Path, ca_key: Path) -> ClusterConfig:
    return load_config(make_cluster_file(tmp_path / "cluster", ca_key=ca_key))


def revoked(config: ClusterConfig, ca_key: Path, agent: str = "", serial: int | None = None) -> Revoked:
    return revoke(config, ca_key, agent, serial, now=NOW, valid_hours=24)


def serial_of(config: ClusterConfig, agent: str) -> int:
    return load_certificates(config.pki_dir / agent / "tls.crt")[0].serial_number


def lists(config: ClusterConfig) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in config.pki_dir.rglob("ca.crl")}


def in_force(config: ClusterConfig) -> Revocations:
    return read_revocations(config.pki_dir / "risk-2" / "ca.crl", load_certificates(config.pki_dir / "ca.crt"))


def test_the_list_is_in_every_folder_and_grows(config: ClusterConfig, ca_key: Path) -> None:
    first, second = serial_of(config, "risk-1"), serial_of(config, "operator")
    assert revoked(config, ca_key, "risk-1").revocations.number == 1
    done = revoked(config, ca_key, "operator")
    assert (done.serial, done.changed, done.revocations.number) == (second, True, 2)
    found = lists(config)
    assert set(found) == {"pki", "risk-1", "risk-2", "executor-1", "trader-1", "venue", "operator"}
    assert len(set(found.values())) == 1
    assert set(in_force(config).revoked) == {first, second}
    assert in_force(config).revoked[first] == NOW.replace(microsecond=0)


def test_again_changes_nothing_but_puts_missing_copies_back(config: ClusterConfig, ca_key: Path) -> None:
    revoked(config, ca_key, "risk-1")
    before = lists(config)
    assert not revoked(config, ca_key, "risk-1").changed
    (config.pki_dir / "venue" / "ca.crl").unlink()
    assert revoked(config, ca_key, "risk-1").changed
    assert lists(config) == before


def test_an_expired_list_is_signed_anew_by_whatever_comes(config: ClusterConfig, ca_key: Path) -> None:
    revoke(config, ca_key, "risk-1", None, now=NOW - timedelta(days=9), valid_hours=1)
    assert revoked(config, ca_key, "risk-1").revocations.number == 2
    assert revoked(config, ca_key).revocations.number == 3
    assert in_force(config).revoked.keys() == {serial_of(config, "risk-1")}
    assert not in_force(config).expired(NOW)


def test_a_renewed_certificate_is_another_one(config: ClusterConfig, ca_key: Path) -> None:
    revoked(config, ca_key, "risk-1")
    with pytest.raises(UsageError, match=r"risk-1/tls.crt is revoked \(serial .*issue a new one"):
        usable_identity(config.pki_dir / "risk-1", config.roster, "risk-1")
    renew_certificates(config, 24, ca_key)
    identity = usable_identity(config.pki_dir / "risk-1", config.roster, "risk-1")
    assert identity.revocations.number == 1 and len(identity.revocations.revoked) == 1, "the same authority goes on"


def test_a_new_authority_starts_an_empty_list(config: ClusterConfig, ca_key: Path, tmp_path: Path) -> None:
    revoked(config, ca_key, "risk-1")
    renew_certificates(config, 24)
    assert in_force(config).number == 1 and not in_force(config).revoked
    with pytest.raises(UsageError, match=r"ca.key is not the key of .*ca.crt"):
        revoked(config, ca_key, "risk-1")
    renew_certificates(config, 24, tmp_path / "new.key")
    assert revoked(config, tmp_path / "new.key", "risk-1").revocations.number == 2
    make_cluster_file(tmp_path / "cluster", force=True)
    assert not in_force(config).revoked


def test_two_at_once_lose_nothing(config: ClusterConfig, ca_key: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda serial: revoked(config, ca_key, serial=serial), range(1, 13)))
    assert in_force(config).revoked.keys() == set(range(1, 13)) and in_force(config).number == 12


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_by_hand(config: ClusterConfig, ca_key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--ca-key", str(ca_key), "--config", str(config.path)]
    assert exit_code(["revoke", "risk-1", *common, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {
        "agent": "risk-1",
        "serial": f"{serial_of(config, 'risk-1'):x}",
        "changed": True,
        **in_force(config).as_dict(),
    }
    assert exit_code(["revoke", "--serial", "0A:ff", *common]) == 0
    assert "certificate aff is revoked; list 2 names 2 certificates" in capsys.readouterr().out
    assert exit_code(["revoke", "risk-1", *common]) == 0
    assert "revoked already; list 2" in capsys.readouterr().out
    assert exit_code(["revoke", *common]) == 0
    assert "signed anew; list 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("revoke risk-9 --ca-key {key}", "'risk-9' is not in the roster"),
        ("revoke risk-1 --ca-key {here}/none.key", "none.key does not exist; name the file that"),
        ("revoke risk-1 --ca-key {config}", "holds no plain PEM private key"),
        ("revoke risk-1 --ca-key {other}", "is not the key of"),
        ("revoke --serial xyz --ca-key {key}", "--serial 'xyz': give"),
        ("revoke --serial 0 --ca-key {key}", "--serial '0': give"),
        ("revoke --serial -5 --ca-key {key}", "--serial '-5': give"),
        ("revoke risk-1 --hours 0 --ca-key {key}", "--hours 0"),
        ("init --renew --hours 9000 --ca-key {key}", "the authority of"),
    ],
)
def test_bad_input_changes_nothing(
    config: ClusterConfig,
    ca_key: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    says: str,
) -> None:
    other = tmp_path / "other.key"
    make_cluster_file(tmp_path / "other", ca_key=other)
    before = lists(config)
    config.path.chmod(0o600)
    given = arguments.format(key=ca_key, here=tmp_path, config=config.path, other=other).split()
    place = ["--dir", str(config.path.parent)] if given[0] == "init" else ["--config", str(config.path)]
    assert exit_code([*given, *place]) == 2
    error = capsys.readouterr().err
    assert says in error and len(error.splitlines()) == 1
    assert lists(config) == before


def test_a_damaged_list_is_never_extended(config: ClusterConfig, ca_key: Path) -> None:
    (config.pki_dir / "ca.crl").write_text("rubbish")
    with pytest.raises(UsageError, match=r"pki/ca.crl holds no numbered revocation list"):
        revoked(config, ca_key, "risk-1")


def test_an_authoritys_key_is_not_overwritten(config: ClusterConfig, ca_key: Path, tmp_path: Path) -> None:
    before = ca_key.read_bytes()
    with pytest.raises(UsageError, match=r"--ca-key .* exists already; name another file"):
        make_cluster_file(tmp_path / "second", ca_key=ca_key)
    assert ca_key.read_bytes() == before and not (tmp_path / "second").exists()
    assert ca_key.stat().st_mode & 0o077 == 0


def test_serials_as_people_copy_them() -> None:
    assert serial_number("0x0A") == serial_number("a") == serial_number("00:0A") == 10
    with pytest.raises(UsageError, match="up to 40 digits"):
        serial_number("1" + "0" * 40)


# --- a running agent ---


class Pair:
    """risk-1 and risk-2 as their processes wire them, looking at their folders every few milliseconds."""

    def __init__(self, config: ClusterConfig) -> None:
        self.heard = [Recorder(), Recorder()]
        self.setups = [prepare(config, name, Role.RISK, RunOptions()) for name in ("risk-1", "risk-2")]
        self.ends = [each.endpoint(heard.on_message, heard.on_peer_change) for each, heard in self.both()]
        self.watches = [Certificates(*each) for each in zip(self.setups, self.ends, strict=True)]

    def both(self) -> list[tuple[Setup, Recorder]]:
        return list(zip(self.setups, self.heard, strict=True))

    async def start(self) -> None:
        for end, watch in zip(self.ends, self.watches, strict=True):
            await end.start()
            watch.start()
        await until(self.connected)

    def connected(self) -> bool:
        return bool(self.ends[0].connected) and bool(self.ends[1].connected)

    async def close(self) -> None:
        for watch in self.watches:
            watch.stop()
        await asyncio.gather(*(end.close() for end in self.ends))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates, "POLL_S", 0.02)


@pytest.mark.usefixtures("quick")
async def test_running_agents_follow_the_list_and_the_new_certificate(tmp_path: Path, ca_key: Path) -> None:
    config = load_config(make_cluster_file(tmp_path / "cluster", base_port=free_base_port(), ca_key=ca_key))
    pair = Pair(config)
    await pair.start()
    try:
        with structlog.testing.capture_logs() as log:
            revoked(config, ca_key, "risk-1")
            await until(lambda: not pair.connected())
            await until(lambda: pair.ends[1].refused["certificate_revoked"] >= 2, 10)
            await until(lambda: any(line["event"] == "own_certificate_revoked" for line in log))
        renew_certificates(config, 24, ca_key)
        await until(pair.connected, 10)
        for bad in (b"rubbish", sign_revocations(Authority.create("x"), {}, 9, now=NOW, valid_hours=1)):
            await refuses(pair, config, bad)
        assert pair.connected()
        number = pair.ends[1].statistics()["revocations"]["number"]
        assert number == 1, "the last good one is still in force"
    finally:
        await pair.close()


async def refuses(pair: Pair, config: ClusterConfig, bad: bytes) -> None:
    with structlog.testing.capture_logs() as log:
        (config.pki_dir / "risk-2" / "ca.crl").write_bytes(bad)
        await until(lambda: any(line["event"] == "certificates_not_reloaded" for line in log))
        await asyncio.sleep(0.2)
    (line,) = [line for line in log if line["event"] == "certificates_not_reloaded"]
    assert "risk-2/ca.crl" in line["error"] and line["agent"] == "risk-2"


@pytest.mark.usefixtures("quick")
async def test_an_expired_list_is_one_warning_and_nobody_is_refused(tmp_path: Path, ca_key: Path) -> None:
    config = load_config(make_cluster_file(tmp_path / "cluster", base_port=free_base_port(), ca_key=ca_key))
    pair = Pair(config)
    await pair.start()
    try:
        with structlog.testing.capture_logs() as log:
            revoke(config, ca_key, "operator", None, now=NOW - timedelta(days=2), valid_hours=1)
            await until(lambda: sum(line["event"] == "revocations_expired" for line in log) == 2)
            await asyncio.sleep(0.2)
        assert sum(line["event"] == "revocations_expired" for line in log) == 2, "one of each agent"
        assert pair.connected()
    finally:
        await pair.close()
