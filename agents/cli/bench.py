"""``swarm bench``: reproducible measurements, in the one JSON shape of ``docs/benchmarks/README.md``."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Table

from agents.cli.console import show
from agents.cli.options import json_option
from protocol.errors import UsageError

if TYPE_CHECKING:
    from profiling.bench.result import Result

CLAIM_BROKEN = 3


@click.group("bench")
def bench() -> None:
    """Measure, with peers or modes interleaved in one run.

    \b
    Example: swarm bench system --quick --json
    """


def _benchmark_options(command: Callable[..., Any]) -> Callable[..., Any]:
    options = (
        click.option("--quick", is_flag=True, help="Fewer and shorter runs: within a minute, same claims."),
        click.option("--check", is_flag=True, help="Exit 3 when a claim does not hold."),
        click.option(
            "--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also write JSON here."
        ),
        json_option,
    )
    for option in reversed(options):
        command = option(command)
    return command


_plots_option = click.option(
    "--plots", type=click.Path(path_type=Path, file_okay=False), default=None, help="Write SVG plots here."
)


@bench.command("system")
@_benchmark_options
def system(quick: bool, check: bool, out: Path | None, as_json: bool) -> int:
    """Mode optimized against mode baseline, whole and switch by switch, with real processes.

    \b
    Example: swarm bench system --json --out docs/benchmarks/system.json
    """
    from profiling.bench.system import FULL, QUICK, measure

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json)


@bench.command("dtw")
@_benchmark_options
@_plots_option
def dtw(quick: bool, check: bool, out: Path | None, as_json: bool, plots: Path | None) -> int:
    """The DTW kernels against other libraries, the machine's arithmetic, and themselves rung by rung.

    The others come with `make setup-bench`. In full it takes about a quarter of an hour.

    \b
    Example: swarm bench dtw --json --out docs/benchmarks/dtw.json --plots docs/benchmarks
    """
    from profiling.bench.kernels.measure import FULL, QUICK, measure
    from profiling.bench.kernels.plots import write_plots

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json, plots, write_plots)


@bench.command("transport")
@_benchmark_options
@_plots_option
def transport(quick: bool, check: bool, out: Path | None, as_json: bool, plots: Path | None) -> int:
    """Our wire against aioquic's and qh3's own streams, TCP with TLS, and bare UDP.

    Round trips, the cost of a message by batch, messages one way, votes under bulk. In full it takes about 20 minutes.

    \b
    Example: swarm bench transport --json --out docs/benchmarks/transport.json --plots docs/benchmarks
    """
    from profiling.bench.transport.measure import FULL, QUICK, measure
    from profiling.bench.transport.plots import write_plots

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json, plots, write_plots)


@bench.command("codec")
@_benchmark_options
def codec(quick: bool, check: bool, out: Path | None, as_json: bool) -> int:
    """Writing and reading orders, frames and votes: our wire form against MessagePack, msgspec, JSON and pycapnp.

    \b
    Example: swarm bench codec --quick
    """
    from profiling.bench.codec.measure import FULL, QUICK, measure

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json)


@bench.command("storage")
@_benchmark_options
@_plots_option
def storage(quick: bool, check: bool, out: Path | None, as_json: bool, plots: Path | None) -> int:
    """The agents' store against LMDB and a bare file: commits of 1 to 256 entries, loading, bytes on the disk.

    It writes into a folder of its own in the current directory, whose disk is the one that is measured.

    \b
    Example: swarm bench storage --json --out docs/benchmarks/storage.json --plots docs/benchmarks
    """
    from profiling.bench.storage.measure import FULL, QUICK, measure
    from profiling.bench.storage.plots import write_plots

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json, plots, write_plots)


@bench.command("consensus")
@click.option("--path", "path", type=click.Choice(["lane"]), default="lane", help="What orders: the lane is Raft.")
@_benchmark_options
@_plots_option
def consensus(path: str, quick: bool, check: bool, out: Path | None, as_json: bool, plots: Path | None) -> int:
    """Durable commits of the lane, with real processes, beside etcd and PySyncObj.

    Latency, throughput, processor time, failover, catching up, log length and number of nodes. The others come with
    `make setup-bench`. In full it takes about 20 minutes.

    \b
    Example: swarm bench consensus --path lane --json --out docs/benchmarks/lane.json --plots docs/benchmarks
    """
    from profiling.bench.lane.measure import FULL, QUICK, measure
    from profiling.bench.lane.plots import write_plots

    return _run(lambda progress: measure(QUICK if quick else FULL, progress), check, out, as_json, plots, write_plots)


def _run(
    measure: Callable[[Callable[[str], None]], Result],
    check: bool,
    out: Path | None,
    as_json: bool,
    plots: Path | None = None,
    write_plots: Callable[[dict[str, Any], Path], Any] | None = None,
) -> int:
    """Measure with a line of progress, write and show what was found; the exit status."""
    _check_outputs(out, plots)
    console = Console(stderr=True)
    with console.status("measuring") as status:
        found = measure(lambda label: status.update(f"measuring: {label}")).as_dict()
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    if plots is not None and write_plots is not None:
        write_plots(found, plots)
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(_table(found))
    broken = [claim["id"] for claim in found["claims"] if claim["holds"] is False]
    return CLAIM_BROKEN if check and broken else 0


def _check_outputs(out: Path | None, plots: Path | None) -> None:
    """Raises ``UsageError`` before minutes of measuring for what could not be written after them."""
    from profiling.bench.plots import plotting

    if out is not None and not os.access(out if out.exists() else out.parent, os.W_OK):
        raise UsageError(f"--out {out} cannot be written; name a file in a folder that exists and is yours")
    if plots is not None:
        plotting(plots)


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['benchmark']} · {found['commit']} · noise {found['noise']['verdict']}", box=None)
    table.add_column("case")
    table.add_column("against")
    for column in ("ours", "theirs", "unit", "ratio", "95 %"):
        table.add_column(column, justify="right")
    for row in found["rows"]:
        ratio = row["ratio"]
        interval = f"{ratio['low']:.2f} – {ratio['high']:.2f}"
        table.add_row(
            row["case"],
            row["peer"],
            f"{row['ours']:.2f}",
            f"{row['peer_value']:.2f}",
            row["unit"],
            f"{ratio['median']:.2f}",
            interval,
        )
    for claim in found["claims"]:
        verdict = {True: "holds", False: "does not hold", None: "no verdict"}[claim["holds"]]
        table.add_row(f"{claim['id']} {claim['goal']}", "", "", "", "", verdict, "")
    return table


COMMANDS = (bench,)
