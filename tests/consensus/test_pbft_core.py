"""One replica of the spine, message by message: the ordinary case and what survives a restart."""

from __future__ import annotations

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from consensus.machine import BROADCAST, Machine, SignedPhase, SlotCommit
from consensus.pbft.core import Pbft
from consensus.pbft.safety import COMMIT, PREPARE, SafetyRules
from protocol.errors import LocalMisuse
from protocol.messages import Commit, Prepare, PrePrepare, SlotReply
from protocol.signing import batch_digest
from tests.oracles.pbft_bench import NOW, A, B, Bench, C, backup, config_with, primary
from tests.oracles.pbft_cluster import (
    CLUSTER,
    CONFIG,
    make_command,
    make_commit,
    make_pre_prepare,
    make_prepare,
    make_slot,
    validate,
)

# --- the ordinary case -----------------------------------------------------------------------------------------------


def test_backup_goes_through_all_phases_and_executes() -> None:
    bench = backup()
    message = make_pre_prepare(1, A, B)
    bench.step(0, message)
    assert bench.of(Prepare) == [make_prepare(1, message.digest, 1)]
    bench.step(2, make_prepare(1, message.digest, 2))
    assert bench.of(Commit) == [make_commit(1, message.digest, 1)]
    bench.step(0, make_commit(1, message.digest, 0))
    assert not bench.executed
    bench.step(3, make_commit(1, message.digest, 3))
    assert bench.executed == [make_slot(1, A, B, signers=(0, 1, 3))] == bench.slots
    assert [record.phase for record in bench.phases] == [PREPARE, COMMIT]
    assert bench.phases[0].commands == (A, B) and bench.phases[1].commands == ()
    assert bench.machine.executed == 1 and not bench.machine.ignored


def test_primary_puts_everything_pending_into_one_slot() -> None:
    bench = primary()
    bench.submit(A, B)
    assert bench.of(PrePrepare) == [make_pre_prepare(1, A, B)]
    bench.submit(C)
    assert bench.of(PrePrepare) == [make_pre_prepare(2, C)]
    digest = batch_digest(CLUSTER, (A, B))
    for replica in (1, 2):
        bench.step(replica, make_prepare(1, digest, replica))
    assert bench.of(Commit) == [make_commit(1, digest, 0)]
    for replica in (1, 2):
        bench.step(replica, make_commit(1, digest, replica))
    assert bench.executed == [make_slot(1, A, B)]


@pytest.mark.parametrize(("count_max", "sizes"), [(1, [1, 1, 1, 1, 1]), (2, [2, 2, 1]), (3, [3, 2])])
def test_a_slot_is_bounded_by_commands(count_max: int, sizes: list[int]) -> None:
    bench = Bench(0, config_with(commands_per_slot_max=count_max))
    bench.submit(*(make_command(number) for number in range(5)))
    slots = bench.of(PrePrepare)
    assert [len(slot.commands) for slot in slots if isinstance(slot, PrePrepare)] == sizes


def test_window_bounds_the_slots_in_flight() -> None:
    bench = primary()
    for number in range(CONFIG.window + 5):
        bench.submit(make_command(number))
    assert len(bench.of(PrePrepare)) == CONFIG.window
    digest = batch_digest(CLUSTER, (make_command(0),))
    for replica in (1, 2):
        bench.step(replica, make_prepare(1, digest, replica))
        bench.step(replica, make_commit(1, digest, replica))
    (message,) = bench.of(PrePrepare)
    assert isinstance(message, PrePrepare) and message.sequence == CONFIG.window + 1
    assert len(message.commands) == min(5, CONFIG.commands_per_slot_max)


def test_slots_decided_out_of_order_are_executed_in_order() -> None:
    bench = backup()
    first, second = make_pre_prepare(1, A), make_pre_prepare(2, B)
    for message in (second, first):
        bench.step(0, message)
    for message in (second, first):
        assert not bench.executed
        for replica in (0, 2, 3):
            bench.step(replica, make_commit(message.sequence, message.digest, replica))
    assert [slot.sequence for slot in bench.executed] == [1, 2] == [slot.sequence for slot in bench.slots]


def test_a_single_voter_decides_alone() -> None:
    bench = Bench(0, n=1, quorum_size=1)
    bench.submit(A)
    bench.submit(B)
    assert [slot.sequence for slot in bench.executed] == [1, 2]


def test_real_keys() -> None:
    keys = [Ed25519PrivateKey.generate() for _ in range(4)]

    def check(replica: int, payload: bytes, signature: bytes) -> bool:
        try:
            keys[replica].public_key().verify(signature, payload)
        except InvalidSignature:
            return False
        return True

    def build(own: int) -> Pbft:
        safety = SafetyRules(own, CLUSTER, keys[own].sign)
        return Pbft(own, range(4), 3, CLUSTER, safety, check, CONFIG, validate)

    machines = [build(own) for own in range(4)]
    executed: list[list[bytes]] = [[] for _ in machines]
    machines[0].submit(A)
    for _ in range(6):
        for machine in machines:
            ready = machine.take_ready()
            machine.persisted(ready)
            executed[machine.own] += [slot.digest for slot in ready.committed_slots]
            for item in (*ready.send_now, *ready.send_after_sync):
                for peer in machines:
                    if peer is not machine and item.destination in (BROADCAST, peer.own):
                        peer.step(machine.own, item.message, NOW)
    assert executed == [[batch_digest(CLUSTER, (A,))]] * 4
    forged = make_commit(2, bytes(32), 1)
    machines[0].step(1, forged, NOW)
    assert machines[0].ignored["signature_invalid"] == 1


def test_pbft_is_a_machine() -> None:
    machine: Machine = backup().machine
    assert machine.next_deadline_ns() is not None


# --- durability ------------------------------------------------------------------------------------------------------


def test_promises_leave_after_their_record_and_count_only_then() -> None:
    bench = backup()
    message = make_pre_prepare(1, A)
    machine = bench.machine
    machine.step(0, message, NOW)
    machine.step(2, make_prepare(1, message.digest, 2), NOW)
    ready = machine.take_ready()
    assert [type(item.message) for item in ready.send_after_sync] == [Prepare] and not ready.send_now
    assert [record.phase for record in ready.records if isinstance(record, SignedPhase)] == [PREPARE]
    assert machine.take_ready().empty, "own PREPARE must not count before it is durable"
    machine.persisted(ready)
    ready = machine.take_ready()
    assert [type(item.message) for item in ready.send_after_sync] == [Commit]
    for replica in (0, 2):
        machine.step(replica, make_commit(1, message.digest, replica), NOW)
    assert machine.take_ready().empty, "own COMMIT must not count before it is durable"
    machine.persisted(ready)
    ready = machine.take_ready()
    assert ready.committed_slots == [make_slot(1, A)] and ready.records == [SlotCommit(make_slot(1, A))]


def test_primary_does_not_count_a_proposal_that_is_not_durable() -> None:
    machine = primary().machine
    machine.submit(A)
    ready = machine.take_ready()
    digest = batch_digest(CLUSTER, (A,))
    for replica in (1, 2, 3):
        machine.step(replica, make_prepare(1, digest, replica), NOW)
        machine.step(replica, make_commit(1, digest, replica), NOW)
    assert machine.take_ready().empty
    machine.persisted(ready)
    assert [slot.sequence for slot in machine.take_ready().committed_slots] == [1]


def test_nothing_that_is_not_durable_is_sent_again() -> None:
    bench = backup()
    bench.machine.step(0, make_pre_prepare(1, A), NOW)
    unwritten = bench.machine.take_ready()
    assert unwritten.records
    bench.tick(10 * CONFIG.resend_ns)
    assert not bench.of(Prepare)


def test_restart_repeats_the_same_promises_and_goes_on() -> None:
    bench = backup()
    message = make_pre_prepare(1, A)
    bench.step(0, message)
    bench.step(2, make_prepare(1, message.digest, 2))
    before = bench.of(Prepare) + bench.of(Commit)
    again = bench.restarted()
    again.tick()
    assert again.of(Prepare) + again.of(Commit) == before and again.phases == bench.phases
    for replica in (0, 3):
        again.step(replica, make_commit(1, message.digest, replica))
    assert again.executed == [make_slot(1, A, signers=(0, 1, 3))]


def test_restarted_backup_supports_no_other_digest() -> None:
    bench = backup()
    bench.step(0, make_pre_prepare(1, A))
    again = bench.restarted()
    again.step(0, make_pre_prepare(1, B))
    assert again.machine.ignored["equivocation"] == 1 and again.phases == bench.phases
    assert again.machine.evidence[0].sender == 0


def test_restarted_primary_reuses_no_sequence_and_no_command() -> None:
    bench = primary()
    bench.submit(A)
    again = bench.restarted()
    again.submit(A)
    again.submit(B)
    assert again.of(PrePrepare) == [make_pre_prepare(2, B)]
    assert again.machine.ignored["command_pending"] == 1
    again.tick()
    assert again.of(PrePrepare)[:1] == [make_pre_prepare(1, A)]


def test_primary_proposes_nothing_where_something_is_decided() -> None:
    bench = primary()
    bench.step(2, SlotReply((make_slot(2, A),)))
    bench.submit(B)
    bench.submit(C)
    assert [message.sequence for message in bench.of(PrePrepare) if isinstance(message, PrePrepare)] == [1, 3]


def test_proposal_lost_in_a_crash_frees_its_sequence() -> None:
    machine = primary().machine
    machine.submit(A)
    machine.take_ready()
    again = Bench(0)
    again.submit(B)
    assert again.of(PrePrepare) == [make_pre_prepare(1, B)]


@pytest.mark.parametrize("executed_upto", [0, 1, 2, 3])
def test_restart_hands_out_what_the_application_has_not_executed(executed_upto: int) -> None:
    slots = [make_slot(sequence, make_command(sequence)) for sequence in (1, 2, 3)]
    bench = Bench(1, slots=slots, executed_upto=executed_upto)
    bench.drain()
    assert bench.executed == slots[executed_upto:] and bench.slots == slots
    assert bench.machine.executed == 3


def test_commands_of_restored_slots_are_not_ordered_again() -> None:
    bench = Bench(0, slots=[make_slot(1, A)], executed_upto=1)
    bench.submit(A)
    assert bench.machine.ignored["command_committed"] == 1 and not bench.of(PrePrepare)


def test_unusable_storage_stops_the_replica() -> None:
    with pytest.raises(LocalMisuse, match="view"):
        Bench(1, phases=[SignedPhase(1, 1, PREPARE, bytes(32), (), b"")])
    with pytest.raises(LocalMisuse, match="before it"):
        Bench(1, phases=[SignedPhase(0, CONFIG.window + 1, PREPARE, bytes(32), (), b"")])


@pytest.mark.parametrize(("own", "n", "quorum_size"), [(4, 4, 3), (0, 4, 2), (0, 4, 5)])
def test_impossible_groups_are_refused(own: int, n: int, quorum_size: int) -> None:
    with pytest.raises(LocalMisuse):
        Bench(own, n=n, quorum_size=quorum_size)
