"""Proposals by key: at most one entry per key, and an answer that is never wrong, at most unknown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.raft.config import RaftConfig
from consensus.raft.log import ENTRY_OVERHEAD_BYTES, Log
from consensus.raft.outcome import Outcome, Standing
from consensus.raft.proposals import Proposals, Remembered
from protocol.codes import EntryKind
from protocol.errors import LocalMisuse
from protocol.messages import AppendEntries, Entry
from tests.oracles.raft_driver import Driver, entry, log_of
from tests.sim.host import key_of


def leader_of(driver: Driver) -> Driver:
    driver.become_leader()
    return driver


def once(driver: Driver, key: bytes) -> Outcome:
    return driver.raft.propose_once(key, EntryKind.FRAME, key)


def test_a_key_is_appended_once_however_often_it_is_proposed() -> None:
    driver = leader_of(Driver(key_of=key_of))
    assert once(driver, b"buy") == once(driver, b"buy") == Outcome(Standing.PENDING, 2)
    driver.acknowledge(2, 1, 2, 3)
    assert once(driver, b"buy") == Outcome(Standing.COMMITTED, 2)
    assert driver.raft.last_index == 2


def test_a_leader_finds_the_key_that_an_earlier_leader_left() -> None:
    """Open in the log: it commits with the leader's own entries, so it is not appended again."""
    driver = leader_of(Driver(log_of(1, 1), key_of=key_of))
    assert once(driver, b"1/2") == Outcome(Standing.PENDING, 2)
    driver.acknowledge(3, 1, 2, 3)
    assert once(driver, b"1/2") == Outcome(Standing.COMMITTED, 2)


def test_a_refusal_says_why_and_may_be_tried_again() -> None:
    driver = Driver(key_of=key_of, config=RaftConfig(uncommitted_bytes_max=3 * ENTRY_OVERHEAD_BYTES))
    assert once(driver, b"buy") == Outcome(Standing.REFUSED, reason="not the leader")
    leader_of(driver)
    assert once(driver, b"buy").standing is Standing.PENDING
    assert once(driver, bytes(90)) == Outcome(Standing.REFUSED, reason="too many uncommitted bytes")
    driver.acknowledge(2, 1, 2, 3)
    assert once(driver, bytes(90)).standing is Standing.PENDING


def test_nobody_is_told_refused_while_the_entry_may_yet_commit() -> None:
    """Leadership was lost and the own copy is overwritten, but another replica may hold it and win the next term."""
    driver = leader_of(Driver(key_of=key_of))
    once(driver, b"buy")
    driver.drain()
    driver.exchange(AppendEntries(2, 1, 0, 0, 0, (entry(1, 1, kind=EntryKind.NOOP), entry(2, 2, b"other"))))
    assert driver.raft.outcome(b"buy") == Outcome(Standing.UNKNOWN)
    assert once(driver, b"buy") == Outcome(Standing.UNKNOWN)
    driver.exchange(AppendEntries(3, 2, 0, 0, 2, (entry(1, 1, kind=EntryKind.NOOP), entry(1, 2, b"buy"))))
    assert driver.raft.outcome(b"buy") == Outcome(Standing.COMMITTED, 2)


def test_what_was_overwritten_by_a_committed_entry_is_refused() -> None:
    driver = leader_of(Driver(key_of=key_of))
    once(driver, b"buy")
    driver.drain()
    driver.exchange(AppendEntries(2, 1, 0, 0, 2, (entry(1, 1, kind=EntryKind.NOOP), entry(2, 2, b"other"))))
    assert driver.raft.outcome(b"buy") == Outcome(Standing.REFUSED, reason="another entry took its place")
    assert driver.raft.outcome(b"other") == Outcome(Standing.COMMITTED, 2)
    assert driver.raft.outcome(b"never heard of") is None


def test_who_was_told_pending_is_not_told_later_that_nothing_is_known() -> None:
    """Found by the simulator, seed 303941: he had not proposed it to this life of the leader, only asked for it."""
    driver = leader_of(Driver(log_of(1, 1), key_of=key_of))
    assert driver.raft.outcome(b"1/2") == Outcome(Standing.PENDING, 2)
    driver.drain()
    term = driver.raft.term + 1
    driver.exchange(AppendEntries(term, 1, 1, 1, 0, (entry(term, 2, b"other"),)))
    assert driver.raft.outcome(b"1/2") == Outcome(Standing.UNKNOWN)


def test_keys_survive_a_restart_with_the_log() -> None:
    driver = leader_of(Driver(log_of(1, 1), applied_index=1, key_of=key_of))
    assert driver.raft.outcome(b"1/1") == Outcome(Standing.COMMITTED, 1)
    assert driver.raft.outcome(b"1/2") == Outcome(Standing.PENDING, 2)


def test_the_payload_must_carry_the_key() -> None:
    with pytest.raises(LocalMisuse, match="without key_of"):
        Driver().raft.outcome(b"buy")
    with pytest.raises(LocalMisuse, match="does not carry the key"):
        leader_of(Driver(key_of=key_of)).raft.propose_once(b"key", EntryKind.FRAME, b"another")


def test_a_lying_leaders_second_copy_counts_for_nothing() -> None:
    driver = Driver(key_of=key_of)
    driver.exchange(AppendEntries(1, 1, 0, 0, 2, (entry(1, 1, b"buy"), entry(1, 2, b"buy"))))
    assert driver.raft.outcome(b"buy") == Outcome(Standing.COMMITTED, 1)
    assert driver.raft.proposals is not None and driver.raft.proposals.duplicates == 1


def test_only_the_latest_outcomes_are_remembered() -> None:
    """Those of this generation of two entries, and of the one before it."""
    book = Proposals(key_of, span=2)
    entries = log_of(1, 1, 1, 1)
    book.appended(entries)
    book.committed(entries)
    assert [book.outcome(b"1/%d" % index, False) for index in (1, 2)] == [None, Outcome(Standing.COMMITTED, 2)]
    assert book.dump(4) == Remembered([(b"1/2", 2), (b"1/3", 3), (b"1/4", 4)], forgotten_upto=1)
    assert book.dump(2) == Remembered([(b"1/2", 2)], forgotten_upto=1)
    book.check_invariants()


def test_a_snapshot_brings_the_keys_of_what_it_stands_for() -> None:
    """What was asked here below it and is not among them never committed; what lies above stays unknown."""
    book = Proposals(key_of)
    book.appended(log_of(1, 1, 1))
    for key in (b"1/1", b"1/2", b"1/3"):
        book.asked(key)
    book.truncated(0)
    book.load(Remembered([(b"1/1", 1), (b"other", 2)], forgotten_upto=0), 2)
    book.check_invariants()
    assert book.outcome(b"1/1", False) == Outcome(Standing.COMMITTED, 1)
    assert book.outcome(b"1/2", False) == Outcome(Standing.REFUSED, reason="another entry took its place")
    assert book.outcome(b"1/3", False) == Outcome(Standing.UNKNOWN)
    assert not book.stands_in_log(b"1/3") and book.stands_in_log(b"other")


@pytest.mark.parametrize("behind", [0, 1])
def test_nobody_is_refused_for_a_key_that_the_snapshots_maker_forgot(behind: int) -> None:
    """It may be the one that was forgotten. Whoever has applied less than is committed dumps fewer keys than he may
    hold, so that their number says nothing of it."""
    maker, book = Proposals(key_of, span=2), Proposals(key_of, span=2)
    entries = log_of(1, 1, 1, 1)
    maker.appended(entries)
    maker.committed(entries)
    book.appended(log_of(2))
    book.asked(b"2/1")
    book.truncated(0)
    book.load(maker.dump(4 - behind), 4 - behind)
    book.check_invariants()
    assert book.outcome(b"2/1", False) is None
    assert book.dump(4) == maker.dump(4 - behind)


def test_a_log_that_begins_later_does_not_know_the_keys_before_it() -> None:
    book = Proposals(key_of, span=2, forgotten_upto=7)
    book.appended([entry(1, 8, b"1/8"), entry(1, 9, b"1/9")])
    book.committed([entry(1, 8, b"1/8")])
    book.check_invariants()
    assert book.dump(8) == Remembered([(b"1/8", 8)], forgotten_upto=7)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=20), st.integers(1, 12), st.data())
def test_what_is_remembered_depends_on_the_committed_log_alone(
    steps: list[int], span: int, data: st.DataObject
) -> None:
    """Not on the pieces in which it came, nor on a snapshot in between; and it has a bound."""
    entries = log_of(*[1] * sum(steps))
    whole, pieces = Proposals(key_of, span), Proposals(key_of, span)
    whole.appended(entries)
    whole.committed(entries)
    taken_at = data.draw(st.integers(0, len(steps) - 1))
    done = 0
    for number, step in enumerate(steps):
        pieces.appended(entries[done : done + step])
        pieces.committed(entries[done : done + step])
        done += step
        if number == taken_at:
            dumped, pieces = pieces.dump(done), Proposals(key_of, span)
            pieces.load(dumped, done)
        pieces.check_invariants()
    kept = pieces.dump(done)
    assert kept == whole.dump(done)
    assert min(span, done) <= len(kept.keys) <= 2 * span and len(kept.keys) + kept.forgotten_upto == done


@given(st.data())
def test_the_book_says_what_the_log_says(data: st.DataObject) -> None:
    """Any history of appends, truncations, commits and questions, against a search through everything that ever was."""
    log, book, model = Log(), Proposals(key_of), Model()
    log.watch(book)
    term = 1
    for verb in data.draw(st.lists(st.sampled_from(("append", "overwrite", "commit", "ask")), max_size=25)):
        if verb in ("append", "overwrite"):
            keep = log.last_index if verb == "append" else data.draw(st.integers(model.commit, log.last_index))
            term += verb == "overwrite"
            held = {key_of(each) for each in log.entries_from(1, keep)}
            payload = data.draw(
                st.sampled_from([key for key in (*KEYS, b"%d" % term + bytes(keep)) if key not in held])
            )
            log.append((Entry(term, keep + 1, EntryKind.FRAME, payload),))
            model.appended(payload, keep + 1, term)
        elif verb == "commit" and model.commit < log.last_index:
            upto = data.draw(st.integers(model.commit + 1, log.last_index))
            book.committed(log.entries_from(model.commit + 1, upto))
            model.committed(log, upto)
        elif verb == "ask" and log.last_index > model.commit:
            chosen = data.draw(st.sampled_from(log.entries_from(model.commit + 1)))
            book.asked(chosen.payload)
            model.asked(chosen)
        book.check_invariants()
        for key in KEYS:
            assert book.outcome(key, True) == model.outcome(key, log), key


KEYS = (b"a", b"b", b"c", b"d")


class Model:
    """Keeps every copy of every asked key; a copy is dead once another term is committed at its index."""

    def __init__(self) -> None:
        self.commit = 0
        self.copies: dict[bytes, set[tuple[int, int]]] = {}
        self.dead: set[bytes] = set()

    def appended(self, key: bytes, index: int, term: int) -> None:
        self.dead.discard(key)
        if key in self.copies:
            self.copies[key].add((index, term))

    def asked(self, entry: Entry) -> None:
        self.dead.discard(entry.payload)
        self.copies.setdefault(entry.payload, set()).add((entry.index, entry.term))

    def committed(self, log: Log, upto: int) -> None:
        self.commit = upto
        for key, copies in list(self.copies.items()):
            if not any(index > upto or log.term_at(index) == term for index, term in copies):
                del self.copies[key]
                self.dead.add(key)

    def outcome(self, key: bytes, log: Log) -> Outcome | None:
        held = next((entry for entry in log.entries_from(1) if entry.payload == key), None)
        if held is not None:
            return Outcome(Standing.COMMITTED if held.index <= self.commit else Standing.PENDING, held.index)
        if key in self.dead:
            return Outcome(Standing.REFUSED, reason="another entry took its place")
        return Outcome(Standing.UNKNOWN) if key in self.copies else None
