"""The two checkers against each other, and the judge of logs, on histories made by hand or by chance."""

from __future__ import annotations

import random

import pytest

from profiling.bench.lane.requests import ONCE_BYTES, Request, Standing, Verb
from profiling.bench.lane.store import payload_of
from protocol.codes import EntryKind
from protocol.messages import Entry
from tests.nemesis.verdict import judged, logs_disagree, second_opinion, with_stale_read, writes_disagree
from tests.oracles.linearizability import Operation, violation


def random_history(rng: random.Random) -> list[Operation]:
    """Small, on two keys, about half of them wrong."""
    history = []
    for client in range(rng.randint(1, 7)):
        start = rng.randint(0, 12)
        end = None if rng.random() < 0.2 else start + rng.randint(0, 8)
        kind, key = rng.choice(("get", "get", "put", "cas")), rng.choice((b"a", b"b"))
        value, new = rng.choice((None, b"1", b"2")), rng.choice((b"1", b"2"))
        argument = {"get": None, "put": new, "cas": (value, new)}[kind]
        result = {"get": value, "put": None, "cas": rng.random() < 0.5}[kind]
        history.append(Operation(client, key, kind, argument, result, start, end))
    return history


def test_the_checkers_agree_on_two_thousand_small_histories() -> None:
    rng = random.Random(5)
    verdicts = [judged(random_history(rng)) is None for _ in range(2000)]
    assert 0.2 < sum(verdicts) / len(verdicts) < 0.8


def test_a_stale_read_is_put_in_only_where_it_is_surely_stale() -> None:
    early, late = (Operation(1, b"a", "put", b"%d" % start, None, start, start + 1) for start in (1, 5))
    history = [early, late]
    assert judged(history) is None
    corrupted = with_stale_read(history)
    assert violation(corrupted) is not None and second_opinion(corrupted) is not None
    with pytest.raises(ValueError, match="no put"):
        with_stale_read([early])


def write(index: int, once: bytes = b"", value: bytes = b"v") -> Entry:
    request = Request(0, Verb.PUT, b"key", value, None, once or index.to_bytes(ONCE_BYTES, "big"))
    return Entry(1, index, EntryKind.FRAME, payload_of(request))


def standings(entries: list[Entry], standing: Standing = Standing.DONE) -> dict[bytes, Standing]:
    return {entry.payload[:ONCE_BYTES]: standing for entry in entries}


def test_committed_entries_that_differ_are_found() -> None:
    log, other = [write(1), write(2)], [write(1), write(2, value=b"w")]
    assert logs_disagree({0: log, 1: log[:1]}, {0: 2, 1: 1}) is None
    assert logs_disagree({0: log, 1: other}, {0: 2, 1: 1}) is None, "the second one is not committed there"
    assert "entry 2" in (logs_disagree({0: log, 1: other}, {0: 2, 1: 2}) or "")


def test_lost_doubled_and_refused_writes_are_found() -> None:
    log = [write(1), write(2, value=b"w")]
    assert writes_disagree(log, standings(log), {b"key": b"w"}) is None
    assert "does not give" in (writes_disagree(log, standings(log), {b"key": b"v"}) or "")
    assert "is lost" in (writes_disagree(log[:1], standings(log), {}) or "")
    assert writes_disagree(log[:1], standings(log, Standing.UNKNOWN), {}) is None
    assert "was refused" in (writes_disagree(log, standings(log, Standing.REFUSED), {}) or "")
    twice = [write(1), write(2, once=log[0].payload[:ONCE_BYTES])]
    assert "2 times" in (writes_disagree(twice, standings(log), {}) or "")
    assert writes_disagree(log[1:], standings(log), {}) is None, "the rest is in a snapshot"
