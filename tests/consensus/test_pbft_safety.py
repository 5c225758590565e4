"""What may be signed, and what never, also across restarts."""

from __future__ import annotations

import random

import pytest

from consensus.machine import SignedPhase
from consensus.pbft.safety import COMMIT, PHASES, PRE_PREPARE, PREPARE, SafetyRefusal, SafetyRules
from protocol.errors import LocalMisuse
from protocol.signing import phase_bytes
from tests.oracles.pbft_cluster import CLUSTER, make_command, signer, verify

A, B = bytes([1]) * 32, bytes([2]) * 32
COMMANDS = (make_command(1),)


class CountingSigner:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self, payload: bytes) -> bytes:
        self.count += 1
        return signer(1)(payload) + self.count.to_bytes(4, "little")


def rules(*restored: SignedPhase) -> SafetyRules:
    return SafetyRules(1, CLUSTER, signer(1), restored)


def ask(safety: SafetyRules, phase: str, view: int, sequence: int, digest: bytes) -> SignedPhase:
    if phase == PRE_PREPARE:
        return safety.sign_pre_prepare(view, sequence, digest, COMMANDS)
    if phase == PREPARE:
        return safety.sign_prepare(view, sequence, digest, COMMANDS)
    return safety.sign_commit(view, sequence, digest)


@pytest.mark.parametrize("phase", PHASES)
def test_signs_the_bytes_of_its_phase_and_place(phase: str) -> None:
    safety = rules()
    if phase == COMMIT:
        safety.sign_prepare(0, 5, A, COMMANDS)
    record = ask(safety, phase, 0, 5, A)
    assert (record.view, record.sequence, record.phase, record.digest) == (0, 5, phase, A)
    assert record.commands == (() if phase == COMMIT else COMMANDS)
    assert verify(1, phase_bytes(CLUSTER, phase, 0, 5, A, 1), record.signature)


def test_same_question_gets_the_same_signature() -> None:
    sign = CountingSigner()
    safety = SafetyRules(1, CLUSTER, sign)
    assert safety.sign_prepare(0, 1, A, COMMANDS) is safety.sign_prepare(0, 1, A, COMMANDS)
    assert safety.sign_commit(0, 1, A) is safety.sign_commit(0, 1, A)
    assert sign.count == 2


def test_restart_repeats_the_old_signature_and_signs_nothing_new() -> None:
    first = SafetyRules(1, CLUSTER, CountingSigner())
    kept = [first.sign_prepare(0, 1, A, COMMANDS), first.sign_commit(0, 1, A)]
    sign = CountingSigner()
    second = SafetyRules(1, CLUSTER, sign, kept)
    assert [second.sign_prepare(0, 1, A, COMMANDS), second.sign_commit(0, 1, A)] == kept
    assert sign.count == 0


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize(
    ("given", "asked"),
    [
        (PRE_PREPARE, PRE_PREPARE),
        (PREPARE, PREPARE),
        (PRE_PREPARE, PREPARE),
        (PREPARE, PRE_PREPARE),
        (PREPARE, COMMIT),
        (PRE_PREPARE, COMMIT),
    ],
)
def test_second_digest_is_refused_with_both(given: str, asked: str, restart: bool) -> None:
    safety = rules()
    record = ask(safety, given, 0, 3, A)
    if restart:
        safety = rules(record)
    with pytest.raises(SafetyRefusal) as caught:
        ask(safety, asked, 0, 3, B)
    refusal = caught.value
    assert (refusal.rule, refusal.asked, refusal.signed) == ("other_digest_signed", B, A)
    assert (refusal.view, refusal.sequence, refusal.phase) == (0, 3, asked)
    assert A.hex() in str(refusal) and B.hex() in str(refusal)


def test_other_sequence_and_other_view_are_other_promises() -> None:
    safety = rules()
    safety.sign_prepare(0, 1, A, COMMANDS)
    safety.sign_prepare(0, 2, B, COMMANDS)
    safety.sign_prepare(1, 1, B, COMMANDS)


@pytest.mark.parametrize("first", [PRE_PREPARE, PREPARE])
def test_commit_needs_the_first_promise(first: str) -> None:
    safety = rules()
    with pytest.raises(SafetyRefusal) as caught:
        safety.sign_commit(0, 1, A)
    assert (caught.value.rule, caught.value.signed) == ("commit_unprepared", None)
    ask(safety, first, 0, 1, A)
    assert safety.sign_commit(0, 1, A).digest == A


def test_commit_is_bound_to_its_view() -> None:
    safety = rules()
    safety.sign_prepare(0, 1, A, COMMANDS)
    with pytest.raises(SafetyRefusal):
        safety.sign_commit(1, 1, A)


def test_nothing_is_signed_at_or_below_the_settled_mark() -> None:
    safety = rules()
    safety.sign_prepare(0, 1, A, COMMANDS)
    safety.sign_prepare(0, 3, A, COMMANDS)
    safety.settle(2)
    for sequence in (1, 2):
        with pytest.raises(SafetyRefusal) as caught:
            safety.sign_prepare(0, sequence, B, COMMANDS)
        assert caught.value.rule == "settled"
    with pytest.raises(SafetyRefusal):
        safety.sign_prepare(0, 3, B, COMMANDS)
    safety.settle(1)
    assert safety.settled == 2


def test_contradicting_storage_stops_the_replica() -> None:
    one = rules().sign_prepare(0, 1, A, COMMANDS)
    other = rules().sign_prepare(0, 1, B, COMMANDS)
    with pytest.raises(LocalMisuse, match="two digests"):
        rules(one, other)
    with pytest.raises(LocalMisuse, match="phase"):
        rules(SignedPhase(0, 1, "vote", A, (), b""))


@pytest.mark.parametrize("seed", range(20))
def test_no_sequence_of_questions_and_restarts_gets_two_digests(seed: int) -> None:
    chance = random.Random(seed)
    records: list[SignedPhase] = []
    safety = rules()
    for _ in range(300):
        if chance.random() < 0.05:
            safety = rules(*chance.sample(records, len(records)))
        try:
            records.append(
                ask(safety, chance.choice(PHASES), chance.randint(0, 1), chance.randint(1, 4), chance.choice((A, B)))
            )
        except SafetyRefusal:
            continue
    digests: dict[tuple[int, int], set[bytes]] = {}
    for record in records:
        digests.setdefault((record.view, record.sequence), set()).add(record.digest)
    assert all(len(found) == 1 for found in digests.values()), f"seed {seed}"
