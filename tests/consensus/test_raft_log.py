"""The log: matching, truncation, hints, bounded messages, and what counts as durable while writes are open."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from consensus.raft.log import ENTRY_OVERHEAD_BYTES, Log
from protocol.errors import LocalMisuse
from protocol.messages import Entry
from tests.oracles.raft_driver import entry, log_of


@given(
    st.lists(st.integers(1, 3), max_size=6).map(sorted),
    st.lists(st.sampled_from([5, 7, 9]), max_size=8).map(sorted),
    st.lists(st.sampled_from([4, 6, 8]), max_size=8).map(sorted),
)
@example(shared=[], own_rest=[5, 5, 5], leader_rest=[6, 6, 6, 6])
def test_hints_find_the_last_common_entry(shared: list[int], own_rest: list[int], leader_rest: list[int]) -> None:
    """End of section 5.3: one round for each conflicting term, of whichever log has fewer, and never an entry that
    matches is skipped."""
    own, leader = Log(log_of(*shared, *own_rest)), Log(log_of(*shared, *leader_rest))
    tried, rounds = leader.last_index, 0
    while (term := leader.term_at(tried)) != own.term_at(tried):
        assert term is not None
        hint = own.match_hint(tried - 1, term)
        hint_term = own.term_at(hint)
        assert hint_term is not None and len(shared) <= hint < tried
        tried, rounds = leader.match_hint(hint, hint_term), rounds + 1
        assert len(shared) <= tried <= hint
    assert tried == len(shared)
    assert rounds <= min(len(set(own_rest)), len(set(leader_rest))) + 1


@given(st.lists(st.integers(0, 60), min_size=1, max_size=12), st.integers(1, 12), st.integers(1, 200))
def test_bounded_by_count_and_bytes(sizes: list[int], count_max: int, bytes_max: int) -> None:
    log = Log([entry(1, index, bytes(size)) for index, size in enumerate(sizes, start=1)])
    taken = log.bounded(1, count_max, bytes_max)
    cost = [len(item.payload) + ENTRY_OVERHEAD_BYTES for item in taken]
    assert 1 <= len(taken) <= count_max
    assert len(taken) == 1 or sum(cost) <= bytes_max
    if len(taken) < min(count_max, len(sizes)):
        assert sum(cost) + sizes[len(taken)] + ENTRY_OVERHEAD_BYTES > bytes_max


def test_an_append_replaces_what_stood_there() -> None:
    log = Log(log_of(1, 1, 1))
    log.append([entry(2, 2)])
    assert [item.term for item in log.entries_from(1)] == [1, 2]
    assert log.entries_from(2, 2) == [entry(2, 2)]
    assert log.term_at(3) is None


def test_a_gap_is_our_own_mistake() -> None:
    with pytest.raises(LocalMisuse, match="entry 3 into a log from 1 to 1"):
        Log(log_of(1)).append([entry(1, 3)])
    with pytest.raises(LocalMisuse):
        Log([entry(1, 2)])
    with pytest.raises(LocalMisuse):
        Log([entry(2, 1), entry(1, 2)])


def test_durable_follows_the_writes_in_order() -> None:
    log = Log()
    log.append(log_of(1, 1))
    first_entries, _ = log.begin_write()
    log.append([entry(1, 3)])
    second_entries, second = log.begin_write()
    assert [item.index for item in first_entries] == [1, 2]
    assert [item.index for item in second_entries] == [3]
    with pytest.raises(LocalMisuse, match="in the order"):
        log.end_write(second)
    log = Log()
    log.append(log_of(1))
    _, write = log.begin_write()
    assert log.durable_index == 0
    log.end_write(write)
    assert log.durable_index == 1


def test_an_entry_that_comes_back_is_not_durable_through_its_first_write() -> None:
    """The A-B-A race of asynchronous writes: after A, B, A again, the first write's end says nothing about the disk's
    future, because B will be written over it before A is there again."""
    log = Log()
    log.append([entry(1, 1), entry(2, 2)])
    _, first = log.begin_write()
    log.append([entry(3, 2)])
    _, second = log.begin_write()
    log.append([entry(2, 2), entry(4, 3)])
    _, third = log.begin_write()
    log.end_write(first)
    assert log.durable_index == 1
    log.end_write(second)
    assert log.durable_index == 1
    log.end_write(third)
    assert log.durable_index == 3


@given(st.data())
def test_durable_never_exceeds_what_the_disk_will_keep(data: st.DataObject) -> None:
    """Against a model disk: whatever is called durable is on it now, and every open write leaves it there."""
    log, disk, open_writes, term = Log(), list[Entry](), [], 1
    for _ in range(data.draw(st.integers(1, 25))):
        action = data.draw(st.sampled_from(["append", "replace", "begin", "end"]))
        if action == "append" or (action == "replace" and log.last_index == 0):
            log.append([entry(term, log.last_index + 1)])
        elif action == "replace":
            term += 1
            log.append([entry(term, data.draw(st.integers(1, log.last_index)))])
        elif action == "begin" and log.unsaved:
            open_writes.append(log.begin_write())
        elif action == "end" and open_writes:
            entries, write = open_writes.pop(0)
            disk[entries[0].index - 1 :] = entries
            log.end_write(write)
        log.check_invariants()
        assert disk[: log.durable_index] == log.entries_from(1, log.durable_index)
        assert all(entries[0].index > log.durable_index for entries, _ in open_writes)
