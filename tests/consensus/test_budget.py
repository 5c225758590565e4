from __future__ import annotations

from itertools import combinations, pairwise, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.budget import BudgetBook, SequenceSet
from consensus.certificate import settle
from protocol.codes import DenyCode
from protocol.errors import RunFailure
from tests.oracles.signed_frames import CLUSTER, DENIAL, QUORUM, TRADER, VOTERS, make_frame, make_grant, make_vote

OK = DenyCode.APPROVED
SLICE, SYMBOL = 5, 2


def make_book(limit: int = 100) -> BudgetBook:
    book = BudgetBook(CLUSTER)
    assert book.grant(make_grant(notional_limit=limit, symbol_notional_limit=60)) is None
    return book


def debit(book: BudgetBook, intent: int, notional: int, *, version: int = 1, trader: int = TRADER) -> DenyCode:
    return book.debit(SLICE, version, trader, intent, SYMBOL, notional)


# --- grants


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"version": 1, "notional_limit": 7}, "version_out_of_order"),
        ({"version": 3}, "version_out_of_order"),
        ({"version": 2, "cluster_id": b"x" * 16}, "of_another_cluster"),
        ({"version": 2, "epoch": 0}, "epoch_went_back"),
        ({"version": 2, "notional_limit": -1}, "limit_negative"),
        ({"version": 2, "symbol_notional_limit": -1}, "limit_negative"),
    ],
)
def test_refused_grant_changes_nothing(change: dict[str, object], reason: str) -> None:
    book = make_book()
    debit(book, 1, 30)
    rows = book.to_rows()
    assert book.grant(make_grant(**change)) == reason
    assert book.to_rows() == rows


@pytest.mark.parametrize("version", [0, 2])
def test_first_version_is_one(version: int) -> None:
    assert BudgetBook(CLUSTER).grant(make_grant(version)) == "version_out_of_order"


def test_current_grant_again_is_harmless() -> None:
    book = make_book()
    debit(book, 1, 30)
    assert book.grant(make_grant(notional_limit=100, symbol_notional_limit=60)) is None
    assert book.used(SLICE) == 30


def test_new_version_refills_and_closes_the_old_one() -> None:
    book = make_book()
    assert debit(book, 1, 100) is OK
    assert book.grant(make_grant(2, epoch=2, notional_limit=50)) is None
    assert (book.used(SLICE), book.remaining(SLICE), book.used_by_symbol(SLICE, SYMBOL)) == (0, 50, 0)
    assert debit(book, 2, 10, version=1) is DenyCode.SLICE_UNKNOWN
    assert debit(book, 1, 100, version=2) is DenyCode.INTENT_REPEATED, "its id was signed under version 1"
    assert debit(book, 2, 10, version=2) is OK
    first, second = book.grant_of(SLICE, 1), book.current(SLICE)
    assert first is not None and first.notional_limit == 100, "the gate still honours certificates of version 1"
    assert second is not None and second.version == 2


def test_frame_must_name_the_current_grant() -> None:
    book = make_book()
    assert book.frame_error(make_frame()) is OK
    for change in ({"slice_id": 6}, {"slice_version": 2}, {"slice_version": 0}, {"epoch": 2}, {"trader": 8}):
        assert book.frame_error(make_frame(**change)) is DenyCode.SLICE_UNKNOWN


# --- debits


@pytest.mark.parametrize(("notional", "code"), [(99, OK), (100, OK), (101, DenyCode.SLICE_EXHAUSTED)])
def test_limit_in_one_debit(notional: int, code: DenyCode) -> None:
    assert debit(make_book(), 1, notional) is code


@pytest.mark.parametrize(("last", "code"), [(39, OK), (40, OK), (41, DenyCode.SLICE_EXHAUSTED)])
def test_limit_adds_up(last: int, code: DenyCode) -> None:
    book = make_book()
    assert debit(book, 1, 60) is OK
    assert debit(book, 2, last) is code
    assert book.used(SLICE) == (60 + last if code is OK else 60)
    assert book.remaining(SLICE) == 100 - book.used(SLICE)
    assert book.used_by_symbol(SLICE, SYMBOL) == book.used(SLICE)
    assert book.used_by_symbol(SLICE, SYMBOL + 1) == 0


def test_same_debit_again_takes_nothing_even_when_exhausted() -> None:
    book = make_book()
    for _ in range(3):
        assert debit(book, 1, 100) is OK
    assert book.used(SLICE) == 100


@pytest.mark.parametrize(("symbol", "notional"), [(SYMBOL, 31), (SYMBOL, 29), (SYMBOL + 1, 30)])
def test_id_is_not_reusable_with_other_contents(symbol: int, notional: int) -> None:
    book = make_book()
    debit(book, 1, 30)
    assert book.debit(SLICE, 1, TRADER, 1, symbol, notional) is DenyCode.INTENT_REPEATED
    assert book.used(SLICE) == 30


def test_id_is_not_reusable_in_another_slice() -> None:
    book = make_book()
    book.grant(make_grant(slice_id=6))
    debit(book, 1, 30)
    assert book.debit(6, 1, TRADER, 1, SYMBOL, 30) is DenyCode.INTENT_REPEATED


@pytest.mark.parametrize("notional", [0, -1, -50])
def test_debit_never_refills(notional: int) -> None:
    book = make_book()
    debit(book, 1, 60)
    assert debit(book, 2, notional) is DenyCode.INVALID_QUANTITY
    assert book.used(SLICE) == 60


def test_unknown_slice_and_other_trader() -> None:
    book = make_book()
    assert book.debit(6, 1, TRADER, 1, SYMBOL, 1) is DenyCode.SLICE_UNKNOWN
    assert debit(book, 1, 1, trader=TRADER + 1) is DenyCode.SLICE_UNKNOWN
    assert debit(book, 1, 1, version=2) is DenyCode.SLICE_UNKNOWN
    assert (book.used(6), book.remaining(6), book.current(6)) == (0, 0, None)


steps = st.lists(
    st.one_of(
        st.tuples(st.just("grant"), st.integers(0, 4), st.integers(0, 60)),
        st.tuples(st.just("debit"), st.integers(0, 4), st.integers(0, 12), st.integers(-2, 40)),
        st.just(("restart",)),
    ),
    max_size=60,
)


@given(steps)
@settings(max_examples=200)
def test_any_interleaving_stays_within_every_version(history: list[tuple[object, ...]]) -> None:
    book = BudgetBook(CLUSTER)
    limits: dict[int, int] = {}
    signed: dict[int, dict[int, int]] = {}
    for step in history:
        match step:
            case ("grant", int(version), int(limit)):
                if book.grant(make_grant(version, notional_limit=limit)) is None:
                    limits[version] = limit
            case ("debit", int(version), int(intent), int(notional)):
                before = book.used(SLICE)
                if debit(book, intent, notional, version=version) is OK:
                    assert all(intent not in held for other, held in signed.items() if other != version)
                    assert signed.setdefault(version, {}).setdefault(intent, notional) == notional
                assert book.used(SLICE) >= before, "a debit is never undone"
            case _:
                rows = book.to_rows()
                book = BudgetBook.from_rows(CLUSTER, rows)
                assert book.to_rows() == rows
        for version, held in signed.items():
            assert sum(held.values()) <= limits[version]


# --- restart


def test_restored_book_remembers_used_budget_and_used_ids() -> None:
    book = make_book()
    debit(book, 1, 30)
    debit(book, 2, 30)
    book.grant(make_grant(2, notional_limit=100))
    debit(book, 3, 70, version=2)
    restored = BudgetBook.from_rows(CLUSTER, book.to_rows())
    assert restored.to_rows() == book.to_rows()
    assert restored.used(SLICE) == restored.used_by_symbol(SLICE, SYMBOL) == 70
    assert debit(restored, 1, 30, version=2) is DenyCode.INTENT_REPEATED
    assert debit(restored, 4, 31, version=2) is DenyCode.SLICE_EXHAUSTED


def test_debits_restore_one_by_one_after_the_grants() -> None:
    book = make_book()
    book.grant(make_grant(2, notional_limit=50))
    book.restore_debit(SLICE, 1, TRADER, 1, SYMBOL, 100)
    book.restore_debit(SLICE, 2, TRADER, 2, SYMBOL, 50)
    book.restore_debit(SLICE, 2, TRADER, 2, SYMBOL, 50)
    book.restore_debit(SLICE, 1, TRADER, 1, SYMBOL, 100)
    assert book.used(SLICE) == 50
    assert debit(book, 1, 1, version=2) is DenyCode.INTENT_REPEATED
    with pytest.raises(RunFailure, match="exceed its grant"):
        book.restore_debit(SLICE, 2, TRADER, 3, SYMBOL, 1)
    with pytest.raises(RunFailure, match="never granted"):
        book.restore_debit(SLICE, 3, TRADER, 4, SYMBOL, 1)


@pytest.mark.parametrize(
    "row",
    [(9, 1, 1), (1, 5, 1), (0, SLICE, 3, 1, TRADER, 9, 1, 1), (1, SLICE, 1, TRADER, 2, SYMBOL, 71), ()],
)
def test_rows_that_make_no_book_stop_the_replica(row: tuple[int, ...]) -> None:
    book = make_book()
    debit(book, 1, 30)
    with pytest.raises(RunFailure, match="cannot be restored"):
        BudgetBook.from_rows(CLUSTER, [*book.to_rows(), row])


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 6))))
def test_sequence_set_is_a_set(added: list[tuple[int, int]]) -> None:
    ranges, plain = SequenceSet(), set[int]()
    for first, width in added:
        ranges.add_range(first, first + width - 1)
        plain.update(range(first, first + width))
    assert [value for value in range(-1, 40) if value in ranges] == sorted(plain)
    assert len(ranges) == len(plain)
    held = list(ranges.ranges())
    assert all(last + 1 < first for (_, last), (first, _) in pairwise(held))


# --- the bound


def most_certified(limit: int, values: tuple[int, ...]) -> int:
    """Largest certified value over every way in which a lying author may show its intents to three honest replicas,
    when the fourth signs everything. Real books, real settlement."""
    honest = VOTERS[:3]
    subsets = [subset for size in range(4) for subset in combinations(honest, size)]
    best = 0
    for shown in product(subsets, repeat=len(values)):
        books = {replica: make_book(limit) for replica in honest}
        certified = 0
        for intent, (value, replicas) in enumerate(zip(values, shown, strict=True)):
            signers = [replica for replica in replicas if debit(books[replica], intent, value) is OK]
            votes = [VOTES[replica] for replica in (*signers, 3)]
            certified += value * (settle(votes, 1, QUORUM, DENIAL) == (OK,))
        best = max(best, certified)
    return best


VOTES = {replica: make_vote(replica) for replica in VOTERS}


@pytest.mark.parametrize(
    ("limit", "values"), [(1, (1, 1)), (2, (1, 1, 1, 1)), (3, (2, 1, 1, 2)), (4, (2, 2, 2, 1)), (2, (2, 2, 2))]
)
def test_one_liar_certifies_at_most_half_as_much_again(limit: int, values: tuple[int, ...]) -> None:
    n, f, q = 4, 1, 3
    assert most_certified(limit, values) <= limit * (n - f) // (q - f)


def test_the_bound_is_reached() -> None:
    assert most_certified(2, (1, 1, 1, 1)) == 3
    assert most_certified(4, (2, 2, 2, 1)) == 6
