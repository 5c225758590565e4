"""``swarm trader|risk|executor|venue``: one agent by hand, on any host. ``swarm health``: is it alive?"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from agents.cli.options import (
    config_option,
    data_option,
    log_options,
    network_option,
    rate_option,
    run_options,
    switch_options,
    transport_option,
)
from agents.config import load_config
from agents.process import EXIT_FAILURE, Serving, serve
from agents.setup import RunOptions, Setup, prepare
from protocol.roster import Role


def _agent_options(command: Callable[..., Any]) -> Callable[..., Any]:
    command = click.option("--supervised", is_flag=True, hidden=True)(command)
    command = click.option("--bind", "bind_host", default="", help="Address to listen on instead of the roster's.")(
        command
    )
    command = click.option(
        "--run-dir", type=click.Path(path_type=Path), default=None, help="Where state and traces go."
    )(command)
    command = click.option("--run-id", default="", help="Name of the run; all agents of one run share it.")(command)
    return data_option(network_option(transport_option(switch_options(log_options("info")(config_option(command))))))


def _serve(role: Role, agent_id: str, build: Callable[[Setup], Serving], options: dict[str, Any]) -> int:
    supervised, log_json, level = options.pop("supervised"), options.pop("log_json"), options.pop("log_level")
    config_path = options.pop("config")

    def built() -> Serving:
        return build(prepare(load_config(config_path), agent_id, role, _run_options(options)))

    return serve(built, supervised=supervised, log_json=log_json, level=level)


def _run_options(options: dict[str, Any]) -> RunOptions:
    named = {
        name: options.pop(name)
        for name in ("run_id", "run_dir", "cycles", "data", "rate_per_s", "bind_host", "transports", "network")
        if name in options
    }
    mode = options.pop("mode")
    return run_options(mode, options, **named)


def _voter(role: Role, setup: Setup) -> Serving:
    # The kernels are imported by those who need them: a venue, or `swarm --help`, must not wait for a compiler.
    from agents.executor.executor import Executor
    from agents.risk.risk import RiskAgent
    from agents.trader.trader import Trader
    from agents.voter import Voter, VoterRole

    roles: dict[Role, type[VoterRole]] = {Role.TRADER: Trader, Role.RISK: RiskAgent, Role.EXECUTOR: Executor}
    return Voter(setup, roles[role]())


@click.command("trader")
@click.option("--id", "agent_id", required=True, help="Which agent of the roster this is.")
@click.option("--cycles", type=click.IntRange(min=0), default=0, help="Cycles to trade; 0 until stopped.")
@rate_option()
@_agent_options
def trader(agent_id: str, **options: Any) -> int:
    """Run one trader.

    \b
    Example: swarm trader --id trader-1 --config cluster/cluster.toml --cycles 100
    """
    return _serve(Role.TRADER, agent_id, lambda setup: _voter(Role.TRADER, setup), options)


@click.command("risk")
@click.option("--id", "agent_id", required=True, help="Which agent of the roster this is.")
@click.option("--cycles", type=click.IntRange(min=0), default=0, hidden=True)
@rate_option(hidden=True)
@_agent_options
def risk(agent_id: str, **options: Any) -> int:
    """Run one risk agent.

    \b
    Example: swarm risk --id risk-1 --config cluster/cluster.toml
    """
    return _serve(Role.RISK, agent_id, lambda setup: _voter(Role.RISK, setup), options)


@click.command("executor")
@click.option("--id", "agent_id", required=True, help="Which agent of the roster this is.")
@click.option("--cycles", type=click.IntRange(min=0), default=0, hidden=True)
@rate_option(hidden=True)
@_agent_options
def executor(agent_id: str, **options: Any) -> int:
    """Run one executor.

    \b
    Example: swarm executor --id executor-1 --config cluster/cluster.toml
    """
    return _serve(Role.EXECUTOR, agent_id, lambda setup: _voter(Role.EXECUTOR, setup), options)


@click.command("venue")
@click.option("--id", "agent_id", default="venue", show_default=True, help="Which agent of the roster this is.")
@click.option("--cycles", type=click.IntRange(min=0), default=0, hidden=True)
@rate_option(hidden=True)
@_agent_options
def venue(agent_id: str, **options: Any) -> int:
    """Run the paper venue: a matching engine over the replayed prices.

    \b
    Example: swarm venue --config cluster/cluster.toml
    """
    from agents.venue import VenueProcess

    return _serve(Role.VENUE, agent_id, VenueProcess, options)


@click.command("health")
@click.option("--id", "agent_id", required=True, help="The agent to ask, with its own key.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(min=0.1, max=60), default=2.0, show_default=True)
@click.option("--run-id", default="")
@config_option
def health(agent_id: str, timeout_s: float, run_id: str, config: Path) -> int:
    """Ask an agent on this host whether it is well; exit 0 if so, 1 if not. For container health checks.

    \b
    Example: swarm health --id risk-1
    """
    from agents.status import ask, healthy
    from protocol.codec import codec_for

    loaded = load_config(config)
    found = loaded.roster.by_id(agent_id)
    agent = loaded.agent(agent_id, found.role if found is not None else Role.RISK)
    status = asyncio.run(
        ask(loaded, agent, identity_id=agent.id, run_id=run_id, codec=codec_for("capnp"), timeout_s=timeout_s)
    )
    click.echo(json.dumps(status))
    return 0 if healthy(status) else EXIT_FAILURE


COMMANDS = (trader, risk, executor, venue, health)
