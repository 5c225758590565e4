"""The whole swarm for real: five processes, QUIC, disks; from ``swarm up`` to the report."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from profiling.stages import Stage
from tests.oracles.swarm_process import SwarmDirectory, assert_nothing_lost, finish

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwarmDirectory]:
    directory = SwarmDirectory(tmp_path_factory.mktemp("swarm"))
    yield directory
    directory.kill_all()


@pytest.fixture(scope="module")
def report(swarm: SwarmDirectory) -> dict[str, Any]:
    return finish(swarm.up("--cycles", "25"))


def test_default_run_loses_nothing_and_uses_both_paths(report: dict[str, Any]) -> None:
    assert_nothing_lost(report)
    assert report["run"]["cycles"] == 25
    assert report["decisions"]["routine"] > 0
    assert report["decisions"]["critical"] > 0
    assert report["orders"]["filled"] > 0


def test_report_has_every_stage_and_enough_operations(report: dict[str, Any]) -> None:
    assert [row["stage"] for row in report["stages"]] == [stage.label for stage in Stage]
    assert sum(row["share_percent"] for row in report["stages"]) == pytest.approx(100.0, abs=0.5)
    assert len({row["operation"] for row in report["operations"]}) >= 29
    assert {row["agent"] for row in report["operations"]} >= {"trader-1", "risk-1", "risk-2", "executor-1", "venue"}


def test_every_agent_calls_the_kernels(report: dict[str, Any]) -> None:
    calls = {(row["agent"], row["operation"]) for row in report["operations"]}
    wanted = {("trader-1", "dtw_search"), ("executor-1", "curve_match")}
    assert calls >= {*wanted, ("risk-1", "claim_repeat"), ("risk-2", "claim_repeat")}


def test_synthetic_data_is_called_synthetic(report: dict[str, Any]) -> None:
    assert report["run"]["data"]["synthetic"] is True
    assert report["run"]["data"]["name"].startswith("synthetic")


def test_latest_points_at_the_run_and_can_be_shown(swarm: SwarmDirectory, report: dict[str, Any]) -> None:
    assert (swarm.runs / "latest").resolve().name == report["run"]["id"]
    shown = swarm.run("report", "latest")
    assert shown.returncode == 0
    assert "order_confirmation" in shown.stdout
    compared = swarm.run("compare", "latest", report["run"]["id"])
    assert compared.returncode == 0
    assert "1.00" in compared.stdout


def test_nothing_is_left_behind(swarm: SwarmDirectory, report: dict[str, Any]) -> None:
    assert swarm.processes() == []
    assert not (swarm.path / "cluster" / "current-run.json").exists()


def test_a_market_with_a_clock_of_its_own_sets_the_pace(swarm: SwarmDirectory) -> None:
    report = finish(swarm.up("--cycles", "9", "--rate", "4"))
    assert_nothing_lost(report)
    assert report["run"]["rate_per_s"] == 4
    assert report["cycle"]["per_s"] < 4.6
    assert 0 <= report["run"]["late_cycles"] < 9
    assert report["run"]["windows_searched"] > report["run"]["windows_compared"] > 0


def test_baseline_throws_every_switch(swarm: SwarmDirectory) -> None:
    report = finish(swarm.up("--cycles", "4", "--mode", "baseline"))
    assert_nothing_lost(report)
    assert report["run"]["switches"] == {
        "codec": "msgpack",
        "batch_max": 1,
        "consensus": "pbft",
        "coordination": "separate",
        "orders": "sequential",
        "confirm": "blocking",
        "dtw": "scalar",
    }
    assert report["decisions"]["routine"] == 0
    assert report["decisions"]["critical"] > 0


@pytest.mark.parametrize("listeners", ["qh3", "aioquic"])
def test_agents_on_different_quic_libraries_trade_together(swarm: SwarmDirectory, listeners: str) -> None:
    """risk-1, which dials all others, on one library, the others on the other one."""
    dialler = "aioquic" if listeners == "qh3" else "qh3"
    report = finish(swarm.up("--cycles", "12", "--transport", listeners, "--transport", f"risk-1={dialler}"))
    assert_nothing_lost(report)
    used = {agent["id"]: agent["transport"] for agent in report["run"]["agents"]}
    assert used.pop("risk-1") == dialler
    assert set(used.values()) == {listeners}
    assert report["decisions"]["routine"] > 0 and report["decisions"]["critical"] > 0


def test_crash_fault_profile_sends_everything_down_the_lane(swarm: SwarmDirectory) -> None:
    report = finish(swarm.up("--cycles", "5", "--consensus", "raft"))
    assert_nothing_lost(report)
    assert report["decisions"]["critical"] == 0
    assert report["decisions"]["routine"] > 0


def test_interrupt_stops_everything_within_five_seconds(swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "300")
    swarm.await_cycle(1, process)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert swarm.processes() == []


def test_agents_do_not_outlive_a_killed_supervisor(swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "300")
    swarm.await_cycle(1, process)
    process.kill()
    process.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while swarm.processes() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert swarm.processes() == []


def test_second_supervisor_on_the_same_ports_is_refused(swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "300")
    try:
        swarm.await_cycle(1, process)
        second = swarm.run("up", "--cycles", "5", "--log-level", "error", "--quiet")
        assert second.returncode == 2
        assert "in use" in second.stderr
        assert "Traceback" not in second.stderr
        assert process.poll() is None
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)


def test_children_are_processes_of_their_own(tmp_path: Path, swarm: SwarmDirectory) -> None:
    process = swarm.up("--cycles", "300")
    try:
        agents = swarm.await_cycle(1, process)
        pids = {agent["pid"] for agent in agents.values()}
        assert len(pids) == len(agents) == 5
        assert all(os.getpgid(pid) == pid for pid in pids)
        directories = {entry.name for entry in swarm.runs.glob("*/*") if entry.is_dir()}
        assert directories >= set(agents)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=20)
