"""Puts a run's report together from the agents' final statuses and their traces, and reads it back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

from agents.config import ClusterConfig
from agents.data.dataset import Dataset
from agents.setup import RunOptions
from agents.supervisor import RunResult
from agents.transports import transport_of
from consensus.quorum import Quorum
from profiling.report import profile_run
from profiling.validate import validate_report
from protocol.errors import RunFailure, UsageError
from protocol.roster import Role

REPORT_NAME: Final = "report.json"
LATEST: Final = "latest"


def build_report(config: ClusterConfig, options: RunOptions, data: Dataset, result: RunResult) -> dict[str, Any]:
    """The report as it is written to ``report.json``; also writes ``cycles.npz``."""
    assert options.run_dir is not None
    traders = [agent.id for agent in config.with_role(Role.TRADER)]
    executors = [agent.id for agent in config.with_role(Role.EXECUTOR)]
    voters = len(config.roster.voters)
    quorum = Quorum(voters, config.file.consensus.faulty_max, options.switches.consensus)
    trader = result.statuses[traders[0]]
    profile = profile_run(
        options.run_dir,
        trader_ids=traders,
        executor_ids=executors,
        quorum=quorum.size,
        denied_frames=frozenset(trader.get("frames_without_order", [])),
        orders_by_cycle={int(cycle): count for cycle, count in trader.get("orders_by_cycle", {}).items()},
    )
    report = {
        "run": _run_section(config, options, data, result, trader),
        "stages": profile["stages"],
        "operations": profile["operations"],
        "cycle": profile["cycle"],
        "decisions": trader["decisions"],
        "orders": _orders_section([result.statuses[executor] for executor in executors]),
        "portfolio": trader["portfolio"],
        "consistency": _consistency_section(config, result),
        "incomplete_cycles": profile["incomplete_cycles"],
        "incomplete_reasons": profile["incomplete_reasons"],
        "loss": profile["loss"],
    }
    validate_report(report)
    return report


def _run_section(
    config: ClusterConfig, options: RunOptions, data: Dataset, result: RunResult, trader: dict[str, Any]
) -> dict[str, Any]:
    return {
        "id": options.run_id,
        "mode": options.mode,
        "switches": {field: getattr(options.switches, field) for field in options.switches.__struct_fields__},
        "cycles": trader["cycle"],
        "agents": [
            {
                "id": agent.id,
                "role": agent.role.value,
                "votes": agent.votes,
                "restarts": result.restarts[agent.id],
                "transport": transport_of(agent.id, options.transports, config.transport(agent)),
            }
            for agent in config.roster.agents
            if agent.role is not Role.OPERATOR
        ],
        "data": data.describe(),
        "seed": config.file.seed,
        "seconds_to_first_cycle": round(result.seconds_to_first_cycle, 3),
        "seconds_total": round(result.seconds_total, 3),
        "interrupted_cycles": trader["interrupted_cycles"],
        "escalated_intents": trader["escalated"],
        "rate_per_s": options.rate_per_s,
        "network": options.network,
        "late_cycles": trader["late_cycles"],
        "windows_searched": trader["windows_searched"],
        "windows_compared": trader["windows_compared"],
    }


def _orders_section(executors: list[dict[str, Any]]) -> dict[str, Any]:
    names = executors[0]["orders"]
    return {name: sum(executor["orders"][name] for executor in executors) for name in names}


def _consistency_section(config: ClusterConfig, result: RunResult) -> dict[str, Any]:
    voters = {agent.id: result.statuses[agent.id]["decision_log"] for agent in config.roster.voters}
    return {"decision_logs_identical": result.logs_identical, "decision_logs": voters}


def problems(report: dict[str, Any]) -> list[str]:
    """What must never happen, if it did; empty for a good run."""
    found = [
        f"{report['orders'][name]} orders {name}" for name in ("lost", "duplicate", "unknown") if report["orders"][name]
    ]
    if not report["consistency"]["decision_logs_identical"]:
        found.append("the replicas' decision logs differ")
    return found


def write_report(run_dir: Path, report: dict[str, Any]) -> Path:
    """Write ``report.json`` whole or not at all, and point ``latest`` at the run."""
    path = run_dir / REPORT_NAME
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(report, indent=1) + "\n")
    partial.replace(path)
    link = run_dir.parent / LATEST
    fresh = run_dir.parent / f".{LATEST}.{run_dir.name}"
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(run_dir.name)
    fresh.replace(link)
    return path


def read_report(runs_dir: Path, run: str) -> tuple[Path, dict[str, Any]]:
    """A run by id, ``latest``, directory or report file. Returns its directory and its checked report."""
    candidates = [runs_dir / run / REPORT_NAME, Path(run) / REPORT_NAME, Path(run)]
    path = next((candidate for candidate in candidates if candidate.is_file()), None)
    if path is None:
        known = sorted(entry.parent.name for entry in runs_dir.glob(f"*/{REPORT_NAME}"))
        hint = f"known runs: {', '.join(known[-5:])}" if known else "make one with `swarm up --cycles 200`"
        raise UsageError(f"run '{run}' is not in {runs_dir}; {hint}")
    try:
        report = json.loads(path.read_text())
        validate_report(report)
    except (OSError, ValueError) as error:
        raise RunFailure(f"{path} is not a usable report: {error}; run again to get a new one") from None
    return path.parent.resolve(), report
