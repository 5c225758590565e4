"""Options that several commands share, and what follows from them."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from agents import logs
from agents.setup import RunOptions
from agents.switches import MODES, Switches, switches_for
from protocol.quic.chaos import parse_network

F = TypeVar("F", bound=Callable[..., Any])

DEFAULT_CONFIG = Path("cluster/cluster.toml")
RATE_PER_S_MAX = 10_000


def config_option(command: F) -> F:
    return click.option(
        "--config",
        type=click.Path(path_type=Path, dir_okay=False),
        default=lambda: Path(os.environ.get("SWARM_CONFIG", DEFAULT_CONFIG)),
        show_default=str(DEFAULT_CONFIG),
        help="The cluster's file, written by `swarm init`; SWARM_CONFIG names another default.",
    )(command)


def json_option(command: F) -> F:
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(command)


def log_options(default_level: str) -> Callable[[F], F]:
    """``--log-json`` and ``--log-level``."""

    def add(command: F) -> F:
        command = click.option("--log-json", is_flag=True, help="Logs as one JSON object a line.")(command)
        levels = click.Choice(list(logs.LEVELS))
        return click.option("--log-level", type=levels, default=default_level, show_default=True)(command)

    return add


def switch_options(command: F) -> F:
    """``--mode`` and every switch on its own."""
    fields = Switches.__struct_fields__
    choices = {
        "codec": ["capnp", "msgpack"],
        "consensus": ["hybrid", "raft", "pbft"],
        "coordination": ["merged", "separate"],
        "orders": ["parallel", "sequential"],
        "confirm": ["async", "blocking"],
        "dtw": ["lanes", "scalar"],
    }
    texts = {
        "codec": "Wire format.",
        "batch_max": "Messages per batch, 1 to 4096; 1 flushes each on its own.",
        "consensus": "Paths decisions take: by criticality, all the lane (crash faults only), all the spine.",
        "coordination": "Risk votes on the acknowledgements, or in a round of their own before.",
        "orders": "Release a frame's orders at once, or one after the other.",
        "confirm": "Start the next cycle before orders are confirmed, or wait.",
        "dtw": "Pattern search kernel.",
    }
    for name in reversed(fields):
        kind = click.Choice(choices[name]) if name in choices else click.INT
        option = f"--{name.replace('_', '-')}"
        command = click.option(option, name, type=kind, default=None, help=f"{texts[name]} Default: by mode.")(command)
    return click.option(
        "--mode", type=click.Choice(list(MODES)), default="optimized", show_default=True, help="Sets all switches."
    )(command)


def data_option(command: F) -> F:
    return click.option("--data", default="", help="Data set instead of the configured one; see `swarm data list`.")(
        command
    )


def transport_option(command: F) -> F:
    """``--transport``: the QUIC library."""
    text = "QUIC library, aioquic or qh3, or AGENT=NAME for one agent; may be repeated. Default: by the cluster file."
    return click.option("--transport", "transports", multiple=True, metavar="NAME", help=text)(command)


def network_option(command: F) -> F:
    """``--network``: the impairment of everything that an agent sends."""
    text = "Make the network worse: rtt=4ms,jitter=1ms,loss=0.1%,reorder=1%,bandwidth=100mbit. See `swarm network`."
    return click.option("--network", default="", metavar="SPEC", help=text, callback=_checked_network)(command)


def _checked_network(context: click.Context, parameter: click.Parameter, value: str) -> str:
    if value:
        parse_network(value)
    return value


def rate_option(hidden: bool = False) -> Callable[[F], F]:
    """``--rate``: the market's own clock."""
    text = "Bars a second that the market sends, in time or not. Default: the next when the trader is ready for it."
    kind = click.FloatRange(min=0, max=RATE_PER_S_MAX)
    return click.option(
        "--rate", "rate_per_s", type=kind, default=0.0, hidden=hidden, help=text, callback=_checked_rate
    )


def _checked_rate(context: click.Context, parameter: click.Parameter, value: float) -> float:
    """A range lets through what is not a number."""
    if math.isnan(value):
        raise click.BadParameter(f"{value} is no rate; give bars a second from 0 to {RATE_PER_S_MAX:,}")
    return value


def run_options(
    mode: str,
    switches: dict[str, Any],
    *,
    run_id: str = "",
    run_dir: Path | None = None,
    cycles: int = 0,
    data: str = "",
    rate_per_s: float = 0.0,
    bind_host: str = "",
    transports: tuple[str, ...] = (),
    network: str = "",
) -> RunOptions:
    """Options of a start, with the mode's switches and the single ones thrown over them."""
    thrown = switches_for(mode, **switches)
    return RunOptions(run_id, run_dir, cycles, mode, thrown, data, rate_per_s, bind_host, tuple(transports), network)


def as_arguments(options: RunOptions, config: Path, log_level: str) -> list[str]:
    """The command line that gives an agent's process these options."""
    arguments = ["--config", str(config), "--supervised", "--log-level", log_level, "--mode", options.mode]
    for name in Switches.__struct_fields__:
        arguments += [f"--{name.replace('_', '-')}", str(getattr(options.switches, name))]
    arguments += ["--run-id", options.run_id, "--cycles", str(options.cycles), "--rate", str(options.rate_per_s)]
    if options.run_dir is not None:
        arguments += ["--run-dir", str(options.run_dir)]
    for transport in options.transports:
        arguments += ["--transport", transport]
    if options.network:
        arguments += ["--network", options.network]
    if options.data:
        arguments += ["--data", options.data]
    return arguments
