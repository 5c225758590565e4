"""One case: our call and the peers' calls that do the same work, timed in turn."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from profiling.bench.kernels.peak import peak_cells_per_s
from profiling.bench.peers.client import Peers, Run
from profiling.bench.result import Ratio, Result, at_least, paired_ratio, variation
from protocol.errors import RunFailure

REPEATS_MAX: Final = 25
REPEATS_MIN: Final = 7
SHORT_S: Final = 0.05
"""Calls up to this long are made at least REPEATS_MIN times: the first ones after a wait find the cores asleep, which
longer calls outlast."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class Against:
    """A peer's call. ``items``: how much of our call's work it does, counted as ``Case.items``; ``expected``: what it
    must answer, None for what is no DTW. ``behind``: far behind the fastest peer, and left out of quick runs."""

    peer: str
    operation: str
    parameters: Mapping[str, Any]
    items: int
    expected: Array | None
    note: str = ""
    behind: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """``call`` does ``items`` pieces of work; figures are per piece, in ``unit``, of which a second has ``per_s``.

    ``cells``: of the recurrence in a call, if its speed is worth a comparison with the arithmetic alone on ``threads``
    in ``dtype``. ``claims``: goals by the peer that they are against; "fastest" is whoever was it in each block.
    """

    name: str
    unit: str
    per_s: float
    items: int
    call: Callable[[], object]
    against: tuple[Against, ...]
    tolerance: float = 1e-9
    cells: int = 0
    dtype: Any = np.float64
    threads: int = 1
    claims: Mapping[str, tuple[str, float]] = field(default_factory=dict)

    def measure(
        self, result: Result, peers: Peers, versions: Mapping[str, str], blocks: int, budget_s: float, quick: bool
    ) -> None:
        """``blocks`` blocks of about ``budget_s`` a side into the result's rows and claims."""
        ours: list[float] = []
        peaks: list[float] = []
        against = [each for each in self.against if not (quick and each.behind)]
        theirs: dict[Against, list[float]] = {each: [] for each in against}
        repeats = self._repeats(budget_s)
        counts = {each: self._checked(peers, each, budget_s) for each in against}
        for _ in range(blocks):
            ours.append(self._own(repeats))
            if self.cells:
                peaks.append(peak_cells_per_s(self.dtype, self.threads))
            for each in against:
                run = self._run(peers, each, counts[each])
                theirs[each].append(float(np.median(run.seconds)) / each.items)
        if self.claims:  # the others' spread stands in their intervals
            result.variations.append(variation(ours))
        for each, seconds in theirs.items():
            self._row(result, each, versions, ours, seconds)
        self._claims(result, ours, theirs)
        if peaks:
            self._peak_row(result, ours, peaks)

    def _repeats(self, budget_s: float) -> int:
        self.call()
        return repeats_within(budget_s, self._own(1) * self.items)

    def _own(self, repeats: int) -> float:
        """Median seconds per item."""
        seconds = []
        for _ in range(repeats):
            began = time.perf_counter()
            self.call()
            seconds.append(time.perf_counter() - began)
        return float(np.median(seconds)) / self.items

    def _run(self, peers: Peers, each: Against, repeats: int) -> Run:
        return peers.run(each.peer, each.operation, repeats, **each.parameters)

    def _checked(self, peers: Peers, each: Against, budget_s: float) -> int:
        """How often to call a peer in a block, once its first answer has been found to be ours."""
        run = self._run(peers, each, 1)
        if each.expected is not None and not agree(run.result, each.expected, self.tolerance):
            raise RunFailure(f"{self.name}: {each.peer} {each.operation} gives another answer than we do")
        return repeats_within(budget_s, run.seconds[0])

    def _row(
        self, result: Result, each: Against, versions: Mapping[str, str], ours: list[float], theirs: list[float]
    ) -> None:
        name = f"{each.peer} {versions.get(each.peer, versions['node'])}"
        peer = f"{name}, {each.note}" if each.note else name
        mean_ours, mean_theirs = (float(np.mean(side)) * self.per_s for side in (ours, theirs))
        result.row(self.name, mean_ours, self.unit, peer, mean_theirs, paired_ratio(theirs, ours))

    def _claims(self, result: Result, ours: list[float], theirs: dict[Against, list[float]]) -> None:
        dtw = {each: seconds for each, seconds in theirs.items() if each.expected is not None}
        for peer, (claim, goal) in self.claims.items():
            sides = [seconds for each, seconds in dtw.items() if peer == each.peer or _is_library(peer, each)]
            result.claim(claim, at_least(goal), paired_ratio(np.min(sides, axis=0), ours))

    def _peak_row(self, result: Result, ours: list[float], peaks: list[float]) -> None:
        rates = [self.cells / (seconds * self.items) for seconds in ours]
        peer = f"arithmetic alone, {self.threads} thread{'s' if self.threads > 1 else ''}"
        ratio = paired_ratio(rates, peaks)
        result.row(
            f"{self.name}: speed", float(np.mean(rates)) / 1e9, "Gcells/s", peer, float(np.mean(peaks)) / 1e9, ratio
        )


def repeats_within(budget_s: float, call_s: float) -> int:
    """How often to make a call that takes ``call_s`` in a block, ours and theirs alike."""
    least = REPEATS_MIN if call_s <= SHORT_S else 1
    return max(least, min(REPEATS_MAX, int(budget_s / call_s)))


def _is_library(peer: str, each: Against) -> bool:
    return peer == "fastest" and each.peer != "javascript"


def agree(found: Array, expected: Array, tolerance: float) -> bool:
    """Equal shapes and values; the first row of two is indices, which must be the same."""
    if found.shape != expected.shape:
        return False
    if found.ndim == 2 and found.shape[0] == 2 and not np.array_equal(found[0], expected[0]):
        return False
    return bool(np.allclose(found, expected, rtol=tolerance, atol=tolerance))


def plain_ratio(numerator: float, denominator: float) -> Ratio:
    """Of two figures that were taken once."""
    value = numerator / denominator
    return Ratio(value, value, value, 1)
