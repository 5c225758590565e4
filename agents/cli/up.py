"""``swarm up``: the whole roster on this host, from nothing to a report."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import structlog
import uvloop
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents import logs
from agents.cli.console import show
from agents.cli.options import (
    as_arguments,
    config_option,
    data_option,
    json_option,
    log_options,
    network_option,
    rate_option,
    run_options,
    switch_options,
    transport_option,
)
from agents.cluster_init import init_cluster
from agents.config import ClusterConfig, load_config
from agents.data import catalog
from agents.run_report import build_report, problems, write_report
from agents.setup import RunOptions, check_instruments, load_data, start_index
from agents.status import CurrentRun, write_current
from agents.supervisor import RunResult, Supervisor
from agents.transports import check_transports
from agents.warm import ensure_warm
from profiling.render import report_view
from protocol.errors import RunFailure


@click.command("up")
@click.option("--cycles", type=click.IntRange(min=1), default=200, show_default=True, help="Cycles to trade.")
@rate_option()
@click.option("--runs", "runs_dir", type=click.Path(path_type=Path), default=Path("runs"), show_default=True)
@click.option("--quiet", is_flag=True, help="No progress line and no logs below errors.")
@data_option
@network_option
@transport_option
@switch_options
@json_option
@log_options("warning")
@config_option
def up(
    config: Path,
    cycles: int,
    rate_per_s: float,
    runs_dir: Path,
    quiet: bool,
    as_json: bool,
    log_json: bool,
    log_level: str,
    data: str,
    mode: str,
    transports: tuple[str, ...],
    network: str,
    **switches: Any,
) -> int:
    """Start every agent as a process of its own, trade, report, stop.

    Makes the cluster's file and keys if there are none. Exit 0 only if nothing was lost or doubled and all replicas
    hold the same decisions.

    \b
    Example: swarm up --cycles 200 --mode baseline
    Example: swarm up --cycles 200 --transport qh3 --transport risk-1=aioquic
    Example: swarm up --cycles 200 --network rtt=4ms,loss=0.1%
    """
    logs.configure(as_json=log_json, level="error" if quiet else log_level)
    wanted = run_options(
        mode, switches, cycles=cycles, data=data, rate_per_s=rate_per_s, transports=transports, network=network
    )
    loaded = _cluster(config)
    check_transports(transports, loaded.roster)
    dataset = load_data(loaded, data)
    check_instruments(loaded, dataset)
    start_index(loaded, dataset, cycles)
    run_dir = _run_dir(runs_dir, f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{mode}")
    options = replace(wanted, run_id=run_dir.name, run_dir=run_dir)
    ensure_warm(catalog.data_directory().parent)
    console = Console(stderr=True)
    current = write_current(loaded, CurrentRun(options.run_id, options.switches.codec, str(run_dir), options.network))
    try:
        result = _supervise(loaded, options, log_level, console, show=not (quiet or log_json))
    finally:
        current.unlink(missing_ok=True)
    report = build_report(loaded, options, dataset, result)
    path = write_report(run_dir, report)
    if as_json:
        click.echo(json.dumps(report))
    else:
        show(report_view(report))
        click.echo(f"report: {path}")
    found = problems(report)
    for problem in found:
        click.echo(f"error: {problem}; see {path}", err=True)
    return 1 if found else 0


def _cluster(path: Path) -> ClusterConfig:
    if not path.exists():
        source = "us-large-caps"
        init_cluster(
            path.parent,
            name="swarm-local",
            base_port=7401,
            hosts="127.0.0.1",
            valid_hours=24.0 * 30,
            data=source,
            force=False,
            symbols=catalog.symbols(source),
        )
    return load_config(path)


def _run_dir(runs_dir: Path, run_id: str) -> Path:
    """A directory of its own for this run, also when two start within one second."""
    for suffix in ("", *(f"-{number}" for number in range(2, 100))):
        candidate = (runs_dir / f"{run_id}{suffix}").resolve()
        try:
            candidate.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise RunFailure(f"{candidate} cannot be made ({error.strerror}); choose another --runs") from None
        return candidate
    raise RunFailure(f"{runs_dir} holds a hundred runs of this second; wait a moment")


def _supervise(
    config: ClusterConfig, options: RunOptions, log_level: str, console: Console, *, show: bool
) -> RunResult:
    columns = (
        TextColumn("{task.fields[state]:11}"),
        BarColumn(30),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, TimeElapsedColumn(), console=console, disable=not show) as progress:
        task = progress.add_task("", total=options.cycles, state="starting")

        def update(statuses: dict[str, dict[str, Any]]) -> None:
            progress.update(task, **_progress_fields(statuses))

        # Agents log in full into the run's directory; what is forwarded is this process's choice.
        arguments = as_arguments(options, config.path, "debug" if log_level == "debug" else "info")
        supervisor = Supervisor(config, options, arguments, _forward, update)
        return uvloop.run(supervisor.run())


def _progress_fields(statuses: dict[str, dict[str, Any]]) -> dict[str, Any]:
    trader = next((status for status in statuses.values() if status.get("role") == "trader"), {})
    executor = next((status for status in statuses.values() if status.get("role") == "executor"), {})
    orders, decisions = executor.get("orders") or {}, trader.get("decisions") or {}
    text = (
        f"{trader.get('market_day') or ''} · {decisions.get('committed', 0)} decided, {decisions.get('critical', 0)} "
        f"critical, {decisions.get('denied', 0)} denied · {orders.get('filled', 0)} of {orders.get('sent', 0)} orders "
        f"filled · P&L {trader.get('profit', 0.0):,.2f} · leader {trader.get('leader') or '-'}"
    )
    return {"completed": trader.get("cycle", 0), "description": text, "state": trader.get("state", "starting")}


def _forward(agent_id: str, text: str, fields: dict[str, Any] | None) -> None:
    """An agent's log line in this process's own form; what is no log line is shown as it is."""
    if fields is None:
        if text:
            print(f"{agent_id}: {text}", file=sys.stderr)
        return
    level, event = str(fields.pop("level", "info")), str(fields.pop("event"))
    known = {key: value for key, value in fields.items() if key not in ("timestamp", "agent")}
    getattr(structlog.get_logger(), level if level in logs.LEVELS else "info")(event, agent=agent_id, **known)


COMMANDS = (up,)
