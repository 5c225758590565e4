"""Which seeded bugs are noticed, by whom, and how soon: `python -m tests.sim mutants`."""

from __future__ import annotations

import importlib
import importlib.util
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from tests.sim.mutants import MUTANTS
from tests.sim.seeded_bug import SeededBug

PAGE: Final = Path(__file__).parents[2] / "docs" / "mutation-score.md"
_DURABILITY: Final = "tests.sim.durability_bugs"


@dataclass(frozen=True)
class Score:
    """One bug's fate."""

    bug: SeededBug
    how: str | None
    seconds: float

    @property
    def seed(self) -> str:
        """The run that showed it; empty where a test did."""
        found = re.match(r"seed (\d+): ", self.how or "")
        return found[1] if found else ""

    @property
    def complaint(self) -> str:
        """What was noticed."""
        words = (self.how or "MISSED").removeprefix(f"seed {self.seed}: ").removeprefix("AssertionError: ")
        return re.sub(r"/tmp/\S*/", "", words).replace("\n", " ")

    def figures(self) -> dict[str, Any]:
        return {
            "number": self.bug.number,
            "title": self.bug.title,
            "where": self.bug.where,
            "caught_by": self.bug.caught_by,
            "caught": self.how is not None,
            "seed": self.seed,
            "noticed": self.complaint,
            "seconds": round(self.seconds, 2),
        }


def catalogue() -> list[SeededBug]:
    """All seeded bugs, by number: the lane's, and the store's where they are there."""
    bugs = [mutant.as_seeded_bug() for mutant in MUTANTS]
    if importlib.util.find_spec(_DURABILITY) is not None:
        bugs += importlib.import_module(_DURABILITY).DURABILITY_BUGS
    return sorted(bugs, key=lambda bug: bug.number)


def score(bug: SeededBug) -> Score:
    """Switch it on and see."""
    started = time.perf_counter()
    how = bug.found()
    return Score(bug, how, time.perf_counter() - started)


def report(as_json: bool, write: bool) -> int:
    """Print the table, or write the page. The exit code: 1 when a bug is missed."""
    scores = [score(bug) for bug in catalogue()]
    if write:
        PAGE.write_text(page(scores))
    if as_json:
        click.echo(json.dumps([each.figures() for each in scores]))
    else:
        table = Table("bug", "what", "caught by", "seed", "noticed as", "seconds")
        for each in scores:
            bug = each.bug
            table.add_row(str(bug.number), bug.title, bug.caught_by, each.seed, each.complaint, f"{each.seconds:.2f}")
        Console().print(table)
    return 0 if all(each.how for each in scores) else 1


def page(scores: list[Score]) -> str:
    """docs/mutation-score.md."""
    caught = sum(each.how is not None for each in scores)
    rows = [
        f"| {each.bug.number} | {each.bug.where} | {each.bug.title} | {each.bug.caught_by} | {each.seed} | "
        f"{each.complaint[:90].replace('|', '/')} | {each.seconds:.1f} |"
        for each in scores
    ]
    return "\n".join([_HEAD.format(caught=caught, all=len(scores)), *rows, ""])


_HEAD: Final = """\
# Mutation score

{caught} of {all} seeded bugs are caught. Each is the real machine or store with one rule broken. The catcher starts
with the seed that is known to show the bug and searches on when it no longer does; where no run is likely to come into
the situation, a test by hand does. The default suite checks that every bug is caught and that the sound machine passes
the same seeds. Numbers from 101 on stand beside the catalogue. `python -m tests.sim mutants --write` writes this page.

| bug | where | what is broken | caught by | seed | noticed as | s |
|---|---|---|---|---|---|---|"""
