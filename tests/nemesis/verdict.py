"""Whether what clients saw, and what disks hold, is what a single table would have given: by our own checker, by one
that others wrote, and by the logs themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import detangle.lin

from profiling.bench.lane.requests import Standing
from profiling.bench.lane.store import KeyValues, once_of
from protocol.messages import Entry
from tests.oracles.linearizability import Operation, violation

STEPS_MAX = 1_000_000


class Disagreement(AssertionError):
    """One of the two checkers is wrong."""


def judged(history: Sequence[Operation]) -> str | None:
    """What both checkers object to; None when both see nothing wrong. Raises ``Disagreement``."""
    ours = violation(history, STEPS_MAX)
    theirs = second_opinion(history)
    if (ours is None) != (theirs is None):
        raise Disagreement(f"ours: {ours}; theirs: {theirs}")
    return ours


def second_opinion(history: Sequence[Operation]) -> str | None:
    """The verdict of detangle's search (Wing and Gong with Lowe's memory)."""
    known = [each for each in history if each.kind != "get" or each.returned_ns is not None]
    operations = [_theirs(number, each) for number, each in enumerate(known)]
    result = detangle.lin.check(operations, detangle.lin.KV(), budget=STEPS_MAX)
    return None if result.ok else result.explain()


def _theirs(number: int, ours: Operation) -> detangle.lin.Operation:
    argument = {"get": ours.key, "put": (ours.key, ours.argument)}.get(ours.kind)
    if ours.kind == "cas":
        argument = (ours.key, *ours.argument)
    status = detangle.lin.INFO if ours.returned_ns is None else detangle.lin.OK
    return detangle.lin.Operation(
        number, ours.client, ours.kind, argument, ours.invoked_ns, ours.invoked_ns / 1e9, ours.result, status,
        ours.returned_ns,
    )  # fmt: skip


def with_stale_read(history: Sequence[Operation]) -> list[Operation]:
    """The same history, but somebody reads at the end what had been overwritten for certain. Raises ``ValueError``
    when nothing was."""
    puts = [each for each in history if each.kind == "put" and each.returned_ns is not None]
    for late in reversed(puts):
        for early in puts:
            assert early.returned_ns is not None
            if early.key == late.key and early.returned_ns < late.invoked_ns:
                end_ns = max(each.returned_ns or each.invoked_ns for each in history)
                return [*history, Operation(-1, late.key, "get", None, early.argument, end_ns + 1, end_ns + 2)]
    raise ValueError("no put came after another one on the same key")


def logs_disagree(logs: Mapping[int, Sequence[Entry]], commit_indices: Mapping[int, int]) -> str | None:
    """Committed entries must be the same wherever they still stand."""
    committed: dict[int, tuple[int, Entry]] = {}
    for node, entries in logs.items():
        for entry in entries:
            if entry.index <= commit_indices[node]:
                other, known = committed.setdefault(entry.index, (node, entry))
                if known != entry:
                    return f"entry {entry.index} is {known} on node {other} and {entry} on node {node}"
    return None


def writes_disagree(
    entries: Sequence[Entry], writes: Mapping[bytes, Standing], finals: Mapping[bytes, bytes | None]
) -> str | None:
    """The committed log against what clients were told: done is there once, refused is not there, and playing it gives
    what everybody reads in the end. Of a log that begins after a snapshot only part of that can be told."""
    places = Counter(once for each in entries if (once := once_of(each)) is not None)
    for once, count in places.items():
        if count > 1:
            return f"write {once.hex()} is committed {count} times"
        if writes[once] is Standing.REFUSED:
            return f"write {once.hex()} was refused, and is committed"
    if entries and entries[0].index > 1:
        return None
    for once, standing in writes.items():
        if standing is Standing.DONE and once not in places:
            return f"write {once.hex()} was acknowledged, and is lost"
    values = KeyValues()
    values.apply(entries)
    wrong = {key: value for key, value in finals.items() if values.values.get(key) != value}
    return f"the log does not give what was read: {wrong}" if wrong else None
