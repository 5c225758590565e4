"""``swarm pattern``: what the analogue forecasts are worth."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from agents.cli.console import show
from agents.cli.options import json_option
from agents.config import PatternSection, VenueSection
from agents.data import catalog
from agents.data.dataset import Dataset, load_csv
from protocol.errors import UsageError

if TYPE_CHECKING:
    from agents.evaluation.evaluation import Evaluation, Plan

DEFAULTS: Final = PatternSection()
COST_BPS: Final = 2 * (VenueSection().half_spread_bps + VenueSection().fee_bps)
"""A round trip at the paper venue: spread and fee, twice."""
COST_BPS_MAX: Final = 10_000.0
COUNT_MAX: Final = 2**31 - 1
SEED_MAX: Final = 2**63 - 1


@click.group("pattern")
def pattern() -> None:
    """Judge the pattern search.

    \b
    Example: swarm pattern evaluate
    """


def _pattern_options(command: Callable[..., Any]) -> Callable[..., Any]:
    texts = {
        "window": "Samples in a window, 8 to 1024.",
        "band": "Samples that warping may shift by, less than the window; 0 is Euclidean.",
        "neighbours": "Analogues per forecast, 1 to 64.",
        "horizon": "Bars that a forecast looks ahead, 1 to 256.",
        "exclusion": "Bars between the starts of two analogues, at least.",
    }
    for name in reversed(texts):
        default = getattr(DEFAULTS, name)
        command = click.option(f"--{name}", default=default, show_default=True, help=texts[name])(command)
    return command


@pattern.command("evaluate")
@click.option("--data", default="us-large-caps", show_default=True, help="A name of `swarm data list`, or a CSV file.")
@click.option("--symbol", "symbols", multiple=True, help="Only this symbol; may be repeated. Default: all.")
@_pattern_options
@click.option("--step", type=int, default=None, help="Forecast at every N-th bar. Default: the horizon.")
@click.option("--last", type=int, default=None, help="Only the last N bars that have an outcome. Default: all.")
@click.option("--cost-bps", default=COST_BPS, show_default=True, help="Cost of a round trip in basis points.")
@click.option("--seed", default=7, show_default=True, help="Of the resamples, and of `--data synthetic`.")
@click.option("--threads", default=1, show_default=True, help="Threads that search; the result is the same.")
@json_option
def evaluate(
    data: str,
    symbols: tuple[str, ...],
    step: int | None,
    last: int | None,
    cost_bps: float,
    seed: int,
    threads: int,
    as_json: bool,
    **parameters: int,
) -> None:
    """How well the trader's analogue forecasts do on a data set, beside what no forecast is needed for.

    Walks through history with the very search that trades, past only. Hit rate against the majority side, rank
    correlation, returns after costs and DTW against Euclidean neighbours, each with a 95 % interval from resampled
    blocks of dates. The verdict says no more than the intervals do.

    \b
    Example: swarm pattern evaluate --symbol AAPL --symbol XOM --last 2000
    """
    plan = _plan(_section(parameters), step, last, cost_bps, seed)
    _count("--threads", threads)
    dataset = _load(data, seed)
    found, seconds = _evaluate(dataset, symbols, plan, threads)
    if as_json:
        from agents.evaluation.evaluation import as_dict

        stamp = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "threads": threads,
        }
        click.echo(json.dumps(as_dict(found) | stamp))
    else:
        from agents.cli.pattern_view import evaluation_view

        show(evaluation_view(found))


def _section(parameters: dict[str, int]) -> PatternSection:
    """The parameters within the ranges of ``cluster.toml``."""
    for name, value in parameters.items():
        try:
            msgspec.convert({name: value}, PatternSection)
        except msgspec.ValidationError as error:
            reason = str(error).partition(" - at")[0].lower()
            raise UsageError(f"--{name} {value}: {reason}; see `swarm pattern evaluate --help`") from None
    section = msgspec.convert(parameters, PatternSection)
    if section.band >= section.window:
        raise UsageError(
            f"--band {section.band}: warping ends within the window of {section.window} samples; "
            f"choose at most {section.window - 1}"
        )
    return section


def _plan(section: PatternSection, step: int | None, last: int | None, cost_bps: float, seed: int) -> Plan:
    from agents.evaluation.evaluation import Plan

    if not (math.isfinite(cost_bps) and 0 <= cost_bps <= COST_BPS_MAX):
        raise UsageError(
            f"--cost-bps {cost_bps:g}: a cost lies between 0 and {COST_BPS_MAX:,.0f} basis points; give one"
        )
    if not 0 <= seed <= SEED_MAX:
        raise UsageError(f"--seed {seed}: seeds are whole numbers from 0 to {SEED_MAX}; choose one of them")
    every = section.horizon if step is None else _count("--step", step)
    return Plan(section, every, None if last is None else _count("--last", last), cost_bps, seed)


def _count(option: str, value: int) -> int:
    if not 1 <= value <= COUNT_MAX:
        raise UsageError(f"{option} {value}: must lie between 1 and {COUNT_MAX}; correct it or leave it out")
    return value


def _load(data: str, seed: int) -> Dataset:
    """A data set by name, or a CSV file by its path."""
    path = Path(data)
    if data in catalog.SOURCES or data == catalog.SYNTHETIC:
        return catalog.load(data, catalog.data_directory(), seed=seed)
    if not path.is_file():
        names = ", ".join([*catalog.SOURCES, catalog.SYNTHETIC])
        raise UsageError(
            f"--data {data}: no data set of that name and no such file; choose {names}, or give a CSV file"
        )
    return load_csv(path, path.name)


def _evaluate(dataset: Dataset, symbols: tuple[str, ...], plan: Plan, threads: int) -> tuple[Evaluation, float]:
    """The evaluation and how many seconds it took, with a progress bar on standard error."""
    # The kernels are imported by those who need them: `swarm --help` must not wait for a compiler.
    from agents.evaluation.evaluation import evaluate
    from agents.evaluation.walk import only, query_bars
    from agents.warm import warm_with_progress

    chosen = only(dataset, symbols)
    dates = len(query_bars(chosen, plan.section, plan.step, plan.last))
    console = Console(stderr=True)
    warm_with_progress(console)
    began = time.perf_counter()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(f"searching {dataset.name}", total=2 * dates)
        found = evaluate(chosen, plan, threads, lambda bars: progress.advance(task, bars))
    return found, time.perf_counter() - began


COMMANDS = (pattern,)
