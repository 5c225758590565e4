"""The benchmark as a whole: which parts in full, which of them quickly."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dtw.warmup import warmup
from profiling.bench.kernels import approximate, cases, ladder, memory
from profiling.bench.peers.client import Peers
from profiling.bench.result import Result


@dataclass(frozen=True, slots=True)
class Plan:
    """``budget_s``: about how long a side is timed in a block."""

    blocks: int
    budget_s: float
    everything: bool


FULL: Final = Plan(blocks=10, budget_s=0.2, everything=True)
QUICK_SHRINK: Final = 2
"""A quick run has this many times fewer rows in a batch."""
QUICK: Final = Plan(blocks=3, budget_s=0.05, everything=False)


def measure(plan: Plan, progress: Callable[[str], None]) -> Result:
    """Run the plan; ``progress`` gets a line per case."""
    result = Result("dtw")
    threads = len(os.sched_getaffinity(0))
    progress("compiling kernels")
    warmup(everything=True)
    with Peers() as peers:
        versions = peers.versions()
        for case in cases.claimed(peers, threads, shrink=1 if plan.everything else QUICK_SHRINK):
            progress(case.name)
            case.measure(result, peers, versions, plan.blocks, plan.budget_s, not plan.everything)
        if plan.everything:
            for case in cases.others(peers, threads):
                progress(case.name)
                case.measure(result, peers, versions, plan.blocks, plan.budget_s, quick=False)
            ladder.measure(result, plan.blocks, threads, progress)
            approximate.measure(result, peers, versions, progress)
            memory.measure(result, peers, versions, cases.remembered(peers, threads), progress)
    return result
