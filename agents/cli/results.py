"""``swarm report`` and ``swarm compare``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from agents.cli.console import show
from agents.cli.options import json_option
from agents.run_report import read_report
from profiling.compare import compare_reports
from profiling.render import comparison_view, report_view
from profiling.report import read_samples
from profiling.svg import stage_bar_svg
from protocol.errors import RunFailure

runs_option = click.option(
    "--runs",
    "runs_dir",
    type=click.Path(path_type=Path),
    default=Path("runs"),
    show_default=True,
    help="Where runs lie.",
)


@click.command("report")
@click.argument("run", default="latest")
@runs_option
@click.option(
    "--svg", type=click.Path(path_type=Path, dir_okay=False), default=None, help="Also draw the stages into this file."
)
@json_option
def report(run: str, runs_dir: Path, svg: Path | None, as_json: bool) -> None:
    """Print a run's report: stages, decisions, orders, profit and loss.

    \b
    Example: swarm report latest --json
    """
    _, found = read_report(runs_dir, run)
    if svg is not None:
        svg.write_text(stage_bar_svg(found["stages"], f"Where a cycle's time goes, mode {found['run']['mode']}"))
    if as_json:
        click.echo(json.dumps(found))
    else:
        show(report_view(found))


@click.command("compare")
@click.argument("run_a")
@click.argument("run_b")
@runs_option
@json_option
def compare(run_a: str, run_b: str, runs_dir: Path, as_json: bool) -> None:
    """Both runs' stage tables side by side, with ratios A / B and their 95 % intervals.

    \b
    Example: swarm compare 20261123-120000-baseline latest
    """
    dir_a, report_a = read_report(runs_dir, run_a)
    dir_b, report_b = read_report(runs_dir, run_b)
    try:
        samples = read_samples(dir_a), read_samples(dir_b)
    except FileNotFoundError:
        comparison = compare_reports(report_a, report_b)
    except ValueError as error:
        raise RunFailure(f"cycle samples cannot be read: {error}; run again to get new ones") from None
    else:
        comparison = compare_reports(report_a, report_b, a_samples=samples[0], b_samples=samples[1])
    if as_json:
        click.echo(json.dumps(comparison))
    else:
        show(comparison_view(comparison))


COMMANDS = (report, compare)
