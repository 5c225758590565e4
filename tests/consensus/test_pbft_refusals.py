"""What a replica refuses, that it is counted, and what it keeps as evidence."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest

from consensus.pbft.core import Pbft
from consensus.pbft.safety import SafetyRules
from protocol.codes import Path
from protocol.messages import (
    Commit,
    Message,
    Prepare,
    PrePrepare,
    RequestVote,
    SignedCommand,
    SlotReply,
    SlotRequest,
    Submit,
)
from protocol.signing import batch_digest
from tests.oracles.pbft_bench import BAD, NOW, A, B, Bench, C, backup, config_with, decide, primary
from tests.oracles.pbft_cluster import (
    CLUSTER,
    CONFIG,
    make_command,
    make_commit,
    make_pre_prepare,
    make_prepare,
    make_slot,
    signer,
    validate,
    verify,
)

# --- what is refused, and that it is counted -------------------------------------------------------------------------

GOOD = make_pre_prepare(1, A)


def changed(message: Message, **changes: object) -> Message:
    return msgspec.structs.replace(message, **changes)


@pytest.mark.parametrize(
    ("sender", "message", "reason"),
    [
        (1, GOOD, "sender_unknown"),
        (4, GOOD, "sender_unknown"),
        (2, GOOD, "sender_mismatch"),
        (2, make_pre_prepare(1, A, primary=2), "not_the_primary"),
        (0, make_pre_prepare(1, A, view=1), "other_view"),
        (0, changed(GOOD, digest=b"short"), "digest_length"),
        (0, make_pre_prepare(0, A), "already_decided"),
        (0, make_pre_prepare(CONFIG.window + 1, A), "outside_window"),
        (0, make_pre_prepare(1), "command_count"),
        (0, make_pre_prepare(1, *(make_command(number) for number in range(5))), "command_count"),
        (0, make_pre_prepare(1, make_command(1, CONFIG.slot_bytes_max)), "slot_too_large"),
        (0, changed(GOOD, signature=bytes(32)), "signature_invalid"),
        (0, changed(GOOD, sequence=2), "signature_invalid"),
        (0, changed(GOOD, commands=(B,)), "digest_mismatch"),
        (0, make_pre_prepare(1, A, A), "command_repeated"),
        (0, make_pre_prepare(1, A, BAD), "command_repeated"),
        (0, make_pre_prepare(1, B, BAD), "command_invalid"),
        (2, make_prepare(1, GOOD.digest, 3), "sender_mismatch"),
        (0, make_prepare(1, GOOD.digest, 0), "prepare_by_primary"),
        (2, make_prepare(1, GOOD.digest, 2, view=1), "other_view"),
        (2, make_prepare(1, b"", 2), "digest_length"),
        (2, make_prepare(0, GOOD.digest, 2), "already_decided"),
        (2, make_prepare(CONFIG.window + 1, GOOD.digest, 2), "outside_window"),
        (2, changed(make_prepare(1, GOOD.digest, 2), signature=b""), "signature_invalid"),
        (2, Commit(0, 1, GOOD.digest, 2, make_prepare(1, GOOD.digest, 2).signature), "signature_invalid"),
        (2, make_commit(1, GOOD.digest, 2, view=1), "other_view"),
        (2, make_commit(2**64 - 1, GOOD.digest, 2), "outside_window"),
        (2, SlotRequest(3, 1), "sender_mismatch"),
        (2, SlotReply((make_slot(1, A),) * 5), "reply_too_long"),
        (2, SlotReply((make_slot(CONFIG.window + 1, A),)), "outside_window"),
        (2, SlotReply((make_slot(1, A, view=1),)), "other_view"),
        (2, SlotReply((make_slot(1, A, signers=(0, 2)),)), "certificate_too_few_commits"),
        (2, RequestVote(1, 2, 0, 0, False), "not_for_the_spine"),
        (2, Submit(Path.LANE, True, A), "not_for_the_spine"),
        (2, Submit(Path.SPINE, True, BAD), "command_invalid"),
    ],
)
def test_bad_messages_are_counted_and_change_nothing(sender: int, message: Message, reason: str) -> None:
    bench = backup()
    bench.step(sender, message)
    assert bench.machine.ignored == {reason: 1}
    assert not bench.phases and not bench.executed and not bench.sent
    decide(bench, 1, C)
    assert bench.machine.executed == 1 or reason in ("digest_mismatch", "command_repeated", "command_invalid")


def test_signature_is_checked_last_and_only_when_it_matters() -> None:
    bench = backup()
    bench.step(2, make_prepare(CONFIG.window + 1, GOOD.digest, 2))
    bench.step(0, make_pre_prepare(1, A, view=1))
    assert bench.verified == []
    bench.step(0, GOOD)
    bench.step(2, make_prepare(1, GOOD.digest, 2))
    assert bench.verified == [0, 2]
    bench.step(0, GOOD)
    bench.step(2, make_prepare(1, GOOD.digest, 2))
    bench.step(3, make_prepare(1, GOOD.digest, 3))
    assert (
        bench.verified == [0, 2] and bench.machine.ignored["duplicate"] == 2 and bench.machine.ignored["surplus"] == 1
    )


def test_refused_proposal_costs_one_signature_check() -> None:
    bench = backup()
    for _ in range(3):
        bench.step(0, make_pre_prepare(1, BAD))
    assert bench.verified == [0] and bench.machine.ignored == {"command_invalid": 1, "duplicate": 2}


def test_repeated_command_is_refused_while_ordered_elsewhere_and_after() -> None:
    bench = backup()
    bench.step(0, make_pre_prepare(2, A))
    bench.step(0, make_pre_prepare(3, A))
    assert bench.machine.ignored["command_repeated"] == 1
    decide(bench, 1, B)
    bench.step(0, make_pre_prepare(4, B))
    assert bench.machine.ignored["command_repeated"] == 2


def test_submissions_are_deduplicated_by_digest() -> None:
    bench = primary()
    bench.submit(A, A)
    bench.submit(A)
    digest = batch_digest(CLUSTER, (A,))
    for replica in (1, 2):
        bench.step(replica, make_prepare(1, digest, replica))
        bench.step(replica, make_commit(1, digest, replica))
    bench.submit(A)
    assert bench.machine.ignored == {"command_pending": 2, "command_committed": 1}
    assert len(bench.of(PrePrepare)) == 1


def test_bad_submissions_are_counted() -> None:
    bench = Bench(1, config_with(pending_max=1))
    bench.submit(BAD, make_command(1, CONFIG.slot_bytes_max), A, B)
    assert bench.machine.ignored == {"command_invalid": 1, "command_too_large": 1, "pending_full": 1}


def test_validated_command_is_not_validated_again_but_another_signature_is() -> None:
    asked: list[SignedCommand] = []

    def count(command: SignedCommand) -> str | None:
        asked.append(command)
        return validate(command)

    safety = SafetyRules(1, CLUSTER, signer(1))
    machine = Pbft(1, range(4), 3, CLUSTER, safety, verify, CONFIG, count)
    machine.submit(A)
    machine.step(0, make_pre_prepare(1, A), NOW)
    assert asked == [A]
    machine.submit(B)
    forged = msgspec.structs.replace(B, signature=bytes(32))
    machine.step(0, make_pre_prepare(2, forged), NOW)
    assert asked == [A, B, forged] and machine.ignored["command_invalid"] == 1


# --- evidence --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [make_prepare, make_commit])
def test_two_digests_of_one_sender_are_evidence_and_count_once(make: Callable[..., Message]) -> None:
    bench = backup()
    first, second = make(1, bytes(32), 2), make(1, GOOD.digest, 2)
    for message in (first, second, second):
        bench.step(2, message)
    assert bench.machine.ignored["equivocation"] == 2
    (item,) = bench.machine.evidence
    assert (item.kind, item.sender, item.first, item.second) == ("equivocation", 2, first, second)
    bench.step(0, GOOD)
    bench.step(3, make_prepare(1, bytes(32), 3))
    assert not bench.of(Commit), "neither the second message nor one for another digest counts"


def test_equivocating_primary_is_evidence() -> None:
    bench = backup()
    bench.step(0, GOOD)
    bench.step(0, make_pre_prepare(1, B))
    (item,) = bench.machine.evidence
    assert (item.first, item.second) == (GOOD, make_pre_prepare(1, B))
    assert len(bench.phases) == 1
    status = bench.machine.status()
    assert status["evidence"] == [{"kind": "equivocation", "sender": 0, "sequence": 1}]
    assert msgspec.json.decode(msgspec.json.encode(status)) == status


def test_forged_second_message_is_no_evidence() -> None:
    bench = backup()
    bench.step(2, make_prepare(1, GOOD.digest, 2))
    bench.step(2, Prepare(0, 1, bytes(32), 2, bytes(32)))
    assert bench.machine.ignored == {"signature_invalid": 1} and not bench.machine.evidence
