"""Merge the rings of a run into one trace on one clock, and account for everything that is missing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiling.ring import RingContents, RingError, read_ring

TRACE_DTYPE: Final = np.dtype(
    [
        ("t0_ns", "i8"),
        ("t1_ns", "i8"),
        ("trace", "u8"),
        ("aux", "u8"),
        ("operation", "u2"),
        ("kind", "u1"),
        ("agent", "u2"),
        ("life", "u2"),
    ]
)
"""``agent`` indexes ``Trace.agents``; ``life`` numbers the lives of that agent from 0 in the order of their starts."""


@dataclass(frozen=True, slots=True)
class AgentLoss:
    """What became of one agent's records: ``written == kept + overwritten + torn + other_boot``."""

    written: int
    kept: int
    overwritten: int
    torn: int
    other_boot: int


@dataclass(frozen=True, slots=True)
class Trace:
    """All records of a run: ``records`` of ``TRACE_DTYPE``, ordered by start; ``agents``: the id behind each index."""

    records: npt.NDArray[np.void]
    agents: tuple[str, ...]
    loss: dict[str, AgentLoss]
    unreadable: tuple[RingError, ...]

    def loss_report(self) -> dict[str, Any]:
        """The loss as plain data: totals, the same per agent, and the files that could not be read."""
        names = ("written", "kept", "overwritten", "torn", "other_boot")
        per_agent = {agent: {name: getattr(loss, name) for name in names} for agent, loss in self.loss.items()}
        totals = {name: sum(loss[name] for loss in per_agent.values()) for name in names}
        unreadable = [{"path": str(error.path), "reason": error.reason} for error in self.unreadable]
        return {**totals, "agents": per_agent, "unreadable": unreadable}


def collect(run_dir: Path) -> Trace:
    """Merge every ``run_dir/<agent-id>/*.ring``; the directory's name is the agent's id.

    Times of different boots share no timeline. The boot that started a ring last is kept, records of others are counted
    as ``other_boot``. A file that is no ring, such as that of a process killed while creating it, is listed in
    ``unreadable``. Raises ``FileNotFoundError`` when there is no such run directory.
    """
    if not run_dir.is_dir():
        raise FileNotFoundError(f"no run directory at {run_dir}")
    rings: dict[str, list[RingContents]] = {}
    unreadable: list[RingError] = []
    for path in sorted(run_dir.glob("*/*.ring")):
        try:
            rings.setdefault(path.parent.name, []).append(read_ring(path))
        except RingError as error:
            unreadable.append(error)
    return merge(rings, unreadable)


def merge(rings: dict[str, list[RingContents]], unreadable: Iterable[RingError] = ()) -> Trace:
    """One trace from the rings of each agent id."""
    agents = tuple(sorted(rings))
    boot = _newest_boot(ring for lives in rings.values() for ring in lives)
    parts: list[npt.NDArray[np.void]] = []
    loss: dict[str, AgentLoss] = {}
    for index, agent in enumerate(agents):
        lives = sorted(rings[agent], key=lambda ring: ring.start_wall_ns)
        kept = [_relabel(ring.records, index, life) for life, ring in enumerate(lives) if ring.boot_hash == boot]
        parts += kept
        loss[agent] = AgentLoss(
            written=sum(ring.written for ring in lives),
            kept=sum(len(part) for part in kept),
            overwritten=sum(ring.lost for ring in lives),
            torn=sum(ring.torn for ring in lives),
            other_boot=sum(len(ring.records) for ring in lives if ring.boot_hash != boot),
        )
    records = np.concatenate(parts) if parts else np.empty(0, TRACE_DTYPE)
    return Trace(records[np.argsort(records["t0_ns"], kind="stable")], agents, loss, tuple(unreadable))


def _newest_boot(rings: Iterable[RingContents]) -> int:
    newest = max(rings, key=lambda ring: ring.start_wall_ns, default=None)
    return newest.boot_hash if newest is not None else 0


def _relabel(records: npt.NDArray[np.void], agent: int, life: int) -> npt.NDArray[np.void]:
    labelled = np.empty(len(records), TRACE_DTYPE)
    for name in ("t0_ns", "t1_ns", "trace", "aux", "operation", "kind"):
        labelled[name] = records[name]
    labelled["agent"] = agent
    labelled["life"] = life
    return labelled
