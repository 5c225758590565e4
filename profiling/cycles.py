"""Cut every cycle into eight stages that partition the time from its start to its last confirmation.

The trader's own records bound the first four stages. The other four end at marks that other processes set: a quorum of
agents verified the frame, an executor certified it, an executor released it, the trader saw its orders confirmed. A
boundary never lies before the previous one, so no nanosecond is counted twice and none is left out.

This module knows roles and a quorum as numbers only; what a certificate is belongs to other rooms.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from profiling.collect import Trace
from profiling.stages import Operation, Stage

STAGE_COUNT: Final = len(Stage)
DECIDING_STAGES: Final = (Stage.MARKET_DATA, Stage.PATTERN_MATCHING, Stage.RISK_CALCULATION, Stage.STRATEGY_SIGNAL)
FRAME_OPERATIONS: Final = frozenset({Operation.FRAME_ENCODE, Operation.FRAME_SIGN, Operation.FRAME_BROADCAST})
"""A trader that ran one of these had intents to send, so its cycle has all eight stages."""


@dataclass(frozen=True, slots=True)
class Rules:
    """Who plays which role, and what a cycle must reach to be complete.

    ``denied_frames``: frames (``frame_key``) that ended in a denial. They pass coordination and consensus, but are
    neither released nor confirmed. ``orders_by_cycle``: how many confirmations a cycle's trace must show; a cycle that
    is not listed needs at least one.
    """

    trader_ids: Collection[str]
    executor_ids: Collection[str]
    quorum: int
    denied_frames: Collection[int] = frozenset()
    orders_by_cycle: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.quorum < 1:
            raise ValueError(f"quorum must be 1 or more, not {self.quorum}")


@dataclass(frozen=True, slots=True)
class CycleSamples:
    """The complete cycles, ordered by start. ``n`` cycles, times in nanoseconds of the host's timeline.

    ``trace``: uint64 (n,). ``start_ns``: int64 (n,). ``stage_ns``: int64 (n, 8), rows summing to the cycle's duration.
    ``passed``: bool (n, 8), whether the cycle went through the stage at all. ``incomplete``: how many cycles are left
    out, by reason.
    """

    trace: npt.NDArray[np.uint64]
    start_ns: npt.NDArray[np.int64]
    stage_ns: npt.NDArray[np.int64]
    passed: npt.NDArray[np.bool_]
    incomplete: dict[str, int]

    @property
    def duration_ns(self) -> npt.NDArray[np.int64]:
        """Shape (n,)."""
        duration: npt.NDArray[np.int64] = self.stage_ns.sum(axis=1)
        return duration


@dataclass(frozen=True, slots=True)
class _Deciding:
    """What one life of one trader recorded of the cycle's first four stages."""

    agent: int
    life: int
    start_ns: list[int] = field(default_factory=list)
    ends_ns: dict[int, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Cycle:
    """The records of one cycle, sorted out by what they say."""

    deciding: dict[tuple[int, int], _Deciding] = field(default_factory=dict)
    has_orders: bool = False
    frames: set[int] = field(default_factory=set)
    verified: list[tuple[int, int, int]] = field(default_factory=list)
    certified: list[tuple[int, int]] = field(default_factory=list)
    released: list[tuple[int, int]] = field(default_factory=list)
    confirmed: list[tuple[int, int]] = field(default_factory=list)


class _IncompleteError(Exception):
    """The cycle cannot be cut. ``reason`` is a stable, countable label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def cut_cycles(trace: Trace, rules: Rules) -> CycleSamples:
    """Cut every cycle of the trace (records with trace 0 belong to none).

    Reasons of incompleteness: ``start_lost`` (no FEED_NEXT of a trader: overwritten or never recorded), ``ambiguous``
    (two traders used one trace), ``restarted`` (the trader died and began the cycle again; the last attempt is the one
    that is cut), else the label of the stage whose end is missing.
    """
    traders = frozenset(index for index, agent in enumerate(trace.agents) if agent in rules.trader_ids)
    executors = frozenset(index for index, agent in enumerate(trace.agents) if agent in rules.executor_ids)
    incomplete: Counter[str] = Counter()
    cuts: list[tuple[int, int, list[int]]] = []
    for number, rows in _by_trace(trace.records):
        cycle = _sort_out(rows, traders, executors)
        try:
            attempt = _last_attempt(cycle, incomplete)
            bounds = _boundaries(cycle, attempt, rules, rules.orders_by_cycle.get(number, 1))
        except _IncompleteError as error:
            incomplete[error.reason] += 1
        else:
            cuts.append((min(attempt.start_ns), number, bounds))
    return _samples(sorted(cuts), dict(sorted(incomplete.items())))


def _by_trace(records: npt.NDArray[np.void]) -> Iterator[tuple[int, npt.NDArray[np.void]]]:
    inside = records[records["trace"] != 0]
    inside = inside[np.argsort(inside["trace"], kind="stable")]
    firsts = np.flatnonzero(np.diff(inside["trace"], prepend=np.uint64(0)))
    for rows in np.split(inside, firsts[1:]) if len(inside) else ():
        yield int(rows["trace"][0]), rows


def _sort_out(rows: npt.NDArray[np.void], traders: frozenset[int], executors: frozenset[int]) -> _Cycle:
    cycle = _Cycle()
    for t0_ns, t1_ns, _, aux, operation, _, agent, life in rows.tolist():
        if agent in traders and operation // 100 <= Stage.STRATEGY_SIGNAL:
            attempt = cycle.deciding.setdefault((agent, life), _Deciding(agent, life))
            stage = operation // 100
            attempt.ends_ns[stage] = max(t1_ns, attempt.ends_ns.get(stage, t1_ns))
            if operation == Operation.FEED_NEXT:
                attempt.start_ns.append(t0_ns)
        if agent in traders and operation in FRAME_OPERATIONS:
            cycle.has_orders = True
            if operation == Operation.FRAME_SIGN and aux:
                cycle.frames.add(aux)
        elif operation == Operation.FRAME_VERIFIED:
            cycle.verified.append((aux, agent, t1_ns))
        elif operation == Operation.CERTIFIED and agent in executors:
            cycle.certified.append((aux, t1_ns))
        elif operation == Operation.RELEASED and agent in executors:
            cycle.released.append((aux, t1_ns))
        elif operation == Operation.CONFIRMED and agent in traders:
            cycle.confirmed.append((agent, t1_ns))
    cycle.frames.update(frame for frame, *_ in (*cycle.verified, *cycle.certified, *cycle.released))
    cycle.has_orders |= bool(cycle.frames or cycle.confirmed)
    return cycle


def _last_attempt(cycle: _Cycle, incomplete: Counter[str]) -> _Deciding:
    """The attempt to cut. A trader that restarts may begin a cycle again under the same number."""
    if len({attempt.agent for attempt in cycle.deciding.values()}) > 1:
        raise _IncompleteError("ambiguous")
    attempts = [attempt for attempt in cycle.deciding.values() if attempt.start_ns]
    if not attempts:
        raise _IncompleteError("start_lost")
    incomplete["restarted"] += len(attempts) - 1
    return max(attempts, key=lambda attempt: attempt.life)


def _boundaries(cycle: _Cycle, attempt: _Deciding, rules: Rules, orders: int) -> list[int]:
    """Start, then the end of each stage passed: 5 numbers for a cycle without orders, 7 if all was denied, else 9."""
    start_ns = min(attempt.start_ns)
    if Stage.STRATEGY_SIGNAL not in attempt.ends_ns:
        raise _IncompleteError(Stage.STRATEGY_SIGNAL.label)
    ends = [attempt.ends_ns.get(stage, start_ns) for stage in DECIDING_STAGES]
    if cycle.has_orders:
        ends += _agreed(cycle, start_ns, rules)
        if not cycle.frames <= set(rules.denied_frames):
            ends += _executed(cycle, attempt, rules, orders)
    bounds = np.maximum.accumulate([start_ns, *ends])
    return [int(bound) for bound in bounds]


def _agreed(cycle: _Cycle, start_ns: int, rules: Rules) -> list[int]:
    """The ends of coordination and consensus, each the latest over the cycle's frames."""
    if not cycle.frames:
        raise _IncompleteError(Stage.COORDINATION.label)
    coordinated, certified = [], []
    for frame in cycle.frames:
        first_by_agent: dict[int, int] = {}
        for verified_frame, agent, t1_ns in cycle.verified:
            if verified_frame == frame and t1_ns >= start_ns:
                first_by_agent[agent] = min(t1_ns, first_by_agent.get(agent, t1_ns))
        denied = frame in rules.denied_frames
        # n - q + 1 denials settle a frame, fewer than a quorum; then the last verdict that is known counts.
        needed = min(rules.quorum, max(1, len(first_by_agent))) if denied else rules.quorum
        if len(first_by_agent) < needed:
            raise _IncompleteError(Stage.COORDINATION.label)
        coordinated.append(sorted(first_by_agent.values())[needed - 1])
        certificates = _ends_of(frame, cycle.certified, start_ns)
        if not certificates and not denied:
            raise _IncompleteError(Stage.CONSENSUS.label)
        certified += certificates
    return [max(coordinated), max(certified, default=max(coordinated))]


def _executed(cycle: _Cycle, attempt: _Deciding, rules: Rules, orders: int) -> list[int]:
    """The ends of order execution and order confirmation."""
    start_ns = min(attempt.start_ns)
    released: list[int] = []
    for frame in cycle.frames:
        releases = _ends_of(frame, cycle.released, start_ns)
        if not releases and frame not in rules.denied_frames:
            raise _IncompleteError(Stage.ORDER_EXECUTION.label)
        released += releases
    confirmed = _ends_of(attempt.agent, cycle.confirmed, start_ns)
    if len(confirmed) < orders:
        raise _IncompleteError(Stage.ORDER_CONFIRMATION.label)
    return [max(released), max(confirmed, default=max(released))]


def _ends_of(key: int, marks: list[tuple[int, int]], start_ns: int) -> list[int]:
    """Ends of the marks with this key. What ended before the cycle's start belongs to an earlier attempt at it."""
    return [t1_ns for mark_key, t1_ns in marks if mark_key == key and t1_ns >= start_ns]


def _samples(cuts: list[tuple[int, int, list[int]]], incomplete: dict[str, int]) -> CycleSamples:
    stage_ns = np.zeros((len(cuts), STAGE_COUNT), np.int64)
    passed = np.zeros((len(cuts), STAGE_COUNT), np.bool_)
    for row, (_, _, bounds) in enumerate(cuts):
        stage_ns[row, : len(bounds) - 1] = np.diff(bounds)
        passed[row, : len(bounds) - 1] = True
    return CycleSamples(
        trace=np.array([number for _, number, _ in cuts], np.uint64),
        start_ns=np.array([start_ns for start_ns, _, _ in cuts], np.int64),
        stage_ns=stage_ns,
        passed=passed,
        incomplete={reason: count for reason, count in incomplete.items() if count},
    )
