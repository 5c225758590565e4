"""Many seeds over many processes, and what they add up to."""

from __future__ import annotations

import gc
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from typing import Any, Final

from tests.sim.mutants import named
from tests.sim.run import Verdict, run_seed

SEEDS_PER_TASK: Final = 10
COUNTED: Final = ("events", "commits", "leaders", "elections", "reads", "operations", "undecided", "virtual_ns")


@dataclass
class Summary:
    """Adds up verdicts; of the failed ones it keeps all."""

    seeds: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    faults: Counter[str] = field(default_factory=Counter)
    happened: Counter[str] = field(default_factory=Counter)
    failures: list[Verdict] = field(default_factory=list)
    seconds: float = 0.0
    out_of_time: bool = False

    def add(self, verdict: Verdict) -> None:
        self.seeds += 1
        self.counts.update({name: getattr(verdict, name) for name in COUNTED})
        self.faults.update(verdict.faults)
        self.happened.update(verdict.happened)
        if verdict.failure:
            self.failures.append(verdict)

    def merge(self, other: Summary) -> None:
        self.seeds += other.seeds
        self.counts.update(other.counts)
        self.faults.update(other.faults)
        self.happened.update(other.happened)
        self.failures += other.failures

    @property
    def seeds_per_second(self) -> float:
        return self.seeds / self.seconds if self.seconds else 0.0

    def figures(self) -> dict[str, Any]:
        """Everything in plain types."""
        return {
            "seeds": self.seeds,
            "seconds": round(self.seconds, 2),
            "seeds_per_second": round(self.seeds_per_second, 1),
            "out_of_time": self.out_of_time,
            **{name: self.counts[name] for name in COUNTED},
            "faults": dict(sorted(self.faults.items())),
            "happened": dict(sorted(self.happened.items())),
            "failures": [
                {"seed": verdict.seed, "failure": verdict.failure, "replay": verdict.replay}
                for verdict in sorted(self.failures, key=lambda each: each.seed)
            ],
        }


def run_some(seeds: Sequence[int], mutant: str | None) -> Summary:
    """In one process. A run leaves many cycles behind and needs none of them collected before it ends."""
    summary = Summary()
    collects = gc.isenabled()
    gc.disable()
    try:
        for seed in seeds:
            summary.add(run_seed(seed) if mutant is None else named(mutant).run(seed))
    finally:
        gc.collect()
        if collects:
            gc.enable()
    return summary


def run_many(
    seeds: range, workers: int, mutant: str | None, seconds_max: float | None, told: Callable[[Summary], None]
) -> Summary:
    """All seeds, or as many as the time allows; ``told`` hears of the progress."""
    started = time.monotonic()
    whole = Summary()
    chunks = iter([seeds[start : start + SEEDS_PER_TASK] for start in range(0, len(seeds), SEEDS_PER_TASK)])
    # What was imported stays: no collection between seeds has to walk over it.
    with ProcessPoolExecutor(workers, initializer=gc.freeze) as pool:
        pending: set[Future[Summary]] = set()
        for part in _completed(pool, chunks, pending, workers, mutant):
            whole.merge(part)
            whole.seconds = time.monotonic() - started
            told(whole)
            if seconds_max is not None and whole.seconds > seconds_max and whole.seeds < len(seeds):
                whole.out_of_time = True
                pool.shutdown(cancel_futures=True)
                break
    return whole


def _completed(
    pool: ProcessPoolExecutor,
    chunks: Iterable[Sequence[int]],
    pending: set[Future[Summary]],
    workers: int,
    mutant: str | None,
) -> Iterable[Summary]:
    """Results as they come, with no more handed out than keeps everybody busy."""
    for chunk in chunks:
        pending.add(pool.submit(run_some, chunk, mutant))
        if len(pending) >= 2 * workers:
            yield from _next(pending)
    while pending:
        yield from _next(pending)


def _next(pending: set[Future[Summary]]) -> list[Summary]:
    done, _ = wait(pending, return_when=FIRST_COMPLETED)
    pending -= done
    return [future.result() for future in done]
