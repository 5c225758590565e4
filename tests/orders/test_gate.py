from __future__ import annotations

from itertools import permutations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import orders.gate
from consensus.budget import BudgetBook
from consensus.certificate import Certificate
from orders.gate import Gate, Refusal, Release, Spent
from protocol.codes import CommandKind, DenyCode, Path, Side
from protocol.messages import PRICE_SCALE, CommittedSlot, Frame, SignedCommand
from protocol.signing import command_digest
from tests.oracles.signed_frames import (
    CLUSTER,
    EXPIRES_NS,
    GATE,
    PRICE,
    QUORUM,
    TRADER,
    VOTERS,
    decode_frame,
    make_command,
    make_frame,
    make_grant,
    make_intent,
    make_vote,
    verify,
)

NOW_NS = EXPIRES_NS - 1


def make_gate(
    *, own: int = GATE, released: tuple[Spent, ...] = (), slot_error: str | None = None, **grant: object
) -> Gate:
    book = BudgetBook(CLUSTER)
    assert book.grant(make_grant(**grant)) is None
    return Gate(
        CLUSTER, own, QUORUM, VOTERS, verify, lambda slot: slot_error, decode_frame, book, released
    )  # fmt: skip


def make_certificate(
    frame: Frame, digest: bytes, approving: tuple[int, ...] = (0, 1, 2), denying: tuple[int, ...] = ()
) -> Certificate:
    term, index = (1, 8) if frame.path == Path.LANE else (0, 0)
    votes = [make_vote(r, digest, path=frame.path, term=term, index=index) for r in approving]
    deny_all = tuple((position, int(DenyCode.SUBMIT_RATE)) for position in range(len(frame.intents)))
    votes += [make_vote(r, digest, path=frame.path, term=term, index=index, denials=deny_all) for r in denying]
    return Certificate(frame.path, digest, term, index, tuple(votes))


def make_slot(*commands: SignedCommand) -> CommittedSlot:
    return CommittedSlot(0, 3, b"s" * 32, commands, ())


class Case:
    """Everything that the gate is shown about one intent; by default all of it is in order."""

    def __init__(self, frame: Frame | None = None, position: int = 0) -> None:
        self.frame = frame or make_frame()
        self.command = make_command(self.frame)
        self.position = position
        self.now_ns = NOW_NS
        self.slot = make_slot(self.command) if self.frame.path == Path.SPINE else None
        self.digest = command_digest(CLUSTER, self.command)
        self.certificate = make_certificate(self.frame, self.digest)

    def check(self, gate: Gate) -> Release | Refusal:
        return gate.check(
            self.frame, self.digest, self.command, self.position, self.certificate, self.slot, self.now_ns
        )

    def recertify(self, *approving: int, denying: tuple[int, ...] = ()) -> Case:
        self.certificate = make_certificate(self.frame, self.digest, approving, denying)
        return self


def refused(gate: Gate, case: Case, code: DenyCode) -> str:
    """The reason; and nothing was used up, so that a case in order is released right after."""
    rows = gate.remaining(5, 1)
    result = case.check(gate)
    assert isinstance(result, Refusal) and result.code is code, result
    assert gate.remaining(5, 1) == rows
    assert gate.refusals == {code: 1} and gate.release_count == 0
    return result.reason


# --- all in order


def test_lane_release() -> None:
    gate, case = make_gate(), Case()
    release = case.check(gate)
    assert isinstance(release, Release)
    assert (release.frame, release.intent) == (case.frame, case.frame.intents[0])
    assert (release.limit_price, release.rewritten) == (PRICE, False)
    assert release.spent == Spent(TRADER, 1, 5, 1, 10 * PRICE)
    assert gate.remaining(5, 1) == 5_000 * PRICE_SCALE - 10 * PRICE
    assert gate.status() == {"released": 1, "market_orders_rewritten": 0, "refused": {}}


def test_spine_release_takes_nothing_from_the_slice() -> None:
    gate = make_gate(notional_limit=0)
    release = Case(make_frame(path=Path.SPINE)).check(gate)
    assert isinstance(release, Release) and release.spent.notional == 0


@pytest.mark.parametrize(
    ("side", "limit_price", "notional"),
    [(Side.BUY, PRICE * 102 // 100, 10 * PRICE * 102 // 100), (Side.SELL, PRICE * 98 // 100, 10 * PRICE)],
)
def test_market_order_becomes_a_limit_at_the_collar(side: Side, limit_price: int, notional: int) -> None:
    gate = make_gate()
    release = Case(make_frame(make_intent(limit_price=0, side=side))).check(gate)
    assert isinstance(release, Release)
    assert (release.limit_price, release.rewritten, release.spent.notional) == (limit_price, True, notional)
    assert gate.rewrite_count == 1


# --- each clause alone


@pytest.mark.parametrize(
    "change",
    [
        {"digest": b"x" * 32},
        {"frame": make_frame(make_intent(quantity=11))},
        {"frame": make_frame(trader=TRADER + 1)},
        {"position": 1},
        {"position": -1},
    ],
)
def test_frame_digest_and_command_belong_together(change: dict[str, object]) -> None:
    case = Case()
    for name, value in change.items():
        setattr(case, name, value)
    refused(make_gate(), case, DenyCode.FRAME_MALFORMED)


@pytest.mark.parametrize("frame", [make_frame(cluster_id=b"x" * 16), make_frame(path=3)])
def test_frame_is_of_this_cluster_and_a_known_path(frame: Frame) -> None:
    refused(make_gate(), Case(frame), DenyCode.FRAME_MALFORMED)


@pytest.mark.parametrize(
    "change", [{"kind": CommandKind.SLICE_GRANT}, {"author": TRADER + 1}, {"body": b"\xff"}, {"body": b""}]
)
def test_command_is_a_frame_of_its_trader(change: dict[str, object]) -> None:
    case = Case()
    case.command = make_command(case.frame, **change)
    case.digest = command_digest(CLUSTER, case.command)
    refused(make_gate(), case.recertify(0, 1, 2), DenyCode.FRAME_MALFORMED)


@pytest.mark.parametrize(("now_ns", "expired"), [(EXPIRES_NS - 1, False), (EXPIRES_NS, True), (EXPIRES_NS + 1, True)])
def test_expiry(now_ns: int, expired: bool) -> None:
    gate, case = make_gate(), Case()
    case.now_ns = now_ns
    if expired:
        refused(gate, case, DenyCode.GATE_EXPIRED)
    else:
        assert isinstance(case.check(gate), Release)


def test_id_is_used_once() -> None:
    gate = make_gate()
    assert isinstance(Case().check(gate), Release)
    again = Case().check(gate)
    assert isinstance(again, Refusal) and again.code is DenyCode.INTENT_REPEATED
    assert gate.remaining(5, 1) == 5_000 * PRICE_SCALE - 10 * PRICE, "not debited twice"


def test_id_is_used_once_across_paths_versions_and_within_a_frame() -> None:
    gate = make_gate()
    twice = make_frame(make_intent(1), make_intent(1, quantity=5))
    assert isinstance(Case(twice, 0).check(gate), Release)
    for case in (Case(twice, 1), Case(make_frame(path=Path.SPINE)), Case(make_frame(sequence=99))):
        result = case.check(gate)
        assert isinstance(result, Refusal) and result.code is DenyCode.INTENT_REPEATED


@pytest.mark.parametrize("path", Path)
def test_used_id_is_refused_after_restore(path: Path) -> None:
    first = make_gate()
    release = Case(make_frame(path=path)).check(first)
    assert isinstance(release, Release)
    restored = make_gate(released=(release.spent,))
    assert restored.remaining(5, 1) == first.remaining(5, 1)
    again = Case().check(restored)
    assert isinstance(again, Refusal) and again.code is DenyCode.INTENT_REPEATED
    assert isinstance(Case(make_frame(make_intent(2), path=path)).check(restored), Release)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"side": 0}, DenyCode.INVALID_SIDE),
        ({"side": 3}, DenyCode.INVALID_SIDE),
        ({"quantity": 0}, DenyCode.INVALID_QUANTITY),
        ({"quantity": -1}, DenyCode.INVALID_QUANTITY),
        ({"limit_price": -1}, DenyCode.INVALID_PRICE),
        ({"limit_price": 0, "reference_price": 0}, DenyCode.INVALID_PRICE),
        ({"reference_price": -1}, DenyCode.INVALID_PRICE),
    ],
)
def test_intent_is_an_order(change: dict[str, int], code: DenyCode) -> None:
    refused(make_gate(), Case(make_frame(make_intent(**change))), code)


@pytest.mark.parametrize("path", Path)
@pytest.mark.parametrize("change", [{"slice_id": 6}, {"slice_version": 2}, {"slice_version": 0}, {"epoch": 2}])
def test_slice_version_and_epoch_are_granted(path: Path, change: dict[str, int]) -> None:
    refused(make_gate(), Case(make_frame(path=path, **change)), DenyCode.SLICE_UNKNOWN)


@pytest.mark.parametrize("path", Path)
def test_slice_is_bound_to_this_gate_and_this_trader(path: Path) -> None:
    refused(make_gate(own=GATE + 1), Case(make_frame(path=path)), DenyCode.SLICE_UNKNOWN)
    refused(make_gate(trader=TRADER + 1), Case(make_frame(path=path)), DenyCode.SLICE_UNKNOWN)


@pytest.mark.parametrize(("spare", "fits"), [(1, True), (0, True), (-1, False)])
def test_fits_what_is_left_of_the_slice(spare: int, fits: bool) -> None:
    gate = make_gate(notional_limit=30 * PRICE + spare)
    assert isinstance(Case(make_frame(make_intent(1, quantity=20))).check(gate), Release)
    last = Case(make_frame(make_intent(2, quantity=10))).check(gate)
    if fits:
        assert isinstance(last, Release)
        assert gate.remaining(5, 1) == spare
    else:
        assert isinstance(last, Refusal) and last.code is DenyCode.SLICE_EXHAUSTED


def test_trader_signed_it() -> None:
    case = Case()
    case.command = msgspec.structs.replace(case.command, signature=b"forged")
    refused(make_gate(), case, DenyCode.SIGNATURE_INVALID)


@pytest.mark.parametrize("path", Path)
def test_quorum_of_votes(path: Path) -> None:
    short = Case(make_frame(path=path)).recertify(0, 1, denying=(2, 3))
    assert refused(make_gate(), short, DenyCode.QUORUM_MISSING) == "2 approvals, 3 needed"
    assert isinstance(Case(make_frame(path=path)).recertify(0, 1, 3, denying=(2,)).check(make_gate()), Release)


def test_votes_for_two_positions_are_no_certificate() -> None:
    case = Case()
    votes = (*case.certificate.votes[:2], make_vote(2, case.digest, term=2))
    case.certificate = msgspec.structs.replace(case.certificate, votes=votes)
    assert refused(make_gate(), case, DenyCode.QUORUM_MISSING) == "vote_for_another_frame_or_position"


def test_lane_certificate_without_a_position_is_refused() -> None:
    case = Case()
    votes = tuple(make_vote(replica, case.digest, term=0, index=0) for replica in range(3))
    case.certificate = Certificate(Path.LANE, case.digest, 0, 0, votes)
    assert refused(make_gate(), case, DenyCode.QUORUM_MISSING) == "lane_position_missing"


def test_certificate_is_of_this_frame_and_path() -> None:
    other = Case(make_frame(sequence=2))
    spine = Case(make_frame(path=Path.SPINE))
    for strange in (other.certificate, spine.certificate):
        case = Case()
        case.certificate = strange
        refused(make_gate(), case, DenyCode.QUORUM_MISSING)


def test_forged_votes_are_no_certificate() -> None:
    case = Case()
    forged = msgspec.structs.replace(case.certificate.votes[0], signature=b"forged")
    case.certificate = msgspec.structs.replace(case.certificate, votes=(forged, *case.certificate.votes[1:]))
    refused(make_gate(), case, DenyCode.QUORUM_MISSING)


def test_spine_frame_needs_its_slot() -> None:
    missing, strange, unsigned = (Case(make_frame(path=Path.SPINE)) for _ in range(3))
    missing.slot = None
    strange.slot = make_slot(make_command(make_frame(path=Path.SPINE, sequence=2)))
    unsigned.slot = make_slot(msgspec.structs.replace(unsigned.command, signature=b"other"))
    for case in (missing, strange, unsigned):
        assert refused(make_gate(), case, DenyCode.QUORUM_MISSING) == "no spine slot holds the command"


def test_spine_slot_needs_its_commit_certificate() -> None:
    gate = make_gate(slot_error="2 commits, 3 needed")
    case = Case(make_frame(path=Path.SPINE))
    assert refused(gate, case, DenyCode.QUORUM_MISSING) == "spine slot: 2 commits, 3 needed"
    assert isinstance(case.check(gate), Refusal), "a slot that failed is not remembered as good"


def test_spine_slot_is_verified_once_per_slot() -> None:
    seen: list[int] = []
    book = BudgetBook(CLUSTER)
    book.grant(make_grant())
    gate = Gate(
        CLUSTER, GATE, QUORUM, VOTERS, verify, lambda slot: seen.append(slot.sequence), decode_frame, book
    )  # fmt: skip
    frame = make_frame(make_intent(1), make_intent(2), path=Path.SPINE)
    case = Case(frame)
    for case.position in (0, 1):
        assert isinstance(case.check(gate), Release)
    assert seen == [3]
    assert isinstance(Case(make_frame(make_intent(3), path=Path.SPINE)).check(gate), Release)
    assert seen == [3, 3]


def test_refusal_leaves_the_way_open_for_better_proof() -> None:
    gate = make_gate()
    assert isinstance(Case().recertify(0, 1).check(gate), Refusal)
    assert isinstance(Case().check(gate), Release)


def test_docstring_lists_every_refusal() -> None:
    assert orders.gate.__doc__ is not None
    for code in ("FRAME_MALFORMED", "GATE_EXPIRED", "INTENT_REPEATED", "SLICE_UNKNOWN", "SLICE_EXHAUSTED",
                 "SIGNATURE_INVALID", "QUORUM_MISSING"):  # fmt: skip
        assert f"| {code}" in orders.gate.__doc__
    assert orders.gate.__doc__.count("not enforced yet") == 2


# --- versions and the bound


def test_old_version_stays_valid_within_its_own_limit() -> None:
    book = BudgetBook(CLUSTER)
    book.grant(make_grant(1, notional_limit=15 * PRICE))
    gate = Gate(CLUSTER, GATE, QUORUM, VOTERS, verify, lambda slot: None, decode_frame, book)
    assert isinstance(Case(make_frame(make_intent(1))).check(gate), Release)
    book.grant(make_grant(2, notional_limit=15 * PRICE))
    assert book.frame_error(make_frame()) is DenyCode.SLICE_UNKNOWN, "replicas sign no more under version 1"
    assert isinstance(Case(make_frame(make_intent(2, quantity=5))).check(gate), Release)
    over = Case(make_frame(make_intent(3, quantity=1))).check(gate)
    assert isinstance(over, Refusal) and over.code is DenyCode.SLICE_EXHAUSTED
    assert (gate.remaining(5, 1), gate.remaining(5, 2), gate.remaining(5, 3)) == (0, 15 * PRICE, 0)
    assert isinstance(Case(make_frame(make_intent(4, quantity=15), slice_version=2)).check(gate), Release)


@given(st.permutations(range(1, 7)), st.lists(st.integers(1, 9), min_size=6, max_size=6), st.integers(0, 30))
@settings(max_examples=60)
def test_certified_beyond_the_slice_is_still_not_released(order: list[int], sizes: list[int], limit: int) -> None:
    """Everything is certified, as if the replicas kept no books: the gate alone holds the slice, over a restart too."""
    gate = make_gate(notional_limit=limit * PRICE)
    journal: list[Spent] = []
    for turn, number in enumerate(order):
        if turn == 3:
            gate = make_gate(notional_limit=limit * PRICE, released=tuple(journal))
        result = Case(make_frame(make_intent(number, quantity=sizes[number - 1]))).check(gate)
        if isinstance(result, Release):
            journal.append(result.spent)
        else:
            assert result.code is DenyCode.SLICE_EXHAUSTED
    assert sum(spent.notional for spent in journal) <= limit * PRICE


def test_books_that_certify_half_too_much_still_release_one_slice() -> None:
    """n=4, one liar: three honest books of 20 let 30 be certified; the gate releases 20 in every order of arrival."""
    pairs = {1: (0, 1, 3), 2: (1, 2, 3), 3: (0, 2, 3)}
    for order in permutations(pairs):
        gate = make_gate(notional_limit=20 * PRICE)
        results = [Case(make_frame(make_intent(number))).recertify(*pairs[number]).check(gate) for number in order]
        assert [isinstance(result, Release) for result in results] == [True, True, False]
