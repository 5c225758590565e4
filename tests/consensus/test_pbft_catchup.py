"""Retransmission, catching up, relaying, and when the primary becomes suspect."""

from __future__ import annotations

import itertools

import pytest

from protocol.codes import Path
from protocol.messages import (
    Commit,
    Message,
    Prepare,
    PrePrepare,
    SlotReply,
    SlotRequest,
    Submit,
)
from tests.oracles.pbft_bench import NOW, A, B, Bench, C, backup, config_with, decide, primary
from tests.oracles.pbft_cluster import (
    CONFIG,
    MS,
    make_command,
    make_commit,
    make_pre_prepare,
    make_prepare,
    make_slot,
)

GOOD = make_pre_prepare(1, A)

# --- retransmission and catching up ----------------------------------------------------------------------------------


def test_unfinished_slot_is_sent_again_with_back_off() -> None:
    bench = backup()
    bench.step(0, GOOD)
    bench.step(2, make_prepare(1, GOOD.digest, 2))
    bench.sent.clear()
    times: list[int] = []
    for _ in range(100):
        bench.tick(CONFIG.resend_ns // 4)
        if bench.of(Prepare):
            times.append(bench.now_ns - NOW)
            assert bench.of(Commit)
    gaps = [(later - earlier) // CONFIG.resend_ns for earlier, later in itertools.pairwise(times)]
    assert times[0] == CONFIG.resend_ns and gaps[:4] == [2, 4, 4, 4]


def test_primary_sends_its_proposal_again() -> None:
    bench = primary()
    bench.submit(A)
    bench.tick()
    bench.sent.clear()
    bench.tick(CONFIG.resend_ns)
    assert bench.of(PrePrepare) == [GOOD]


def test_a_deadline_is_met_by_the_tick_it_asks_for() -> None:
    bench = backup()
    bench.submit(A)
    bench.step(0, make_pre_prepare(1, B))
    for _ in range(50):
        deadline_ns = bench.machine.next_deadline_ns()
        bench.now_ns = max(bench.now_ns, deadline_ns)
        bench.tick()
        assert bench.machine.next_deadline_ns() > bench.now_ns


def test_start_asks_peers_once_and_idleness_asks_seldom() -> None:
    bench = Bench(1)
    bench.tick()
    assert bench.of(SlotRequest) == [SlotRequest(1, 1)]
    bench.tick(CONFIG.probe_ns - 1)
    assert not bench.of(SlotRequest)
    bench.tick(1)
    assert bench.of(SlotRequest) == [SlotRequest(1, 1)]


@pytest.mark.parametrize(
    "message",
    [
        make_commit(CONFIG.window + 1, GOOD.digest, 2),
        SlotRequest(2, 3),
        SlotReply((make_slot(CONFIG.window + 1, A),)),
    ],
)
def test_evidence_of_being_behind_asks_soon(message: Message) -> None:
    bench = backup()
    bench.step(2, message)
    bench.tick(CONFIG.resend_ns)
    assert bench.of(SlotRequest) == [SlotRequest(1, 1)]


def test_a_gap_asks_after_the_first_retransmission() -> None:
    bench = backup()
    bench.step(0, make_pre_prepare(2, A))
    bench.tick(CONFIG.resend_ns - 1)
    assert not bench.of(SlotRequest)
    bench.tick(1)
    assert bench.of(SlotRequest) == [SlotRequest(1, 1)]


def test_request_is_answered_in_bounded_replies() -> None:
    slots = [make_slot(sequence, make_command(sequence)) for sequence in range(1, 8)]
    bench = Bench(1, slots=slots, executed_upto=7)
    bench.tick()
    bench.sent.clear()
    bench.step(2, SlotRequest(2, 3))
    assert bench.sent == [(2, SlotReply(tuple(slots[2:6])))]
    bench.sent.clear()
    for from_sequence in (8, 9):
        bench.step(2, SlotRequest(2, from_sequence))
    assert not bench.sent and not bench.machine.ignored
    bench.step(2, SlotRequest(2, 0))
    assert bench.of(SlotReply) == [SlotReply(tuple(slots[:4]))]


def test_greedy_peer_is_answered_within_its_budget() -> None:
    bench = Bench(1, slots=[make_slot(1, A)], executed_upto=1)
    for _ in range(50):
        bench.step(2, SlotRequest(2, 1))
    assert len(bench.of(SlotReply)) == 8 and bench.machine.ignored["request_too_often"] == 42
    for _ in range(50):
        bench.step(2, make_prepare(1, GOOD.digest, 2))
    assert len(bench.of(SlotReply)) == CONFIG.window


def test_request_below_the_history_is_counted() -> None:
    config = config_with(history_slots_max=8)
    slots = [make_slot(sequence, make_command(sequence)) for sequence in range(1, 11)]
    bench = Bench(1, config, slots=slots, executed_upto=10)
    bench.step(2, SlotRequest(2, 1))
    assert bench.machine.ignored["request_below_history"] == 1 and not bench.of(SlotReply)


def test_reply_is_executed_and_the_next_one_asked_for() -> None:
    bench = backup()
    slots = tuple(make_slot(sequence, make_command(sequence)) for sequence in (1, 2, 3))
    bench.step(3, SlotReply(slots))
    assert bench.executed == list(slots) == bench.slots
    assert bench.sent == [(3, SlotRequest(1, 4))]
    bench.step(3, SlotReply(slots))
    assert bench.machine.ignored == {"already_decided": 3} and len(bench.executed) == 3


def test_bad_slot_ends_the_reply_but_not_what_came_before() -> None:
    bench = backup()
    reply = SlotReply((make_slot(1, A), make_slot(2, B, signers=(0, 1)), make_slot(3, C)))
    bench.step(3, reply)
    assert [slot.sequence for slot in bench.executed] == [1]
    assert bench.machine.ignored == {"certificate_too_few_commits": 1}


def test_certificate_overrides_the_own_proposal_of_an_equivocating_primary() -> None:
    bench = backup()
    bench.submit(A)
    bench.step(0, GOOD)
    bench.step(2, SlotReply((make_slot(1, B, signers=(0, 2, 3)),)))
    assert [slot.commands for slot in bench.executed] == [(B,)]
    bench.of(Submit)
    bench.tick(CONFIG.resend_ns)
    assert bench.of(Submit) == [Submit(Path.SPINE, True, A)], "A waits for another proposal"
    bench.step(0, make_pre_prepare(2, A))
    assert bench.of(Prepare)[-1] == make_prepare(2, make_pre_prepare(2, A).digest, 1)


def test_command_decided_above_a_gap_is_not_relayed() -> None:
    bench = backup()
    bench.submit(A)
    bench.step(2, SlotReply((make_slot(2, A),)))
    bench.tick(10 * CONFIG.resend_ns)
    assert not bench.of(Submit) and not bench.executed
    assert bench.machine.oldest_pending_age_ns(bench.now_ns) == 10 * CONFIG.resend_ns, "it is not executed yet"


def test_late_prepare_is_answered_with_the_slot() -> None:
    bench = backup()
    slot = decide(bench, 1, A)
    bench.sent.clear()
    bench.step(3, make_commit(1, slot.digest, 3))
    assert not bench.sent
    bench.step(3, make_prepare(1, slot.digest, 3))
    bench.step(0, GOOD)
    assert bench.sent == [(3, SlotReply((slot,))), (0, SlotReply((slot,)))]


def test_overdue_command_is_relayed_to_the_primary() -> None:
    bench = backup()
    bench.submit(A)
    bench.tick()
    assert not bench.of(Submit)
    bench.tick(CONFIG.resend_ns)
    assert bench.sent[:1] == [(0, Submit(Path.SPINE, True, A))]
    assert len(bench.of(Submit)) == 1
    bench.tick(CONFIG.resend_ns)
    assert not bench.of(Submit)
    bench.tick(CONFIG.resend_ns)
    assert len(bench.of(Submit)) == 1
    decide(bench, 1, A)
    bench.tick(100 * CONFIG.resend_ns)
    assert not bench.of(Submit)


def test_relayed_command_is_proposed() -> None:
    bench = primary()
    bench.step(2, Submit(Path.SPINE, True, A))
    assert bench.of(PrePrepare) == [GOOD]


# --- suspicion -------------------------------------------------------------------------------------------------------


def test_primary_is_suspect_when_a_command_waits_too_long() -> None:
    bench = backup()
    bench.submit(A)
    bench.now_ns += 3600 * 1000 * MS
    assert not bench.machine.primary_suspect(bench.now_ns), "idle hours before the submission do not count"
    bench.tick()
    bench.tick(CONFIG.suspect_ns)
    assert not bench.machine.primary_suspect(bench.now_ns)
    assert bench.machine.oldest_pending_age_ns(bench.now_ns) == CONFIG.suspect_ns
    bench.tick(1)
    assert bench.machine.primary_suspect(bench.now_ns)
    decide(bench, 1, A)
    assert not bench.machine.primary_suspect(bench.now_ns)


def test_primary_is_suspect_when_its_own_proposal_stalls() -> None:
    bench = backup()
    bench.step(0, GOOD)
    assert not bench.machine.primary_suspect(bench.now_ns + CONFIG.suspect_ns)
    assert bench.machine.primary_suspect(bench.now_ns + CONFIG.suspect_ns + 1)
    again = bench.restarted()
    again.now_ns += 3600 * 1000 * MS
    assert not again.machine.primary_suspect(again.now_ns)
    again.tick()
    assert again.machine.primary_suspect(again.now_ns + CONFIG.suspect_ns + 1)


def test_a_lone_vote_makes_nobody_suspect() -> None:
    bench = backup()
    bench.step(3, make_commit(5, bytes(32), 3))
    assert not bench.machine.primary_suspect(bench.now_ns + 100 * CONFIG.suspect_ns)
