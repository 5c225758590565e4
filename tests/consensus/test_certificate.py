from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.certificate import (
    INTENTS_MAX,
    POSITIONS_PER_REPLICA,
    Certificate,
    VoteBook,
    outcome_error,
    settle,
    verify_certificate,
    vote_error,
)
from protocol.codes import DenyCode, Path
from protocol.messages import Denial, FrameVote, Outcome
from tests.oracles.signed_frames import CLUSTER, DENIAL, QUORUM, VOTERS, make_vote, verify

DIGEST = b"d" * 32
COLLAR, RATE = DenyCode.PRICE_COLLAR, DenyCode.SUBMIT_RATE


def make_book(max_frames: int = 100) -> VoteBook:
    return VoteBook(QUORUM, DENIAL, VOTERS, max_frames)


def make_certificate(*votes: FrameVote) -> Certificate:
    return Certificate(Path.LANE, DIGEST, 1, 8, votes)


def certificate_error(certificate: Certificate, intent: int = 0) -> str | None:
    return verify_certificate(certificate, CLUSTER, intent, QUORUM, VOTERS, verify)


# --- one vote


def test_signed_vote_error() -> None:
    assert vote_error(CLUSTER, make_vote(2, denials=((0, COLLAR), (3, RATE))), VOTERS, verify) is None


@pytest.mark.parametrize(
    ("vote", "reason"),
    [
        (make_vote(4), "vote_of_a_stranger"),
        (make_vote(1, path=3), "vote_path_unknown"),
        (make_vote(1, b"short"), "vote_digest_malformed"),
        (make_vote(1, path=Path.SPINE), "vote_position_malformed"),
        (make_vote(1, term=0), "vote_position_malformed"),
        (make_vote(1, index=0), "vote_position_malformed"),
        (make_vote(1, denials=((0, 0),)), "vote_denial_malformed"),
        (make_vote(1, denials=((INTENTS_MAX, RATE),)), "vote_denial_malformed"),
        (make_vote(1, denials=((1, RATE), (0, RATE))), "vote_denials_out_of_order"),
        (make_vote(1, denials=((1, RATE), (1, COLLAR))), "vote_denials_out_of_order"),
    ],
)
def test_malformed_vote_is_refused_though_signed(vote: FrameVote, reason: str) -> None:
    assert vote_error(CLUSTER, vote, VOTERS, verify) == reason


@pytest.mark.parametrize(
    "change",
    [
        {"replica": 2},
        {"path": Path.SPINE, "term": 0, "index": 0},
        {"term": 2},
        {"index": 9},
        {"digest": b"e" * 32},
        {"denials": (Denial(0, RATE),)},
    ],
)
def test_signature_covers_every_field(change: dict[str, object]) -> None:
    vote = msgspec.structs.replace(make_vote(1), **change)
    assert vote_error(CLUSTER, vote, VOTERS, verify) == "vote_signature_invalid"
    assert vote_error(b"x" * 16, make_vote(1), VOTERS, verify) == "vote_signature_invalid"


# --- settling


def test_settles_per_intent_at_quorum_and_denial_size() -> None:
    votes = [make_vote(0, denials=((1, RATE),)), make_vote(1, denials=((1, RATE), (2, COLLAR))), make_vote(2)]
    assert settle(votes[:1], 3, QUORUM, DENIAL) == (None, None, None)
    assert settle(votes[:2], 3, QUORUM, DENIAL) == (None, RATE, None)
    assert settle(votes, 3, QUORUM, DENIAL) == (0, RATE, None)
    assert settle([*votes, make_vote(3)], 3, QUORUM, DENIAL) == (0, RATE, 0)


def test_denial_names_the_most_frequent_code_and_the_smallest_of_a_tie() -> None:
    tie = [make_vote(0, denials=((0, RATE),)), make_vote(1, denials=((0, COLLAR),))]
    assert settle(tie, 1, QUORUM, DENIAL) == (COLLAR,)
    assert settle([*tie, make_vote(2, denials=((0, RATE),))], 1, QUORUM, DENIAL) == (RATE,)


@given(
    n_f=st.sampled_from([(4, 1), (7, 2), (5, 1), (1, 0)]),
    denied=st.lists(st.sampled_from([0, 20, 31]), min_size=7, max_size=7),
    data=st.data(),
)
def test_more_votes_never_unsettle(n_f: tuple[int, int], denied: list[int], data: st.DataObject) -> None:
    n, f = n_f
    quorum = (n + f + 2) // 2
    order = data.draw(st.permutations(range(n)))
    votes = [make_vote(r, denials=((0, denied[r]),) if denied[r] else ()) for r in order]
    seen = [settle(votes[:count], 1, quorum, n - quorum + 1)[0] for count in range(n + 1)]
    verdicts = ["open" if code is None else "approved" if code == 0 else "denied" for code in seen]
    assert verdicts[-1] != "open", "all votes decide"
    assert sorted(verdicts, key=lambda verdict: verdict != "open") == verdicts
    assert len(set(verdicts) - {"open"}) == 1


# --- the book


def test_each_settled_intent_is_told_once() -> None:
    book = make_book()
    assert book.add(make_vote(0, denials=((1, RATE),)), 2) is None
    assert book.add(make_vote(1), 2) is None
    first = book.add(make_vote(2), 2)
    assert first is not None and first.codes == (0, None) and not first.complete
    last = book.add(make_vote(3), 2)
    assert last is not None and last.codes == (0, 0) and last.complete and last.approved == (0, 1)
    assert [vote.replica for vote in last.votes] == [0, 1, 2, 3]
    assert last.certificate is not None and certificate_error(last.certificate, 1) is None


@pytest.mark.parametrize("order", list(permutations(VOTERS)))
def test_votes_may_come_before_the_frame_and_in_any_order(order: tuple[int, ...]) -> None:
    book = make_book()
    for replica in order[:3]:
        assert book.add(make_vote(replica)) is None
    (settlement,) = book.learn(Path.LANE, DIGEST, 2)
    assert settlement == book.settlement(Path.LANE, DIGEST, (1, 8), 2) and settlement.codes == (0, 0)
    assert [vote.replica for vote in settlement.votes] == sorted(order[:3])


def test_complete_settlement_is_frozen() -> None:
    book = make_book()
    book.add(make_vote(0, denials=((0, RATE),)), 1)
    denied = book.add(make_vote(1, denials=((0, RATE),)), 1)
    assert denied is not None and denied.codes == (RATE,) and denied.certificate is None
    for replica in (2, 3):
        assert book.add(make_vote(replica, denials=((0, COLLAR),)), 1) is None
    assert book.settlement(Path.LANE, DIGEST, (1, 8), 1) == denied
    assert book.votes(Path.LANE, DIGEST, 1, 8) == denied.votes


def test_quorum_is_for_one_position() -> None:
    book = make_book()
    book.add(make_vote(0, term=1), 1)
    book.add(make_vote(1, term=1), 1)
    assert book.add(make_vote(2, term=2), 1) is None
    assert book.settlement(Path.LANE, DIGEST, (1, 8), 1) is None
    book.add(make_vote(0, term=2), 1)
    settled = book.add(make_vote(1, term=2), 1)
    assert settled is not None and (settled.term, settled.index) == (2, 8)
    assert not book.contradictions, "voting again at another position is honest"


def test_contradiction_is_evidence_and_the_first_vote_counts() -> None:
    book = make_book()
    first, second, third = make_vote(0), make_vote(0, denials=((0, RATE),)), make_vote(0, denials=((0, COLLAR),))
    for vote in (first, second, third, second, first):
        assert book.add(vote, 1) is None
    assert book.contradictions == {0: 3}
    assert (book.evidence[0].first, book.evidence[0].second) == (first, second)
    assert book.ignored == {"vote_repeated": 1}
    assert book.votes(Path.LANE, DIGEST, 1, 8) == (first,)
    assert book.knows(first) and not book.knows(second)


def test_contradiction_after_the_settlement_is_still_evidence() -> None:
    book = make_book()
    for replica in range(4):
        book.add(make_vote(replica), 1)
    book.add(make_vote(3, denials=((0, RATE),)), 1)
    assert set(book.evidence) == {3}


def test_positions_per_replica_are_bounded() -> None:
    book = make_book()
    for term in range(1, POSITIONS_PER_REPLICA + 2):
        book.add(make_vote(0, term=term), 1)
    assert book.ignored == {"vote_positions_exhausted": 1}
    assert book.votes(Path.LANE, DIGEST, POSITIONS_PER_REPLICA, 8) != ()
    assert book.votes(Path.LANE, DIGEST, POSITIONS_PER_REPLICA + 1, 8) == ()


def frame_digest(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize("max_frames", [1, 2, 3, 10])
def test_memory_is_bounded(max_frames: int) -> None:
    book = make_book(max_frames)
    for number in range(40):
        book.add(make_vote(number % 4, frame_digest(number)), number % 3 or None)
        assert len(book) <= max_frames


def test_settled_frames_are_forgotten_first_and_oldest_first() -> None:
    book = make_book(max_frames=3)
    book.add(make_vote(0, frame_digest(0)), 1)
    for number in (1, 2):
        for replica in range(3):
            book.add(make_vote(replica, frame_digest(number)), 1)
    for number in (3, 4):
        book.add(make_vote(0, frame_digest(number)), 1)
        assert book.votes(Path.LANE, frame_digest(number - 2), 1, 8) == ()
    assert len(book.votes(Path.LANE, frame_digest(0), 1, 8)) == 1
    assert book.ignored == {}


def test_flood_of_invented_digests_leaves_the_frames_of_others_alone() -> None:
    book = make_book(max_frames=12)
    book.add(make_vote(0, frame_digest(0)))
    book.add(make_vote(1, frame_digest(1)), 1)
    book.settlement(Path.LANE, frame_digest(1), (1, 8), 1)
    for number in range(100, 200):
        book.add(make_vote(3, frame_digest(number)))
    assert len(book.votes(Path.LANE, frame_digest(0), 1, 8)) == 1
    assert len(book.votes(Path.LANE, frame_digest(1), 1, 8)) == 1
    assert book.ignored == {"frame_forgotten_unsettled": 90}


def test_stranger_is_not_counted() -> None:
    book = make_book()
    assert book.add(make_vote(4), 1) is None
    assert len(book) == 0 and book.ignored == {"vote_of_a_stranger": 1}


# --- certificates


def test_certificate_of_a_quorum_holds_and_denials_do_not_count() -> None:
    votes = (make_vote(0), make_vote(1), make_vote(3, denials=((1, RATE),)))
    assert certificate_error(make_certificate(*votes), 0) is None
    assert certificate_error(make_certificate(*votes), 1) == "2 approvals, 3 needed"
    assert certificate_error(make_certificate(*votes, make_vote(2)), 1) is None


@pytest.mark.parametrize(
    ("stray", "reason"),
    [
        (make_vote(2, b"e" * 32), "vote_for_another_frame_or_position"),
        (make_vote(2, term=2), "vote_for_another_frame_or_position"),
        (make_vote(2, index=9), "vote_for_another_frame_or_position"),
        (make_vote(2, path=Path.SPINE), "vote_for_another_frame_or_position"),
        (make_vote(4), "vote_of_a_stranger"),
        (make_vote(1), "vote_twice_by_one_replica"),
        (msgspec.structs.replace(make_vote(2), signature=b"forged"), "2 approvals with a valid signature, 3 needed"),
        (msgspec.structs.replace(make_vote(1), replica=2), "2 approvals with a valid signature, 3 needed"),
    ],
)
def test_certificate_with_a_stray_vote_is_refused(stray: FrameVote, reason: str) -> None:
    assert certificate_error(make_certificate(make_vote(0), make_vote(1), stray)) == reason


def test_wrong_signature_does_not_spoil_a_quorum() -> None:
    forged = msgspec.structs.replace(make_vote(0), signature=b"forged")
    assert certificate_error(make_certificate(forged, make_vote(1), make_vote(2), make_vote(3))) is None


def test_lane_certificate_needs_a_lane_position() -> None:
    votes = tuple(make_vote(replica, term=0, index=0) for replica in range(3))
    certificate = Certificate(Path.LANE, DIGEST, 0, 0, votes)
    assert certificate_error(certificate) == "lane_position_missing"
    spine = tuple(make_vote(replica, path=Path.SPINE, term=0, index=0) for replica in range(3))
    assert certificate_error(Certificate(Path.SPINE, DIGEST, 0, 0, spine)) is None


# --- outcomes


def check_outcome(outcome: Outcome, intent_count: int = 2) -> str | None:
    return outcome_error(outcome, CLUSTER, intent_count, QUORUM, DENIAL, VOTERS, verify)


def test_outcome_follows_from_its_votes() -> None:
    votes = (make_vote(0, denials=((1, RATE),)), make_vote(1, denials=((1, RATE),)), make_vote(2))
    honest = Outcome(8, DIGEST, (0, RATE), votes)
    assert check_outcome(honest) is None
    for change, reason in [
        ({"codes": (0, 0)}, "outcome_codes_not_from_votes"),
        ({"codes": (0,)}, "outcome_codes_not_from_votes"),
        ({"votes": votes[:2]}, "outcome_codes_not_from_votes"),
        ({"votes": ()}, "outcome_terms_differ"),
        ({"votes": (*votes, make_vote(3, term=2))}, "outcome_terms_differ"),
        ({"index": 9}, "vote_for_another_frame_or_position"),
        ({"votes": (*votes[:2], msgspec.structs.replace(votes[2], signature=b""))}, "vote_signature_invalid"),
    ]:
        assert check_outcome(msgspec.structs.replace(honest, **change)) == reason
