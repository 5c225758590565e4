"""``swarm data``: market data by package name and hash."""

from __future__ import annotations

import json
from pathlib import Path

import click
from rich.console import Console
from rich.table import Table

from agents.cli.console import show
from agents.cli.options import json_option
from agents.data import catalog
from agents.data.dataset import load_csv


@click.group("data")
def data() -> None:
    """Fetch and look at market data. Nothing of it is ever part of the repository.

    \b
    Example: swarm data fetch us-large-caps
    """


@data.command("list")
@json_option
def list_sources(as_json: bool) -> None:
    """Known data sets, where they come from and under which licence.

    \b
    Example: swarm data list
    """
    rows = [
        {"name": s.name, "package": f"{s.package}=={s.version}", "license": s.license, "description": s.description}
        for s in catalog.SOURCES.values()
    ]
    made = "made by the seeded generator; not market data"
    rows.append({"name": catalog.SYNTHETIC, "package": "", "license": "", "description": made})
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    table = Table(box=None)
    for column in rows[0]:
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    show(table)


@data.command("fetch")
@click.argument("name", default="us-large-caps")
@click.option("--dir", "directory", type=click.Path(path_type=Path), default=None, help="Instead of the user's cache.")
def fetch(name: str, directory: Path | None) -> None:
    """Fetch a data set unless it is there; its hash is checked.

    \b
    Example: swarm data fetch us-large-caps
    """
    console = Console(stderr=True)
    with console.status(f"fetching {name}"):
        path = catalog.fetch(name, directory or catalog.data_directory())
    click.echo(str(path))


@data.command("check")
@click.argument("path", type=click.Path(path_type=Path, dir_okay=False))
@json_option
def check(path: Path, as_json: bool) -> None:
    """Check a CSV file of your own: Date, then one close per symbol.

    \b
    Example: swarm data check prices.csv
    """
    found = load_csv(path, path.name)
    first, last = found.dates[0].isoformat(), found.dates[-1].isoformat()
    facts = {"name": found.name, "bars": found.bars, "symbols": len(found.symbols), "first": first, "last": last}
    facts["sha256"] = found.sha256
    click.echo(json.dumps(facts) if as_json else "\n".join(f"{key:8} {value}" for key, value in facts.items()))


COMMANDS = (data,)
