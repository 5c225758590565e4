"""``swarm bench codec``: writing, reading and both, ours and the others' in turn, in blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from profiling.bench.codec.cases import Case, cases
from profiling.bench.codec.peers import Way
from profiling.bench.result import Ratio, Result, at_least, paired_ratio, variation
from protocol.errors import RunFailure


@dataclass(frozen=True, slots=True)
class Plan:
    """``slice_s``: how long one side is timed in a block, for writing and for reading."""

    blocks: int
    slice_s: float


FULL: Final = Plan(blocks=20, slice_s=0.05)
QUICK: Final = Plan(blocks=10, slice_s=0.02)
TURNS: Final = 5
"""A slice is timed in so many parts, of which the fastest counts: what interrupts a part is not the codec's."""
MAPS: Final = "MessagePack dicts"


WHY_NOT: Final = (
    "our side is some ten Python calls a list, whatever its length, and the checks of every pointer; MessagePack's C "
    "needs only a few times that for twenty maps"
)
"""Said of a claim that does not hold."""


@dataclass(slots=True)
class _Side:
    way: Way
    data: bytes
    calls: tuple[int, int]
    """Writes and reads in a part."""
    write_s: list[float]
    read_s: list[float]

    @property
    def both_s(self) -> list[float]:
        return [write + read for write, read in zip(self.write_s, self.read_s, strict=True)]


def measure(plan: Plan, progress: Callable[[str], None]) -> Result:
    """Run the plan; ``progress`` gets a line per case. Raises RunFailure when a way loses some of the content."""
    result = Result("codec")
    for case in cases():
        progress(case.name)
        _measure_case(result, case, plan)
    return result


def check(case: Case) -> None:
    """Every way gives back the content, bytes and numbers alike. Raises RunFailure."""
    for way in (case.own, *case.peers):
        if way.plain(way.read(way.write(way.held))) != case.content:
            raise RunFailure(f"{case.name}: {way.name} does not give back what was written")


def _measure_case(result: Result, case: Case, plan: Plan) -> None:
    check(case)
    sides = [_side(way, plan.slice_s) for way in (case.own, *case.peers)]
    for _ in range(plan.blocks):
        for side in sides:
            side.write_s.append(_per_call(side.way.write, side.way.held, side.calls[0]))
            side.read_s.append(_per_call(side.way.read, side.data, side.calls[1]))
    own, *others = sides
    if case.claim is not None:
        result.variations.append(variation(own.both_s))
    for other in others:
        for what in ("write", "read", "both"):
            ours, theirs = getattr(own, f"{what}_s"), getattr(other, f"{what}_s")
            figures = (float(np.mean(ours)) * 1e6, float(np.mean(theirs)) * 1e6)
            result.row(f"{case.name}: {what}", figures[0], "us", other.way.name, figures[1], paired_ratio(theirs, ours))
        sizes = len(own.data), len(other.data)
        size_ratio = sizes[1] / sizes[0]
        exact = Ratio(size_ratio, size_ratio, size_ratio, 1)
        result.row(f"{case.name}: size", sizes[0], "bytes", other.way.name, sizes[1], exact)
    if case.claim is not None:
        maps = next(each for each in others if each.way.name.startswith(MAPS))
        goal, ratio = at_least(case.claim[1]), paired_ratio(maps.both_s, own.both_s)
        result.claim(case.claim[0], goal, ratio, None if goal.met_by(ratio) else WHY_NOT)


def _side(way: Way, slice_s: float) -> _Side:
    data = way.write(way.held)
    calls = [
        max(1, int(slice_s / TURNS / _once(call, value))) for call, value in ((way.write, way.held), (way.read, data))
    ]
    return _Side(way, data, (calls[0], calls[1]), [], [])


def _once(call: Callable[[Any], Any], value: Any) -> float:
    """About how long a call takes, once it has been made before."""
    return min(_timed(call, value, 10) for _ in range(3))


def _per_call(call: Callable[[Any], Any], value: Any, calls: int) -> float:
    return min(_timed(call, value, calls) for _ in range(TURNS))


def _timed(call: Callable[[Any], Any], value: Any, calls: int) -> float:
    turns = range(calls)
    began = time.perf_counter()
    for _ in turns:
        call(value)
    return (time.perf_counter() - began) / calls
