"""The parts of the spine one by one: slot arithmetic, certificates, pending commands, history, timers."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from consensus.pbft.catchup import CatchUp, PeerBudget
from consensus.pbft.certificate import verify_certificate
from consensus.pbft.config import PbftConfig
from consensus.pbft.history import History
from consensus.pbft.pending import PendingCommands, command_bytes
from consensus.pbft.safety import COMMIT, PREPARE
from consensus.pbft.slot import Slot
from protocol.errors import LocalMisuse
from protocol.messages import CommittedSlot
from protocol.signing import command_digest
from tests.oracles.pbft_cluster import (
    CLUSTER,
    make_command,
    make_commit,
    make_pre_prepare,
    make_prepare,
    make_slot,
    verify,
)

A, B = bytes([1]) * 32, bytes([2]) * 32
SIZES = [(1, 1), (4, 3), (7, 5), (10, 7)]


def accepted(quorum_size: int = 3) -> Slot:
    slot = Slot(0, 1, 0, quorum_size)
    message = make_pre_prepare(1, make_command(1))
    slot.accept(message.digest, message.commands, message)
    return slot


# --- slot ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "quorum_size"), SIZES)
def test_prepared_takes_the_primary_and_q_minus_1_backups(n: int, quorum_size: int) -> None:
    slot = accepted(quorum_size)
    assert slot.digest is not None
    for backup in range(1, n):
        assert slot.prepared == (backup - 1 >= quorum_size - 1)
        slot.add(PREPARE, backup, make_prepare(1, slot.digest, backup))
    assert slot.prepared


@pytest.mark.parametrize(("n", "quorum_size"), SIZES)
def test_committed_takes_q_commits(n: int, quorum_size: int) -> None:
    slot = accepted(quorum_size)
    assert slot.digest is not None
    for replica in range(n):
        assert slot.committed == (replica >= quorum_size)
        slot.add(COMMIT, replica, make_commit(1, slot.digest, replica))
    assert slot.committed
    assert [commit.replica for commit in slot.certificate().commits] == list(range(quorum_size))


def test_votes_without_a_proposal_prove_nothing() -> None:
    slot = Slot(0, 1, 0, 3)
    for replica in range(4):
        slot.add(PREPARE, replica, make_prepare(1, A, replica))
        slot.add(COMMIT, replica, make_commit(1, A, replica))
    assert not slot.prepared and not slot.committed


def test_votes_for_another_digest_do_not_count() -> None:
    slot = accepted()
    assert slot.digest is not None
    slot.add(PREPARE, 1, make_prepare(1, slot.digest, 1))
    slot.add(COMMIT, 1, make_commit(1, slot.digest, 1))
    slot.add(COMMIT, 0, make_commit(1, slot.digest, 0))
    for replica in (2, 3):
        slot.add(PREPARE, replica, make_prepare(1, B, replica))
        slot.add(COMMIT, replica, make_commit(1, B, replica))
    assert not slot.prepared and not slot.committed


def test_same_sender_counts_once_and_the_primary_is_no_backup() -> None:
    slot = accepted()
    assert slot.digest is not None
    for _ in range(3):
        slot.add(PREPARE, 1, make_prepare(1, slot.digest, 1))
        slot.add(COMMIT, 1, make_commit(1, slot.digest, 1))
    slot.add(PREPARE, 0, make_prepare(1, slot.digest, 0))
    assert not slot.prepared and not slot.committed


def test_first_message_of_a_sender_is_kept() -> None:
    slot = accepted()
    first = make_prepare(1, A, 2)
    slot.add(PREPARE, 2, first)
    slot.add(PREPARE, 2, make_prepare(1, B, 2))
    assert slot.kept(PREPARE, 2) is first


# --- certificate -----------------------------------------------------------------------------------------------------

GOOD = make_slot(3, make_command(1), make_command(2))


def judge(slot: CommittedSlot) -> str | None:
    return verify_certificate(slot, CLUSTER, (0, 1, 2, 3), 3, verify)


def with_commit(position: int, **changes: object) -> CommittedSlot:
    commits = list(GOOD.commits)
    commits[position] = msgspec.structs.replace(commits[position], **changes)
    return msgspec.structs.replace(GOOD, commits=tuple(commits))


@pytest.mark.parametrize("signers", list(itertools.combinations(range(4), 3)))
def test_any_quorum_is_a_certificate(signers: tuple[int, ...]) -> None:
    assert judge(make_slot(3, make_command(1), signers=signers)) is None
    assert judge(make_slot(3, make_command(1), signers=reversed(signers))) is None


def test_all_voters_are_a_certificate() -> None:
    assert judge(make_slot(3, make_command(1), signers=range(4))) is None


@pytest.mark.parametrize(
    ("slot", "reason"),
    [
        (make_slot(3, make_command(1), signers=()), "too_few_commits"),
        (make_slot(3, make_command(1), signers=(0, 1)), "too_few_commits"),
        (make_slot(3, make_command(1), signers=(0, 1, 1)), "signer_repeated"),
        (make_slot(3, make_command(1), signers=(0, 1, 4)), "signer_unknown"),
        (make_slot(3, make_command(1), signers=(0, 1, 2, 3, 3)), "too_many_commits"),
        (msgspec.structs.replace(GOOD, commands=GOOD.commands[::-1]), "digest_mismatch"),
        (msgspec.structs.replace(GOOD, commands=GOOD.commands[:1]), "digest_mismatch"),
        (msgspec.structs.replace(GOOD, digest=A), "commit_mismatch"),
        (msgspec.structs.replace(GOOD, sequence=4), "commit_mismatch"),
        (msgspec.structs.replace(GOOD, view=1), "commit_mismatch"),
        (with_commit(0, digest=A), "commit_mismatch"),
        (with_commit(1, sequence=2), "commit_mismatch"),
        (with_commit(2, view=1), "commit_mismatch"),
        (with_commit(2, replica=3), "signature_invalid"),
        (with_commit(0, signature=bytes(64)), "signature_invalid"),
    ],
)
def test_bad_certificates_are_named(slot: CommittedSlot, reason: str) -> None:
    assert judge(slot) == reason


def test_certificate_belongs_to_its_cluster_and_its_phase() -> None:
    assert verify_certificate(GOOD, b"another", (0, 1, 2, 3), 3, verify) is not None
    prepares = tuple(
        msgspec.structs.replace(commit, signature=make_prepare(3, GOOD.digest, commit.replica).signature)
        for commit in GOOD.commits
    )
    assert judge(msgspec.structs.replace(GOOD, commits=prepares)) == "signature_invalid"


# --- pending commands ------------------------------------------------------------------------------------------------


def waiting(*numbers: int, count_max: int = 8, size_bytes: int = 0) -> PendingCommands:
    pending = PendingCommands(count_max)
    for number in numbers:
        command = make_command(number, size_bytes)
        pending.add(command_digest(CLUSTER, command), command)
    return pending


def name(number: int) -> bytes:
    return command_digest(CLUSTER, make_command(number))


@pytest.mark.parametrize("count_max", [1, 2, 3])
def test_pending_refuses_the_newest_when_full(count_max: int) -> None:
    pending = waiting(*range(count_max), count_max=count_max)
    assert not pending.add(name(9), make_command(9))
    assert len(pending) == count_max and name(0) in pending and name(9) not in pending


def test_batch_is_bounded_by_count_and_bytes_and_keeps_order() -> None:
    pending = waiting(1, 2, 3, 4, 5)
    size_bytes = command_bytes(make_command(1))
    assert [command for _, command in pending.take_batch(2, 10**6)] == [make_command(1), make_command(2)]
    assert [command for _, command in pending.take_batch(9, 2 * size_bytes)] == [make_command(3), make_command(4)]
    assert [command for _, command in pending.take_batch(9, 10**6)] == [make_command(5)]
    assert pending.take_batch(9, 10**6) == () and len(pending) == 5


def test_age_runs_from_the_first_sight_of_the_clock_after_the_submission() -> None:
    pending = waiting(1)
    assert pending.unstamped and pending.oldest_ns is None
    pending.stamp(100)
    pending.add(name(2), make_command(2))
    pending.stamp(200)
    pending.stamp(300)
    assert pending.oldest_ns == 100
    pending.discard(name(1))
    assert pending.oldest_ns == 200
    pending.discard(name(2))
    assert pending.oldest_ns is None


def test_command_of_a_lost_proposal_waits_again() -> None:
    pending = waiting(1, 2)
    pending.mark_proposed(name(1))
    assert pending.unproposed_count == 1
    pending.mark_unproposed(name(1))
    pending.mark_unproposed(name(7))
    assert [command for _, command in pending.take_batch(9, 10**6)] == [make_command(2), make_command(1)]


def test_overdue_commands_are_those_old_enough() -> None:
    pending = waiting(1)
    pending.stamp(100)
    pending.add(name(2), make_command(2))
    pending.stamp(200)
    assert pending.overdue(150, 9, 10**6) == (make_command(1),)
    assert pending.overdue(99, 9, 10**6) == ()
    assert pending.unproposed_count == 2


# --- history ---------------------------------------------------------------------------------------------------------


def history(*sequences: int, executed_upto: int = 0, kept_max: int = 8) -> History:
    slots = [make_slot(sequence, make_command(sequence)) for sequence in sequences]
    return History(executed_upto, slots, kept_max, None)


@pytest.mark.parametrize("order", list(itertools.permutations((1, 2, 3))))
def test_slots_are_released_in_order_without_gaps(order: tuple[int, ...]) -> None:
    book, released = history(), []
    for sequence in order:
        book.decide(make_slot(sequence, make_command(sequence)))
        released += [slot.sequence for slot in book.release()]
        assert released == list(range(1, len(released) + 1)) and book.executed == len(released)
    assert released == [1, 2, 3]


def test_restored_slots_above_the_mark_are_released_again() -> None:
    book = history(3, 1, 2, 5, executed_upto=1)
    assert [slot.sequence for slot in book.release()] == [2, 3]
    assert book.executed == 3 and book.is_decided(5) and not book.is_decided(4) and book.waiting_count == 1


def test_history_is_bounded_and_the_archive_has_the_rest() -> None:
    book = history(*range(1, 8), kept_max=3)
    book.release()
    assert [book.get(sequence) is not None for sequence in range(1, 8)] == [False] * 4 + [True] * 3
    archived = History(7, [], 3, lambda sequence: make_slot(sequence, make_command(sequence)))
    assert [slot.sequence for slot in archived.chunk(2, 3, 10**6)] == [2, 3, 4]


def test_chunk_is_bounded_but_never_empty_when_there_is_something() -> None:
    book = history(1, 2, 3, 4)
    book.release()
    assert [slot.sequence for slot in book.chunk(2, 2, 10**6)] == [2, 3]
    assert [slot.sequence for slot in book.chunk(2, 9, 1)] == [2]
    assert [slot.sequence for slot in book.chunk(4, 9, 10**6)] == [4]
    assert book.chunk(5, 9, 10**6) == ()


def test_two_decisions_in_the_storage_stop_the_replica() -> None:
    with pytest.raises(LocalMisuse, match="two decisions"):
        History(0, [make_slot(1, make_command(1)), make_slot(1, make_command(2))], 8, None)


# --- timers and limits -----------------------------------------------------------------------------------------------


def test_catch_up_asks_at_once_then_seldom_and_sooner_on_evidence() -> None:
    timer = CatchUp(resend_ns=10, probe_ns=100)
    assert timer.deadline_ns == 0
    timer.asked(1000)
    assert timer.deadline_ns == 1100
    timer.hurry()
    assert timer.deadline_ns == 1010
    timer.asked(1010)
    assert timer.deadline_ns == 1110


@pytest.mark.parametrize("count_max", [1, 2, 3])
def test_peer_budget_is_per_peer_and_interval(count_max: int) -> None:
    budget = PeerBudget(count_max, 100)
    assert [budget.spend(1, 5) for _ in range(count_max + 1)] == [True] * count_max + [False]
    assert budget.spend(2, 5)
    assert not budget.spend(1, 104)
    assert budget.spend(1, 105)


@pytest.mark.parametrize("limits", [{"window": 0}, {"resend_ns": -1}, {"window": 65, "history_slots_max": 64}])
def test_config_refuses_nonsense(limits: dict[str, int]) -> None:
    with pytest.raises(LocalMisuse, match="PbftConfig"):
        PbftConfig(**limits)
