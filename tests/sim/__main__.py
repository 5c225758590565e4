"""`python -m tests.sim`: run seeds, replay one, shrink one, score the seeded bugs. Exit codes: 0 all is well, 1 a seed
failed or a bug was missed, 2 the input was wrong, 130 interrupted."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from protocol import native
from protocol.errors import UsageError
from tests.sim import mutation_score
from tests.sim.campaign import COUNTED, Summary, run_many
from tests.sim.ledger import SAVED_EVERY, Ledger
from tests.sim.mutants import MUTANTS, named
from tests.sim.plan import MILLISECOND_NS, Plan, plan_of
from tests.sim.run import Verdict, run_plan
from tests.sim.shrink import shrink

SHOWN_MAX: Final = 5


class SeedRange(click.ParamType):
    """``A..B``, both included, or how many."""

    name = "A..B|COUNT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int | None, int]:
        """(first, count); the first is None where only a count is given."""
        match = re.fullmatch(r"(?:(\d+)\.\.)?(\d+)", value)
        if match is None:
            self.fail(f"{value!r} is neither a range like 0..99 nor a count like 100", param, ctx)
        first, last = match[1], int(match[2])
        count = last if first is None else last - int(first) + 1
        if count < 1:
            self.fail(f"{value!r} holds no seed", param, ctx)
        return (None if first is None else int(first)), count


class Places(click.ParamType):
    """Places in a list, with commas between them."""

    name = "I,J,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if value != "none" and not re.fullmatch(r"\d+(,\d+)*", value):
            self.fail(f"{value!r} is no list of places like 0,3,4, nor the word none", param, ctx)
        return () if value == "none" else tuple(map(int, value.split(",")))


def _known_mutant(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    if value is not None and not any(value in (str(each.number), each.name) for each in MUTANTS):
        raise click.BadParameter(f"no seeded bug {value!r}; `python -m tests.sim mutants` lists them", ctx, param)
    if value is not None:
        _go_on_from_source()
    return value


def _go_on_from_source() -> None:
    """A seeded bug replaces a part of the machine, which its compiled form does not allow: begin again without that."""
    if not native.in_use():
        return
    if os.environ.get(native.VARIABLE) == "1":
        raise click.UsageError(f"seeded bugs run from source only, and {native.VARIABLE}=1 forbids it: leave it out")
    os.execve(sys.executable, [sys.executable, "-m", "tests.sim", *sys.argv[1:]], {**os.environ, native.VARIABLE: "0"})


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--seed", type=click.IntRange(min=0), help="Run this one.")
@click.option("--trace", is_flag=True, help="With --seed: print everything that happened.")
@click.option("--shrink", "shrinks", is_flag=True, help="With --seed: find the smallest part that still fails.")
@click.option("--keep", type=Places(), help="With --seed: only these of its faults, as --shrink prints them.")
@click.option("--end-ms", type=click.IntRange(min=0), help="With --seed: end the bad times here.")
@click.option("--seeds", type=SeedRange(), help="Run many.")
@click.option("--first", type=click.IntRange(min=0), default=None, help="With a count: where to begin (0).")
@click.option("--workers", type=click.IntRange(min=1), default=None, help="With --seeds: processes (one a core).")
@click.option("--seconds-max", type=click.FloatRange(min=0), help="With --seeds: fail if that is not enough time.")
@click.option(
    "--into", type=click.Path(dir_okay=False, path_type=Path), help="With a count: go on where this file ends."
)
@click.option("--mutant", callback=_known_mutant, help="Switch a seeded bug on, by number or name.")
@click.option("--json", "as_json", is_flag=True, help="Print figures as JSON.")
@click.pass_context
def cli(
    ctx: click.Context,
    seed: int | None,
    trace: bool,
    shrinks: bool,
    keep: tuple[int, ...] | None,
    end_ms: int | None,
    seeds: tuple[int | None, int] | None,
    first: int | None,
    workers: int | None,
    seconds_max: float | None,
    into: Path | None,
    mutant: str | None,
    as_json: bool,
) -> int:
    """The Raft lane in a hostile world: real machines, and everything else simulated from one seed.

    \b
    Example:
      python -m tests.sim --seeds 1000              1000 seeds on all cores
      python -m tests.sim --seeds 1000000 --into FILE   a million; may be interrupted and called again
      python -m tests.sim --seed 17 --trace         one of them, step by step
      python -m tests.sim --seed 4 --mutant 5 --shrink
      python -m tests.sim mutants                   which seeded bugs are noticed, and by whom
    """
    if ctx.invoked_subcommand is not None:
        return 0
    if (seed is None) == (seeds is None):
        raise click.UsageError("say either --seed N or --seeds A..B; --help has examples")
    if seed is not None:
        if any(option is not None for option in (first, workers, seconds_max, into)):
            raise click.UsageError("--first, --workers, --seconds-max and --into go with --seeds")
        return _one(_plan(seed, keep, end_ms), mutant, trace, shrinks, as_json)
    assert seeds is not None
    if trace or shrinks or keep is not None or end_ms is not None:
        raise click.UsageError("--trace, --shrink, --keep and --end-ms go with --seed")
    start, count = seeds
    if start is not None and first is not None:
        raise click.UsageError("--first goes with a count, not with a range")
    if into is not None:
        if start is not None or first is not None or mutant is not None:
            raise click.UsageError("--into counts from seed 0, without --first, a range or --mutant")
        return _into(Ledger.open(into), count, workers or os.cpu_count() or 1, seconds_max, as_json)
    begin = start if start is not None else first or 0
    return _many(range(begin, begin + count), workers or os.cpu_count() or 1, mutant, seconds_max, as_json)


@cli.command("mutants")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@click.option("--write", is_flag=True, help="Write docs/mutation-score.md.")
def mutants_command(as_json: bool, write: bool) -> int:
    """Switch every seeded bug on in turn, and tell how it was noticed."""
    _go_on_from_source()
    return mutation_score.report(as_json, write)


def _plan(seed: int, keep: tuple[int, ...] | None, end_ms: int | None) -> Plan:
    plan = plan_of(seed)
    if keep is not None:
        if any(place >= len(plan.faults) for place in keep):
            raise click.UsageError(f"--keep: seed {seed} has {len(plan.faults)} faults, counted from 0")
        plan = plan.with_only(keep)
    return plan if end_ms is None else plan.ending_at(end_ms * MILLISECOND_NS)


def _run(plan: Plan, mutant: str | None, trace: bool) -> Verdict:
    if mutant is None:
        return run_plan(plan, trace=trace)
    with named(mutant).switched_on() as machine:
        return run_plan(plan, machine, trace)


def _one(plan: Plan, mutant: str | None, trace: bool, shrinks: bool, as_json: bool) -> int:
    verdict = _run(plan, mutant, trace)
    with_mutant = f" --mutant {mutant}" if mutant else ""
    for line in verdict.trace:
        click.echo(line)
    if as_json:
        click.echo(json.dumps(_figures(verdict)))
    else:
        click.echo(_describe(verdict))
    if not verdict.failure:
        return 0
    click.echo(f"rerun: {verdict.replay}{with_mutant}", err=True)
    if shrinks:
        small = shrink(plan, lambda part: _run(part, mutant, False))
        click.echo(f"\n{len(small.kept)} of {len(plan.faults)} faults are enough ({small.runs} runs):")
        for fault in small.plan.faults:
            click.echo(f"  {fault}")
        click.echo(f"{small.verdict.failure}\nrerun: {small.replay}{with_mutant} --trace")
    return 1


def _figures(verdict: Verdict) -> dict[str, Any]:
    counted = {name: getattr(verdict, name) for name in COUNTED}
    return {
        "seed": verdict.seed,
        "failure": verdict.failure,
        **counted,
        "faults": verdict.faults,
        "happened": verdict.happened,
    }


def _describe(verdict: Verdict) -> str:
    faults = ", ".join(f"{count} {verb}" for verb, count in sorted(verdict.faults.items())) or "none"
    happened = ", ".join(f"{count} {what}" for what, count in sorted(verdict.happened.items())) or "nothing"
    state = f"FAILED: {verdict.failure}" if verdict.failure else "safe, and live in the end"
    return (
        f"seed {verdict.seed}: {state}\n"
        f"  {verdict.events} events in {verdict.virtual_ns / MILLISECOND_NS:.0f} ms, {verdict.commits} commits, "
        f"{verdict.leaders} leaders, {verdict.elections} elections, {verdict.reads} reads, "
        f"{verdict.operations} client operations\n"
        f"  faults: {faults}\n"
        f"  came to: {happened}"
    )


def _many(seeds: range, workers: int, mutant: str | None, seconds_max: float | None, as_json: bool) -> int:
    console = Console(stderr=True)
    columns = (TextColumn("seeds"), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("seeds", total=len(seeds), rate="")

        def told(summary: Summary) -> None:
            failed = f", {len(summary.failures)} failed" if summary.failures else ""
            progress.update(task, completed=summary.seeds, rate=f"{summary.seeds_per_second:.0f}/s{failed}")

        summary = run_many(seeds, workers, mutant, seconds_max, told)
    if as_json:
        click.echo(json.dumps(summary.figures()))
    else:
        Console().print(_table(summary))
    with_mutant = f" --mutant {mutant}" if mutant else ""
    for verdict in sorted(summary.failures, key=lambda each: each.seed)[:SHOWN_MAX]:
        click.echo(f"seed {verdict.seed}: {verdict.failure}\n  rerun: {verdict.replay}{with_mutant}", err=True)
    if summary.out_of_time:
        click.echo(f"out of time: {summary.seeds} of {len(seeds)} seeds in {summary.seconds:.0f} s", err=True)
    return 1 if summary.failures or summary.out_of_time else 0


def _into(ledger: Ledger, count: int, workers: int, seconds_max: float | None, as_json: bool) -> int:
    """Up to ``count`` seeds in all, or as far as the time allows; what is done is kept."""
    console = Console(stderr=True)
    columns = (TextColumn("seeds"), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"), TimeRemainingColumn())
    began = time.monotonic()
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("seeds", total=count, completed=ledger.seeds, rate="")
        while ledger.seeds < count and (seconds_max is None or time.monotonic() - began < seconds_max):
            some = range(ledger.seeds, min(ledger.seeds + SAVED_EVERY, count))
            summary = run_many(some, workers, None, None, lambda _: None)
            ledger.add(summary)
            progress.update(task, completed=ledger.seeds, rate=f"{summary.seeds_per_second:.0f}/s")
    failures = ledger.figures["failures"]
    click.echo(
        json.dumps(ledger.figures) if as_json else f"{ledger.seeds} seeds, {len(failures)} failed: {ledger.path}"
    )
    for each in failures[:SHOWN_MAX]:
        click.echo(f"seed {each['seed']}: {each['failure']}\n  rerun: {each['replay']}", err=True)
    return 1 if failures else 0


def _table(summary: Summary) -> Table:
    table = Table("what", "count", "a seed", title=f"{summary.seeds} seeds, {len(summary.failures)} failed")
    table.add_row("seconds", f"{summary.seconds:.1f}", f"{summary.seeds_per_second:.1f} seeds/s")
    for name in COUNTED[:-1]:
        table.add_row(name, str(summary.counts[name]), f"{summary.counts[name] / summary.seeds:.1f}")
    virtual_ms = summary.counts["virtual_ns"] / MILLISECOND_NS
    table.add_row("virtual time", f"{virtual_ms / 1000:.0f} s", f"{virtual_ms / summary.seeds:.0f} ms")
    for verb, count in sorted(summary.faults.items()):
        table.add_row(f"fault: {verb}", str(count), f"{count / summary.seeds:.2f}")
    for what, count in sorted(summary.happened.items()):
        table.add_row(f"came to: {what}", str(count), f"{count / summary.seeds:.2f}")
    return table


def main() -> None:
    """Errors of the user are one line, never a traceback."""
    try:
        result = cli.main(prog_name="python -m tests.sim", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        sys.exit(130)
    except (click.ClickException, UsageError) as error:
        said = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"error: {said}", err=True)
        sys.exit(2)
    sys.exit(result if isinstance(result, int) else 0)


if __name__ == "__main__":
    main()
