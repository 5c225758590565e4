"""Agents die in mid-run. The run still finishes, and nothing is lost or doubled."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from agents.cluster_init import renew_certificates
from agents.config import load_config
from agents.revoke import revoke
from tests.oracles.swarm_process import SwarmDirectory, assert_nothing_lost, finish

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwarmDirectory]:
    directory = SwarmDirectory(tmp_path_factory.mktemp("faults"))
    yield directory
    directory.kill_all()


def run_and_kill(swarm: SwarmDirectory, victim: str | None, cycles: int = 60) -> tuple[str, dict[str, Any]]:
    """Kill ``victim``, or the lane's leader, once the trader is at work; returns who it was and the report."""
    process = swarm.up("--cycles", str(cycles), "--rate", "10")  # not over before anybody has looked
    agents = swarm.await_cycle(3, process)
    chosen = victim or agents["trader-1"]["leader"]
    os.kill(agents[chosen]["pid"], signal.SIGKILL)
    report = finish(process)
    restarts = {agent["id"]: agent["restarts"] for agent in report["run"]["agents"]}
    assert restarts[chosen] == 1, restarts
    assert report["run"]["cycles"] == cycles
    return chosen, report


def test_killing_the_lane_leader(swarm: SwarmDirectory) -> None:
    _, report = run_and_kill(swarm, None)
    assert_nothing_lost(report)
    assert report["decisions"]["routine"] > 0


@pytest.mark.parametrize("victim", ["risk-2", "executor-1", "trader-1"])
def test_killing_an_agent(swarm: SwarmDirectory, victim: str) -> None:
    _, report = run_and_kill(swarm, victim)
    assert_nothing_lost(report)


def test_a_trader_that_dies_when_all_is_traded_comes_back_for_the_report(swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "8", "--rate", "4")
    pid = swarm.await_process("trader-1")
    log = swarm.log_of("trader-1")
    while not log.exists() or '"finished"' not in log.read_text():
        assert process.poll() is None, "".join(process.communicate())
        time.sleep(0.002)
    os.kill(pid, signal.SIGKILL)
    report = finish(process)
    assert_nothing_lost(report)
    assert report["run"]["cycles"] == 8


def test_without_its_primary_the_spine_refuses_in_bounded_time(swarm: SwarmDirectory) -> None:
    """The primary is frozen, not dead: critical decisions are refused with the reason, routine ones go on."""
    process = swarm.up("--cycles", "80")
    agents = swarm.await_cycle(3, process)
    primary = agents["trader-1"]["spine_primary"]
    os.kill(agents[primary]["pid"], signal.SIGSTOP)
    try:
        time.sleep(6)
    finally:
        os.kill(agents[primary]["pid"], signal.SIGCONT)
    report = finish(process)
    assert_nothing_lost(report)
    assert report["decisions"]["by_code"].get("SPINE_UNAVAILABLE", 0) > 0
    assert report["decisions"]["routine"] > 0


def test_a_pulled_cable_is_noticed_and_what_it_cost_is_caught_up(swarm: SwarmDirectory) -> None:
    """risk-2 is cut off from everybody for longer than the idle timeout, on a network that delays and loses too."""
    network = ["--network", "rtt=1ms,jitter=500us,loss=0.5%,reorder=0.5%", "--transport", "risk-1=qh3"]
    process = swarm.up("--cycles", "150", "--rate", "8", *network)
    swarm.await_cycle(3, process)
    for other in ("trader-1", "risk-1", "executor-1"):
        assert swarm.run("network", "cut", "risk-2", other).returncode == 0
    time.sleep(12)
    assert swarm.run("network", "heal").returncode == 0
    report = finish(process)
    assert_nothing_lost(report)
    assert report["run"]["network"].startswith("rtt=1ms")
    assert report["run"]["cycles"] == 150
    log = (swarm.runs / "latest" / "risk-2" / "log.jsonl").read_text()
    assert log.count('"peer_lost"') >= 3 and log.count('"peer_connected"') >= 6


def test_of_two_processes_with_one_id_the_older_stops_with_its_reason(swarm: SwarmDirectory) -> None:
    """An impostor with the right keys, elsewhere: it displaces ours, ours is restarted and displaces it."""
    process = swarm.up("--cycles", "130")
    swarm.await_cycle(1, process)
    run_id = json.loads((swarm.config.parent / "current-run.json").read_text())["run_id"]
    options = ["--id", "risk-1", "--run-id", run_id, "--run-dir", "elsewhere", "--bind", "127.0.0.2"]
    second = swarm.run("risk", *options, "--log-level", "error", timeout_s=60)
    assert second.returncode == 1, second.stderr
    assert "another process runs as 'risk-1'" in second.stderr
    assert "Traceback" not in second.stderr
    report = finish(process)
    assert_nothing_lost(report)
    assert {agent["id"]: agent["restarts"] for agent in report["run"]["agents"]}["risk-1"] == 1


def test_certificates_are_renewed_and_revoked_in_mid_run(swarm: SwarmDirectory) -> None:
    """From a new authority on SIGHUP; then risk-2 is shut out by the list, and let in again with a new certificate."""
    process = swarm.up("--cycles", "200", "--rate", "10", "--transport", "risk-1=qh3")
    agents = swarm.await_cycle(3, process)
    assert swarm.run("init", "--dir", "cluster", "--renew", "--ca-key", "ca.key").returncode == 0
    for agent in agents.values():
        os.kill(agent["pid"], signal.SIGHUP)
    config, ca_key = load_config(swarm.config), swarm.path / "ca.key"
    revoke(config, ca_key, "risk-2", None, now=datetime.now(UTC), valid_hours=24)
    log = swarm.log_of("risk-2")
    swarm.await_line(log, '"refused_by_peer"', '"certificate_revoked"')
    before = log.read_text().count('"peer_connected"')
    renew_certificates(config, 24, ca_key)
    swarm.await_line(log, '"peer_connected"', count=before + 6)  # each is said twice
    report = finish(process)
    assert_nothing_lost(report)
    assert all(agent["restarts"] == 0 for agent in report["run"]["agents"])
    for agent_id in ("trader-1", "risk-1", "risk-2", "executor-1", "venue"):
        log = (swarm.runs / "latest" / agent_id / "log.jsonl").read_text()
        assert '"certificates_reloaded"' in log and '"peer_replaced"' in log, agent_id


def test_a_dead_venue_ends_the_run_with_its_reason(swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "300")
    agents = swarm.await_cycle(2, process)
    os.kill(agents["venue"]["pid"], signal.SIGKILL)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "venue was ended by signal SIGKILL" in errors
    assert "Traceback" not in errors
    assert swarm.processes() == []
