"""``swarm network``: pull a cable in the run that is going, and plug it in again."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agents.cli.options import config_option, json_option
from agents.config import ClusterConfig, load_config
from agents.network_cuts import Cuts, read_cuts, write_cuts
from agents.status import read_current
from protocol.errors import UsageError


@click.group("network")
def network() -> None:
    """Cut agents off from each other while a run started with --network goes on.

    \b
    Example: swarm up --cycles 500 --network rtt=4ms,loss=0.1%
             swarm network cut risk-1 trader-1
             swarm network heal
    """


@network.command("cut")
@click.argument("agent")
@click.argument("other")
@click.option("--one-way", is_flag=True, help="Only what AGENT sends to OTHER is lost.")
@json_option
@config_option
def cut(config: Path, agent: str, other: str, one_way: bool, as_json: bool) -> int:
    """Nothing gets through between AGENT and OTHER from now on.

    \b
    Example: swarm network cut risk-1 trader-1 --one-way
    """
    loaded = load_config(config)
    for name in (agent, other):
        if loaded.roster.by_id(name) is None:
            known = ", ".join(each.id for each in loaded.roster.agents)
            raise UsageError(f"agent '{name}' is not in {config}; its agents are: {known}")
    if agent == other:
        raise UsageError(f"agent '{agent}' cannot be cut off from itself; name two agents")
    run_dir = _run_dir(loaded)
    pairs = {(agent, other)} if one_way else {(agent, other), (other, agent)}
    return _show(write_cuts(run_dir, {*read_cuts(run_dir).pairs, *pairs}), as_json)


@network.command("heal")
@json_option
@config_option
def heal(config: Path, as_json: bool) -> int:
    """Everything gets through again.

    \b
    Example: swarm network heal
    """
    return _show(write_cuts(_run_dir(load_config(config)), ()), as_json)


@network.command("show")
@json_option
@config_option
def show_cuts(config: Path, as_json: bool) -> int:
    """Who is cut off from whom.

    \b
    Example: swarm network show --json
    """
    return _show(read_cuts(_run_dir(load_config(config))), as_json)


def _run_dir(config: ClusterConfig) -> Path:
    current = read_current(config)
    if not current.run_dir:
        raise UsageError(f"no run is going on {config.path}; start one with `swarm up --network rtt=0ms`")
    if not current.network:
        raise UsageError(f"run {current.run_id} was started without --network; start it with `--network rtt=0ms`")
    return Path(current.run_dir)


def _show(cuts: Cuts, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps({"cut": [list(pair) for pair in cuts.pairs]}))
    elif not cuts.pairs:
        click.echo("nobody is cut off")
    for sender, to in () if as_json else cuts.pairs:
        click.echo(f"nothing gets through from {sender} to {to}")
    return 0


COMMANDS = (network,)
