"""The store that the lane's benchmark and the nemesis run: a function of the log alone."""

from __future__ import annotations

import pytest

from consensus.raft.proposals import Remembered
from profiling.bench.lane.requests import Request, Verb
from profiling.bench.lane.store import RESULTS_MIN, KeyValues, once_of, payload_of
from protocol.codes import EntryKind
from protocol.messages import Entry


def write(index: int, value: bytes, expected: bytes | None = None) -> Entry:
    once = index.to_bytes(16, "little")
    return Entry(1, index, EntryKind.FRAME, payload_of(Request(0, Verb.PUT, b"key", value, expected, once)))


def noop(index: int) -> Entry:
    return Entry(1, index, EntryKind.NOOP, b"")


def test_a_write_takes_effect_unless_it_expects_another_value() -> None:
    values = KeyValues()
    entries = [noop(1), write(2, b"a"), write(3, b"b", b"other"), write(4, b"c", b"a"), noop(5)]
    keys = values.apply(entries)
    assert keys == [once_of(entry) for entry in entries if entry.kind == EntryKind.FRAME]
    assert [values.result(key) for key in keys] == [True, False, True]
    assert values.values == {b"key": b"c"} and values.index == 5 and values.result(bytes(16)) is None


def test_a_gap_is_noticed() -> None:
    with pytest.raises(AssertionError, match="entry 2 after 0"):
        KeyValues().apply([write(2, b"a")])


@pytest.mark.parametrize("piece", [1, 64, 7_777, 3 * RESULTS_MIN])
def test_what_is_remembered_depends_on_the_log_alone(piece: int) -> None:
    """Not on how it arrived, nor on a snapshot in between; and it has a bound."""
    count = 2 * RESULTS_MIN + 100
    entries = [write(index + 1, b"v", None if index % 3 else b"other") for index in range(count)]
    values, restored = KeyValues(), KeyValues()
    for first in range(0, count, piece):
        values.apply(entries[first : first + piece])
        if first == 64:
            restored.load(values.dump(Remembered([], 0)))
    restored.apply(entries[restored.index :])
    keys = [once_of(entry) for entry in entries]
    results = [values.result(key) for key in keys if key is not None]
    assert results == [restored.result(key) for key in keys if key is not None]
    forgotten = results.count(None)
    assert results[:forgotten] == [None] * forgotten and RESULTS_MIN <= count - forgotten <= 2 * RESULTS_MIN
    assert results[forgotten:] == [bool((forgotten + at) % 3) for at in range(count - forgotten)]
