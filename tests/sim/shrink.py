"""The smallest part of a failing run that still fails: delta debugging (Zeller and Hildebrandt, 2002) of its faults."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.sim.plan import MILLISECOND_NS, Plan
from tests.sim.run import Verdict

Runs = Callable[[Plan], Verdict]


@dataclass(frozen=True)
class Shrunk:
    """``kept`` are places in the seed's own list of faults."""

    plan: Plan
    kept: tuple[int, ...]
    verdict: Verdict
    runs: int

    @property
    def replay(self) -> str:
        kept = ",".join(map(str, self.kept)) or "none"
        return f"{self.verdict.replay} --keep {kept} --end-ms {self.plan.end_ns // MILLISECOND_NS}"


class _Shrinker:
    def __init__(self, plan: Plan, runs: Runs) -> None:
        self.plan = plan
        self.kept = tuple(range(len(plan.faults)))
        self.count = 0
        self._whole = plan
        self._runs = runs
        self.verdict = self._run(plan)

    def _run(self, plan: Plan) -> Verdict:
        self.count += 1
        return self._runs(plan)

    def attempt(self, kept: tuple[int, ...], end_ns: int) -> bool:
        """Whether it still fails with these faults alone and an end this early."""
        plan = self._whole.with_only(kept).ending_at(end_ns)
        verdict = self._run(plan)
        if verdict.failure:
            self.plan, self.kept, self.verdict = plan, kept, verdict
        return bool(verdict.failure)

    def end_early(self) -> None:
        """Nothing is needed after the failure, and perhaps not all of the time before it."""
        failed_ns = -(-self.verdict.failed_at_ns // MILLISECOND_NS) * MILLISECOND_NS
        end_ns = min(self.plan.end_ns, failed_ns)
        self.attempt(tuple(place for place in self.kept if self._whole.faults[place].at_ns <= end_ns), end_ns)

    def fewer_faults(self) -> None:
        """ddmin: leave out ever smaller parts until none can be left out."""
        parts = 2
        while self.kept:
            size = -(-len(self.kept) // parts)
            starts = range(0, len(self.kept), size)
            without = [self.kept[:start] + self.kept[start + size :] for start in starts]
            if any(self.attempt(rest, self.plan.end_ns) for rest in without):
                parts = max(parts - 1, 2)
            elif size == 1:
                return
            else:
                parts = min(2 * parts, len(self.kept))


def shrink(plan: Plan, runs: Runs) -> Shrunk:
    """``plan`` must fail under ``runs``. Cuts its end, then its faults, then its end again."""
    shrinker = _Shrinker(plan, runs)
    assert shrinker.verdict.failure, "there is nothing to shrink in a run that passes"
    shrinker.end_early()
    shrinker.fewer_faults()
    shrinker.end_early()
    return Shrunk(shrinker.plan, shrinker.kept, shrinker.verdict, shrinker.count)
