"""Budget slices: what each replica has ever signed for, per slice version, and the ids it has signed.

Only the spine grants; the lane only consumes. A debit is gross and monotone: no log truncation, cancel or fill takes
it back. With q = ceil((n+f+1)/2) signatures per intent and f liars, n books that each refuse
above B let at most B*(n-f)/(q-f) be certified; the gate, to which every slice version is bound, makes that exactly B.

A new version closes the old one here: nothing more is signed under it. Certificates signed before stay valid at the
gate, which keeps them within the old version's own limit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import Final

from msgspec import Struct

from protocol.codes import DenyCode
from protocol.errors import RunFailure
from protocol.messages import Frame, SliceGrant

BudgetRow = tuple[int, ...]
GRANT_ROW: Final = 0
DEBIT_ROW: Final = 1
CLOSED_ROW: Final = 2


class SequenceSet:
    """A set of integers as sorted, disjoint, non-adjacent ranges: ids are dense, so for ever costs little memory."""

    def __init__(self) -> None:
        self._first: list[int] = []
        self._last: list[int] = []

    def __contains__(self, value: int) -> bool:
        at = bisect_right(self._first, value) - 1
        return at >= 0 and value <= self._last[at]

    def __len__(self) -> int:
        return sum(last - first + 1 for first, last in self.ranges())

    def ranges(self) -> Iterator[tuple[int, int]]:
        """(first, last) pairs, both inclusive, ascending."""
        return zip(self._first, self._last, strict=True)

    def add(self, value: int) -> None:
        self.add_range(value, value)

    def add_range(self, first: int, last: int) -> None:
        """Add every value from ``first`` to ``last``, both inclusive; ``first`` above ``last`` adds nothing."""
        if first > last:
            return
        low = bisect_right(self._last, first - 2)  # ranges before it end too early to touch
        high = bisect_right(self._first, last + 1)  # ranges from it on begin too late to touch
        if low < high:
            first, last = min(first, self._first[low]), max(last, self._last[high - 1])
        self._first[low:high] = [first]
        self._last[low:high] = [last]


class Debit(Struct, frozen=True):
    """What one intent took from a slice version."""

    slice_id: int
    version: int
    symbol: int
    notional: int


class BudgetBook:
    """One replica's book of slices. Notional values are price times quantity in the price's unit.

    An intent's id is (trader, sequence); ``intent_id`` is its sequence.
    """

    # Invariant: _used[slice] == sum of the notional of every debit of its current version <= that version's limit.
    # Invariant: no id is both in _debits and in _closed.

    def __init__(self, cluster_id: bytes) -> None:
        self._cluster_id = cluster_id
        self._grants: dict[tuple[int, int], SliceGrant] = {}
        self._current: dict[int, SliceGrant] = {}
        self._used: dict[int, int] = {}
        self._used_by_symbol: dict[tuple[int, int], int] = {}
        self._debits: dict[tuple[int, int], Debit] = {}
        self._closed: dict[int, SequenceSet] = {}

    # --- grants ---

    def grant(self, grant: SliceGrant) -> str | None:
        """Apply a grant that the spine committed. Returns why it is refused, as a countable label, or None.

        Versions of a slice start at 1 and go up by one; the current grant once more is None and changes nothing.
        """
        current = self._current.get(grant.slice_id)
        if grant == current:
            return None
        if (reason := self._grant_error(grant, current)) is not None:
            return reason
        self._close(grant.slice_id)
        self._current[grant.slice_id] = grant
        self._grants[(grant.slice_id, grant.version)] = grant
        self._used[grant.slice_id] = 0
        return None

    def _grant_error(self, grant: SliceGrant, current: SliceGrant | None) -> str | None:
        if grant.cluster_id != self._cluster_id:
            return "of_another_cluster"
        if grant.notional_limit < 0 or grant.symbol_notional_limit < 0:
            return "limit_negative"
        if grant.version != (1 if current is None else current.version + 1):
            return "version_out_of_order"
        if current is not None and grant.epoch < current.epoch:
            return "epoch_went_back"
        return None

    def _close(self, slice_id: int) -> None:
        """The version's ids stay used for ever; its sums are of no more interest here."""
        for trader, intent_id in [key for key, debit in self._debits.items() if debit.slice_id == slice_id]:
            del self._debits[(trader, intent_id)]
            self._closed.setdefault(trader, SequenceSet()).add(intent_id)
        for key in [key for key in self._used_by_symbol if key[0] == slice_id]:
            del self._used_by_symbol[key]

    def current(self, slice_id: int) -> SliceGrant | None:
        return self._current.get(slice_id)

    def grant_of(self, slice_id: int, version: int) -> SliceGrant | None:
        """The grant of this very version, current or closed; the gate needs both."""
        return self._grants.get((slice_id, version))

    # --- use ---

    def used(self, slice_id: int) -> int:
        """Signed so far under the current version; 0 for an unknown slice."""
        return self._used.get(slice_id, 0)

    def remaining(self, slice_id: int) -> int:
        """What is left of the current version; 0 for an unknown slice."""
        grant = self._current.get(slice_id)
        return grant.notional_limit - self.used(slice_id) if grant is not None else 0

    def used_by_symbol(self, slice_id: int, symbol: int) -> int:
        """Routine use of one symbol under the current version: what ``route.criticality`` adds up."""
        return self._used_by_symbol.get((slice_id, symbol), 0)

    def frame_error(self, frame: Frame) -> DenyCode:
        """Does the frame name a slice, version and epoch that are granted to its trader and open?"""
        grant = self._current.get(frame.slice_id)
        named = (frame.slice_version, frame.epoch, frame.trader)
        if grant is None or named != (grant.version, grant.epoch, grant.trader):
            return DenyCode.SLICE_UNKNOWN
        return DenyCode.APPROVED

    def debit(self, slice_id: int, version: int, trader: int, intent_id: int, symbol: int, notional: int) -> DenyCode:
        """Take ``notional`` from the slice for one intent, once: the same debit again is approved and takes nothing.

        An id that was debited with other contents, or under a closed version, is INTENT_REPEATED.
        """
        wanted = Debit(slice_id, version, symbol, notional)
        grant = self._current.get(slice_id)
        if grant is None or (grant.version, grant.trader) != (version, trader):
            return DenyCode.SLICE_UNKNOWN
        if notional <= 0:  # a negative debit would be a refill
            return DenyCode.INVALID_QUANTITY
        held = self._debits.get((trader, intent_id))
        if held is not None:
            return DenyCode.APPROVED if held == wanted else DenyCode.INTENT_REPEATED
        if intent_id in self._closed.get(trader, ()):
            return DenyCode.INTENT_REPEATED
        if notional > self.remaining(slice_id):
            return DenyCode.SLICE_EXHAUSTED
        self._take(trader, intent_id, wanted)
        return DenyCode.APPROVED

    def _take(self, trader: int, intent_id: int, debit: Debit) -> None:
        self._debits[(trader, intent_id)] = debit
        self._used[debit.slice_id] += debit.notional
        by_symbol = (debit.slice_id, debit.symbol)
        self._used_by_symbol[by_symbol] = self._used_by_symbol.get(by_symbol, 0) + debit.notional

    def restore_debit(
        self, slice_id: int, version: int, trader: int, intent_id: int, symbol: int, notional: int
    ) -> None:
        """Repeat a debit from our own records after a restart, once the grants are back; in any order.

        Under the current version it counts as it did; under a closed one only its id stays used.
        """
        if self.debit(slice_id, version, trader, intent_id, symbol, notional) == DenyCode.APPROVED:
            return
        if (slice_id, version) not in self._grants:
            raise RunFailure(f"a signed debit names slice {slice_id} version {version}, which was never granted")
        current = self._current[slice_id].version == version
        if current and (trader, intent_id) not in self._debits and intent_id not in self._closed.get(trader, ()):
            raise RunFailure(f"signed debits of slice {slice_id} version {version} exceed its grant")
        if (trader, intent_id) not in self._debits:
            self._closed.setdefault(trader, SequenceSet()).add(intent_id)

    # --- rows ---

    def to_rows(self) -> list[BudgetRow]:
        """The whole book as rows of integers, for a snapshot; ``from_rows`` is the inverse."""
        grants = [
            (GRANT_ROW, g.slice_id, g.version, g.epoch, g.trader, g.gate, g.notional_limit, g.symbol_notional_limit)
            for _, g in sorted(self._grants.items())
        ]
        debits = [
            (DEBIT_ROW, d.slice_id, d.version, trader, intent_id, d.symbol, d.notional)
            for (trader, intent_id), d in self._debits.items()
        ]
        closed = [
            (CLOSED_ROW, trader, first, last)
            for trader, ids in sorted(self._closed.items())
            for first, last in ids.ranges()
        ]
        return [*grants, *debits, *closed]

    @classmethod
    def from_rows(cls, cluster_id: bytes, rows: Iterable[BudgetRow]) -> BudgetBook:
        """Raises ``RunFailure`` when the rows do not make a book: a replica that forgot a debit must not sign."""
        book = cls(cluster_id)
        for row in rows:
            book._read(row)
        return book

    def _read(self, row: BudgetRow) -> None:
        match row:
            case (0, slice_id, version, epoch, trader, gate, limit, symbol_limit):
                grant = SliceGrant(self._cluster_id, slice_id, version, epoch, trader, gate, limit, symbol_limit)
                reason = self.grant(grant)
            case (1, slice_id, version, trader, intent_id, symbol, notional):
                code = self.debit(slice_id, version, trader, intent_id, symbol, notional)
                reason = None if code == DenyCode.APPROVED else code.name
            case (2, trader, first, last):
                self._closed.setdefault(trader, SequenceSet()).add_range(first, last)
                reason = None
            case _:
                reason = "unknown kind or width"
        if reason is not None:
            raise RunFailure(f"budget row {row} cannot be restored: {reason}")
