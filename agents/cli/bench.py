"""``swarm bench``: reproducible measurements, in the one JSON shape of ``docs/benchmarks/README.md``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from agents.cli.console import show
from agents.cli.options import json_option

CLAIM_BROKEN = 3


@click.group("bench")
def bench() -> None:
    """Measure, with peers or modes interleaved in one run.

    \b
    Example: swarm bench system --quick --json
    """


@bench.command("system")
@click.option("--quick", is_flag=True, help="Fewer and shorter runs: within a minute, same claims.")
@click.option("--check", is_flag=True, help="Exit 3 when a claim does not hold.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also write the JSON here.")
@json_option
def system(quick: bool, check: bool, out: Path | None, as_json: bool) -> int:
    """Mode optimized against mode baseline, whole and switch by switch, with real processes.

    \b
    Example: swarm bench system --json --out docs/benchmarks/system.json
    """
    from profiling.bench.system import FULL, QUICK, measure

    console = Console(stderr=True)
    with console.status("measuring") as status:
        found = measure(QUICK if quick else FULL, lambda label: status.update(f"measuring: {label}")).as_dict()
    if out is not None:
        out.write_text(json.dumps(found, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(_table(found))
    broken = [claim["id"] for claim in found["claims"] if claim["holds"] is False]
    return CLAIM_BROKEN if check and broken else 0


def _table(found: dict[str, Any]) -> Table:
    table = Table(title=f"{found['benchmark']} · {found['commit']} · noise {found['noise']['verdict']}", box=None)
    table.add_column("case")
    for column in ("ours", "peer", "unit", "ratio", "95 %"):
        table.add_column(column, justify="right")
    for row in found["rows"]:
        ratio = row["ratio"]
        interval = f"{ratio['low']:.2f} – {ratio['high']:.2f}"
        table.add_row(
            row["case"],
            f"{row['ours']:.2f}",
            f"{row['peer_value']:.2f}",
            row["unit"],
            f"{ratio['median']:.2f}",
            interval,
        )
    for claim in found["claims"]:
        verdict = {True: "holds", False: "does not hold", None: "no verdict"}[claim["holds"]]
        table.add_row(f"{claim['id']} {claim['goal']}", "", "", "", verdict, "")
    return table


COMMANDS = (bench,)
