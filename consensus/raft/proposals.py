"""What became of proposals, by idempotency key: committed, refused, or unknown, which is a state with a name.

Why a key never commits twice. A leader does not append a key that stands in its log already, committed or not. So each
log holds each key at most once; and two copies that different leaders made cannot both be committed, since the log of
the later leader would have to hold both: by leader completeness it holds every committed entry (paper, section 5.4.3),
and terms in it never fall, so the earlier leader's copy would have come first and have been seen.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple

from consensus.raft.outcome import Outcome, Standing
from protocol.messages import Entry

KeyOf = Callable[[Entry], bytes | None]
"""The idempotency key inside an entry's payload; None for entries that nobody repeats."""

_SUPERSEDED: Final = "another entry took its place"


class _Copy(NamedTuple):
    """Of an entry that left the log."""

    place: int
    """Its index."""
    term: int


class Remembered(NamedTuple):
    """What a snapshot of the application has to carry of the committed keys."""

    keys: list[tuple[bytes, int]]
    """Each with its entry's index, oldest first."""
    forgotten_upto: int
    """Keys of entries up to this index may be missing; 0 when none is."""


class Proposals:
    """Follows one replica's log. A committed key is remembered for ``span`` entries after its own at the least and for
    twice as many at the most: by generations of ``span`` entries, so that every replica forgets the same keys, and
    forgetting costs nothing until a whole generation goes. As many refused keys as ``span`` are remembered, the latest.

    ``forgotten_upto``: the log that it is shown begins after this entry.

    Invariants: a key is committed or open in the log, never both; what is asked here and open has no outcome yet.
    """

    def __init__(self, key_of: KeyOf, span: int = 100_000, forgotten_upto: int = 0) -> None:
        self.duplicates = 0
        """Keys that came a second time: no honest leader appends one."""
        self._key_of = key_of
        self._span = span
        self._forgotten_upto = forgotten_upto
        self._newer: dict[bytes, int] = {}
        """Committed keys of the generation that the last committed entry belongs to."""
        self._older: dict[bytes, int] = {}
        """And of the one before it."""
        self._turn_at = (forgotten_upto // span + 1) * span
        """With this index the next generation begins."""
        # Ordered, because the oldest goes first: a plain dict would walk over everything that left before it.
        self._refused: OrderedDict[bytes, str] = OrderedDict()
        self._open: dict[bytes, Entry] = {}
        self._open_at: dict[int, bytes] = {}
        self._awaited: set[bytes] = set()
        """Open keys that a client of this replica waits for."""
        self._lost: dict[bytes, set[_Copy]] = {}
        """Copies of a key that stood in this log since it was asked for, left it, and may yet be committed."""
        self._lost_at: dict[int, set[bytes]] = {}

    def outcome(self, key: bytes, leads: bool) -> Outcome | None:
        """What is known of ``key``; None when this replica never heard of it, or forgot. ``leads``: it leads now."""
        index = self._committed_at(key)
        if index is not None:
            return Outcome(Standing.COMMITTED, index)
        if key in self._open:
            return Outcome(Standing.PENDING if leads else Standing.UNKNOWN, self._open[key].index)
        if key in self._lost:
            return Outcome(Standing.UNKNOWN)
        if key in self._refused:
            return Outcome(Standing.REFUSED, reason=self._refused[key])
        return None

    def stands_in_log(self, key: bytes) -> bool:
        """Whether a leader must not append it again."""
        return key in self._open or key in self._newer or key in self._older

    def open_index(self, key: bytes) -> int | None:
        """Where the key is open in the log; None when it is not."""
        entry = self._open.get(key)
        return None if entry is None else entry.index

    def asked(self, key: bytes) -> None:
        """A client of this replica waits for the outcome of a key that is open in the log."""
        if self._committed_at(key) is None:
            assert key in self._open
            self._awaited.add(key)

    def truncated(self, keep: int) -> None:
        """Everything after ``keep`` left the log."""
        for index in [index for index in self._open_at if index > keep]:
            key = self._open_at.pop(index)
            entry = self._open.pop(key)
            if key in self._awaited:
                self._awaited.remove(key)
                self._lost.setdefault(key, set()).add(_Copy(index, entry.term))
                self._lost_at.setdefault(index, set()).add(key)

    def appended(self, entries: Sequence[Entry]) -> None:
        """These entered the log at its end."""
        for entry in entries:
            key = self._key_of(entry)
            if key is None:
                continue
            if self.stands_in_log(key):
                self.duplicates += 1
                continue
            self._open[key] = entry
            self._open_at[entry.index] = key
            if self._refused:
                self._refused.pop(key, None)
            if key in self._lost:
                self._awaited.add(key)

    def committed(self, entries: Iterable[Entry]) -> None:
        """The next committed entries, in order."""
        for entry in entries:
            if entry.index >= self._turn_at:
                self._turn(entry.index)
            key = self._open_at.pop(entry.index, None)
            if key is not None:
                del self._open[key]
                self._awaited.discard(key)
                if key in self._lost:
                    self._find(key)
                self._newer[key] = entry.index
            if self._lost_at:
                for loser in self._lost_at.pop(entry.index, ()):
                    self._superseded(loser, {copy for copy in self._lost[loser] if copy.place == entry.index})

    def dump(self, upto: int) -> Remembered:
        """The committed keys up to an index. A snapshot of the application there has to carry them."""
        held = (*self._older.items(), *self._newer.items())
        return Remembered([(key, index) for key, index in held if index <= upto], self._forgotten_upto)

    def load(self, remembered: Remembered, index: int) -> None:
        """Go on from a snapshot that stands for the log up to ``index``. Later entries may have come already."""
        later = ((key, place) for key, place in (*self._older.items(), *self._newer.items()) if place > index)
        committed = dict((*remembered.keys, *later))
        self._turn_at = max(self._turn_at, (index // self._span + 1) * self._span)
        newer_from = self._turn_at - self._span
        older_from = newer_from - self._span
        self._newer = {key: place for key, place in committed.items() if place >= newer_from}
        self._older = {key: place for key, place in committed.items() if older_from <= place < newer_from}
        self._forgotten_upto = max(remembered.forgotten_upto, older_from - 1)
        for key in committed.keys() & self._open.keys():
            del self._open_at[self._open.pop(key).index]
        self._awaited -= committed.keys()
        for key in self._lost.keys() & committed.keys():
            self._find(key)
        for key in self._refused.keys() & committed.keys():
            del self._refused[key]
        for key, copies in list(self._lost.items()):
            below = {copy for copy in copies if copy.place <= index}
            # What was forgotten may have been this very key.
            self._superseded(key, below, surely=self._forgotten_upto == 0)
        self._lost_at = {place: keys for place, keys in self._lost_at.items() if place > index}

    def check_invariants(self) -> None:
        """What holds between any two calls."""
        newer_from = self._turn_at - self._span
        for keys, begins in ((self._newer, newer_from), (self._older, newer_from - self._span)):
            assert all(keys.keys().isdisjoint(others) for others in (self._open, self._lost, self._refused))
            if keys:  # in the log's order
                first, last = keys[next(iter(keys))], keys[next(reversed(keys))]
                assert begins <= first <= last < begins + self._span
        assert self._newer.keys().isdisjoint(self._older)
        assert {entry.index: key for key, entry in self._open.items()} == self._open_at
        assert self._awaited <= self._open.keys() and not self._refused.keys() & self._open.keys()
        places = {(copy.place, key) for key, copies in self._lost.items() for copy in copies}
        assert places == {(index, key) for index, keys in self._lost_at.items() for key in keys}
        assert all(self._lost.values())
        assert len(self._refused) <= self._span

    def _committed_at(self, key: bytes) -> int | None:
        index = self._newer.get(key)
        return self._older.get(key) if index is None else index

    def _turn(self, index: int) -> None:
        """The generation of ``index`` begins."""
        newer_from = index // self._span * self._span
        self._older, self._newer = (self._newer if newer_from == self._turn_at else {}), {}
        self._turn_at = newer_from + self._span
        self._forgotten_upto = max(self._forgotten_upto, newer_from - self._span - 1)

    def _superseded(self, key: bytes, copies: set[_Copy], surely: bool = True) -> None:
        """Other entries are committed where these copies stood. After the last one the key is refused for certain."""
        self._lost[key] -= copies
        if self._lost[key]:
            return
        del self._lost[key]
        if surely and key not in self._open:
            self._refused[key] = _SUPERSEDED
            if len(self._refused) > self._span:
                self._refused.popitem(last=False)

    def _find(self, key: bytes) -> None:
        """It is committed: no matter what became of other copies."""
        for index in {copy.place for copy in self._lost.pop(key)}:
            self._lost_at[index].discard(key)
            if not self._lost_at[index]:
                del self._lost_at[index]
