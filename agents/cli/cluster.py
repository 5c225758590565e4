"""``swarm init``, ``swarm config``, ``swarm status``, ``swarm warmup``."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, Final

import click
import msgspec
from rich.console import Console
from rich.table import Table

from agents.cli.console import show
from agents.cli.options import config_option, json_option
from agents.cluster_init import (
    DEFAULT_BASE_PORT,
    certificates_hold,
    check_new_cluster,
    init_cluster,
    renew_certificates,
)
from agents.config import load_config
from agents.data import catalog
from agents.status import ask_all, ask_feeds, read_current
from protocol.codec import codec_for
from protocol.errors import UsageError


@click.command("init")
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=Path("cluster"), show_default=True)
@click.option("--name", default="swarm-local", show_default=True, help="Part of every certificate.")
@click.option("--base-port", default=DEFAULT_BASE_PORT, show_default=True, help="First of five UDP ports.")
@click.option("--hosts", default="127.0.0.1", show_default=True, help="An address, or `names`: host = agent id.")
@click.option("--hours", "valid_hours", default=24.0 * 30, show_default=True, help="How long certificates hold.")
@click.option("--data", default="us-large-caps", show_default=True, help="Data set to trade on.")
@click.option(
    "--ca-key",
    type=click.Path(path_type=Path, dir_okay=False),
    default=None,
    envvar="SWARM_CA_KEY",
    help="Keep the authority's key in this file, for `swarm revoke`; --renew goes on with the authority that is there.",
)
@click.option("--force", is_flag=True, help="Overwrite an existing cluster.")
@click.option("--renew", is_flag=True, help="Keep an existing cluster and issue new certificates for it.")
@click.option(
    "--ensure",
    "ensure_hours",
    type=click.FloatRange(min=0),
    default=None,
    metavar="HOURS",
    help="Make the cluster only if there is none; renew only certificates that do not hold for so long.",
)
def init(
    directory: Path,
    name: str,
    base_port: int,
    hosts: str,
    valid_hours: float,
    data: str,
    ca_key: Path | None,
    force: bool,
    renew: bool,
    ensure_hours: float | None,
) -> None:
    """Write cluster.toml, keys and certificates for four voters and a venue.

    \b
    Example: swarm init --dir cluster --base-port 7401
    """
    path = directory / "cluster.toml"
    if ensure_hours is not None and path.exists():
        if certificates_hold(load_config(path), ensure_hours):
            click.echo(f"{path}: all certificates hold for more than {ensure_hours:g} hours; nothing was changed")
            return
        renew = True
    if renew:
        renew_certificates(load_config(path), valid_hours, ca_key)
        click.echo(f"{path}: certificates renewed for {valid_hours:g} hours; running agents take them within seconds")
        return
    wanted: dict[str, Any] = {
        "name": name,
        "base_port": base_port,
        "hosts": hosts,
        "valid_hours": valid_hours,
        "data": data,
        "force": force,
        "ca_key": ca_key,
    }
    check_new_cluster(directory, **wanted)
    symbols = catalog.symbols(data)  # may have to fetch the table, so only when all else is right
    path = init_cluster(directory, **wanted, symbols=symbols)
    click.echo(f"{path} written; start it with `swarm up --config {path}`")


@click.command("config")
@config_option
@json_option
def config_command(config: Path, as_json: bool) -> None:
    """Print the checked configuration with every default filled in. It holds no secrets.

    \b
    Example: swarm config --json
    """
    loaded = load_config(config)
    fields = msgspec.to_builtins(loaded.file)
    if as_json:
        click.echo(json.dumps(fields, indent=1))
        return
    table = Table(title=str(config), box=None, title_justify="left")
    table.add_column("key")
    table.add_column("value")
    for key, value in _flat("", fields):
        table.add_row(key, str(value))
    show(table)


def _flat(prefix: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, dict):
        return [row for key, item in value.items() for row in _flat(f"{prefix}.{key}" if prefix else key, item)]
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [row for number, item in enumerate(value) for row in _flat(f"{prefix}[{number}]", item)]
    return [(prefix, value)]


@click.command("status")
@config_option
@json_option
@click.option("--detail", is_flag=True, help="Everything that the agents know, with --json.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1, max=60), default=2.0, show_default=True)
@click.option("--run-id", default=None, help="Ask agents of this run; by default the one that `swarm up` has going.")
@click.option("--feed", is_flag=True, help="Ask their public feeds (feed_port), which takes no key.")
def status(config: Path, as_json: bool, detail: bool, timeout_s: float, run_id: str | None, feed: bool) -> int:
    """Ask the live agents; exit 0 if all answer, 1 if not.

    \b
    Example: swarm status --json
    """
    loaded = load_config(config)
    if feed and (detail or run_id is not None):
        raise UsageError("--feed: a feed says only what it says, whatever the run; leave --detail and --run-id out")
    if feed:
        return _show_feeds(asyncio.run(ask_feeds(loaded, timeout_s)), as_json)
    current = read_current(loaded)
    run = current.run_id if run_id is None else run_id
    answers = asyncio.run(ask_all(loaded, run, codec_for(current.codec), timeout_s, detail))
    if as_json:
        click.echo(json.dumps({"run_id": run, "agents": answers}))
    else:
        show(_status_table(answers))
    return 1 if any(answer["state"] == "unreachable" for answer in answers.values()) else 0


def _show_feeds(answers: dict[str, dict[str, Any]], as_json: bool) -> int:
    columns = ("agent", "role", "state", "leader", "term", "commit_index", "cycle", "market_index")
    if as_json:
        click.echo(json.dumps({"agents": answers}))
    else:
        table = Table(box=None)
        for column in (*columns, "early data", "ms"):
            table.add_column(column.replace("_", " "))
        for agent_id, answer in answers.items():
            shown = {**answer, "agent": agent_id}
            cells = [shown.get(name) for name in (*columns, "early_data", "answer_ms")]
            table.add_row(*("" if cell is None else str(cell) for cell in cells))
        show(table)
    return 1 if any(answer["state"] == "unreachable" for answer in answers.values()) else 0


STATUS_COLUMNS: Final = (
    "agent", "role", "state", "pid", "profile", "quorum", "suspects", "leader", "term", "lane", "spine", "primary",
)  # fmt: skip


def _status_table(answers: dict[str, dict[str, Any]]) -> Table:
    table = Table(box=None)
    for column in STATUS_COLUMNS:
        table.add_column(column, justify="right" if column in ("pid", "term", "lane", "spine") else "left")
    for agent_id, answer in answers.items():
        log = answer.get("decision_log", {})
        quorum = f"{answer['voters_connected']} of {answer['quorum']}" if "quorum" in answer else ""
        cells = [agent_id, answer["role"], answer["state"], answer.get("pid", ""), answer.get("profile", ""), quorum]
        cells += [" ".join(answer.get("suspects", ()))]
        cells += [answer.get("leader") or "", answer.get("term", ""), log.get("lane_length", "")]
        cells += [log.get("spine_length", ""), answer.get("spine_primary") or ""]
        table.add_row(*(str(cell) for cell in cells))
    return table


@click.command("warmup")
@click.option(
    "--all", "everything", is_flag=True, help="Those of the whole room, and measure this machine's crossovers."
)
@json_option
def warmup_command(everything: bool, as_json: bool) -> None:
    """Compile the DTW kernels that agents use into the disk cache that all of them share.

    \b
    Example: swarm warmup
    """
    from agents.warm import warm_with_progress

    report = warm_with_progress(Console(stderr=True), everything)
    if as_json:
        click.echo(json.dumps(report))
    else:
        click.echo(f"{report['kernels']} kernels ready in {report['seconds']:.1f} s, {report['compiled']} compiled now")


COMMANDS = (init, config_command, status, warmup_command)
