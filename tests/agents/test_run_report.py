from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agents.config import load_config
from agents.run_report import problems, read_report, write_report
from agents.status import CurrentRun, healthy, read_current, write_current
from profiling.render import report_view
from profiling.stages import Stage
from protocol.errors import RunFailure, UsageError
from tests.oracles.agent_examples import make_cluster_file


def make_report(**orders: int) -> dict[str, Any]:
    """The least that a report holds."""
    stage = {"count": 1, "total_ms": 1.0, "mean_ms": 1.0, "p50_ms": 1.0, "p99_ms": 1.0, "share_percent": 12.5}
    counts = {"sent": 4, "filled": 3, "rejected": 1, "unknown": 0, "duplicate": 0, "lost": 0, **orders}
    decisions = {"proposed": 5, "committed": 4, "routine": 3, "critical": 1, "denied": 1}
    return {
        "run": {
            "id": "r1",
            "mode": "optimized",
            "cycles": 3,
            "agents": [{"id": "trader-1", "role": "trader", "votes": True, "restarts": 0}],
            "data": {"name": "synthetic-7", "synthetic": True, "sha256": "ab"},
            "seed": 7,
        },
        "stages": [{"stage": each.label, **stage} for each in Stage],
        "operations": [],
        "cycle": {"mean_ms": 8.0, "p50_ms": 8.0, "p99_ms": 9.0, "per_s": 125.0},
        "decisions": {**decisions, "by_code": {"PRICE_COLLAR": 1}},
        "orders": counts,
        "portfolio": {"realized_pnl": 1.5, "unrealized_pnl": -0.5, "positions": {"SYN00": 3}},
        "consistency": {"decision_logs_identical": True, "decision_logs": {}},
    }


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    for name in ("first", "second"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        write_report(tmp_path / "runs" / name, {**make_report(), "note": name})
    return tmp_path / "runs"


def test_a_report_comes_back_by_id_latest_directory_and_file(runs: Path) -> None:
    for run, name in (
        ("first", "first"),
        ("latest", "second"),
        (str(runs / "first"), "first"),
        (str(runs / "second" / "report.json"), "second"),
    ):
        directory, report = read_report(runs, run)
        assert directory == (runs / name).resolve()
        assert report == {**make_report(), "note": name}
    assert (runs / "latest").readlink() == Path("second")
    assert sorted(entry.name for entry in runs.iterdir()) == ["first", "latest", "second"]
    assert [entry.name for entry in (runs / "first").iterdir()] == ["report.json"]
    assert report_view(report) is not None


def test_an_unknown_run_lists_the_known_ones(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"run 'third' is not in .*; known runs: first, latest, second"):
        read_report(runs, "third")
    with pytest.raises(UsageError, match="make one with `swarm up"):
        read_report(tmp_path / "nowhere", "latest")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"run": {}}', "null", "\x00"])
def test_a_broken_report_is_named(runs: Path, text: str) -> None:
    path = runs / "first" / "report.json"
    path.write_text(text)
    with pytest.raises(RunFailure, match=r"is not a usable report: .*; run again to get a new one") as caught:
        read_report(runs, "first")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_report_with_a_key_of_the_wrong_kind_is_named(runs: Path) -> None:
    report = make_report()
    report["stages"][2]["mean_ms"] = "fast"
    (runs / "first" / "report.json").write_text(json.dumps(report))
    with pytest.raises(RunFailure, match=r"stages\[2\]\.mean_ms: expected a finite number"):
        read_report(runs, "first")
    (runs / "first" / "report.json").write_bytes(b"\xff\xfe")
    with pytest.raises(RunFailure, match="not a usable report"):
        read_report(runs, "first")


def test_problems_are_what_must_never_happen() -> None:
    assert problems(make_report()) == []
    assert problems(make_report(lost=2, unknown=1)) == ["2 orders lost", "1 orders unknown"]
    assert problems(make_report(duplicate=1)) == ["1 orders duplicate"]
    differing = make_report()
    differing["consistency"]["decision_logs_identical"] = False
    assert problems(differing) == ["the replicas' decision logs differ"]


@pytest.mark.parametrize(
    ("status", "well"),
    [
        ({"state": "ready"}, True),
        ({"state": "trading", "quorum_seen": True}, True),
        ({"state": "finished", "quorum_seen": True}, True),
        ({"state": "trading", "quorum_seen": False}, False),
        ({"state": "starting"}, False),
        ({"state": "connecting", "quorum_seen": True}, False),
        ({"state": "unreachable"}, False),
        ({}, False),
    ],
)
def test_an_agent_is_well_when_it_serves_and_sees_a_quorum(status: dict[str, Any], well: bool) -> None:
    assert healthy(status) is well


def test_the_current_run_is_found_and_a_broken_note_is_none(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path))
    nothing = CurrentRun("", "capnp", "")
    assert read_current(config) == nothing
    current = CurrentRun("r1", "msgpack", "/runs/r1")
    path = write_current(config, current)
    assert read_current(config) == current
    for text in ("", "{", '{"run_id": 1}', "\x00"):
        path.write_text(text)
        assert read_current(config) == nothing
