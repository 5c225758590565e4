"""A campaign that goes on where it was left: what all seeds so far add up to, in one file that is always whole.

A million seeds take hours, and need not be run in one go. The figures hold for one machine in one simulated world:
whoever changes either begins anew.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from protocol.errors import UsageError
from tests.sim.campaign import COUNTED, Summary

ROOT: Final = Path(__file__).resolve().parents[2]
OF_THE_MACHINE: Final = (
    "consensus/machine.py", "consensus/quorum.py", "consensus/raft/*.py", "consensus/storage_log.py",
    "consensus/storage_rows.py",
)  # fmt: skip
OF_THE_WORLD: Final = (
    "clients", "cluster", "faults", "host", "judge", "plan", "run", "service", "spoiled", "watch", "world",
)  # fmt: skip
"""Modules of the simulator that decide what happens in a seed."""
SAVED_EVERY: Final = 4000
"""Seeds."""


def sources_digest() -> str:
    """Of all that decides what a seed comes to."""
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.relative_to(ROOT).as_posix().encode() + b"\0" + source.read_bytes())
    return digest.hexdigest()


def sources() -> list[Path]:
    """The files."""
    patterns = (*OF_THE_MACHINE, *(f"tests/sim/{name}.py" for name in OF_THE_WORLD))
    found = [sorted(ROOT.glob(pattern)) for pattern in patterns]
    assert all(found), "the sources are not where this module takes them to be"
    return [source for each in found for source in each]


@dataclass
class Ledger:
    """Invariant: ``figures`` are those of the seeds 0 to ``seeds`` - 1, each counted once."""

    path: Path
    sources: str = field(default_factory=sources_digest)
    figures: dict[str, Any] = field(default_factory=lambda: Summary().figures())

    @classmethod
    def open(cls, path: Path) -> Ledger:
        """What the file holds, or an empty one. Raises ``UsageError`` for a file of something else."""
        ledger = cls(path)
        if not path.exists():
            return ledger
        try:
            kept = json.loads(path.read_text())
            sources, figures = kept.pop("sources"), kept
            if set(figures) != set(ledger.figures):
                raise ValueError("other figures")
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} holds no campaign ({error}): name another file") from None
        if sources != ledger.sources:
            raise UsageError(f"{path} is of another machine or another world than this: begin a new file")
        ledger.figures = figures
        return ledger

    @property
    def seeds(self) -> int:
        return int(self.figures["seeds"])

    def add(self, summary: Summary) -> None:
        """The seeds that follow, and write it down."""
        before, more = self.figures, summary.figures()
        self.figures = {name: before[name] + more[name] for name in ("seeds", *COUNTED)}
        seconds = before["seconds"] + more["seconds"]
        self.figures |= {
            "seconds": round(seconds, 2),
            "seeds_per_second": round(self.seeds / seconds, 1) if seconds else 0.0,
            "out_of_time": False,
            "failures": before["failures"] + more["failures"],
        }
        for name in ("faults", "happened"):
            both = sorted(before[name] | more[name])
            self.figures[name] = {what: before[name].get(what, 0) + more[name].get(what, 0) for what in both}
        self.figures = {name: self.figures[name] for name in Summary().figures()}
        draft = self.path.with_name(self.path.name + ".new")
        draft.write_text(json.dumps({"sources": self.sources, **self.figures}, indent=1) + "\n")
        draft.replace(self.path)
