"""What became of proposals, by idempotency key: committed, refused, or unknown, which is a state with a name.

Why a key never commits twice. A leader does not append a key that stands in its log already, committed or not. So each
log holds each key at most once; and two copies that different leaders made cannot both be committed, since the log of
the later leader would have to hold both: by leader completeness it holds every committed entry (paper, section 5.4.3),
and terms in it never fall, so the earlier leader's copy would have come first and have been seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, TypeVar

from protocol.messages import Entry

KeyOf = Callable[[Entry], bytes | None]
"""The idempotency key inside an entry's payload; None for entries that nobody repeats."""

_Value = TypeVar("_Value")
_SUPERSEDED: Final = "another entry took its place"


class Standing(Enum):
    """What a replica can say about a key."""

    PENDING = "pending"
    """In the log of this replica, which leads."""
    COMMITTED = "committed"
    REFUSED = "refused"
    """Nothing was appended, or no copy that ever stood here since it was asked for can be committed any more. The same
    key may be proposed again; what a client asked of other replicas, they know."""
    UNKNOWN = "unknown"
    """This replica led when it appended the entry and does not lead now. It may yet be committed, or be overwritten."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The answer to a proposal, now or later."""

    standing: Standing
    index: int = 0
    """Where the entry stands in the log; 0 when it does not."""
    reason: str = ""
    """Why it was refused."""


@dataclass(frozen=True, slots=True)
class _Position:
    index: int
    term: int


class Proposals:
    """Follows one replica's log. ``remembered_max`` keys are remembered after their outcome, the latest ones; which
    committed keys these are depends on the committed log alone, so that every replica forgets the same ones.

    Invariants: a key is committed or open in the log, never both; what is asked here and open has no outcome yet.
    """

    def __init__(self, key_of: KeyOf, remembered_max: int = 100_000) -> None:
        self.duplicates = 0
        """Keys that came a second time: no honest leader appends one."""
        self._key_of = key_of
        self._remembered_max = remembered_max
        self._committed: dict[bytes, int] = {}
        self._refused: dict[bytes, str] = {}
        self._open: dict[bytes, _Position] = {}
        self._open_at: dict[int, bytes] = {}
        self._asked: dict[bytes, set[_Position]] = {}
        """Every copy of the key that stood in this log since it was asked for, and that may yet be committed."""
        self._asked_at: dict[int, set[bytes]] = {}

    def outcome(self, key: bytes, leads: bool) -> Outcome | None:
        """What is known of ``key``; None when this replica never heard of it, or forgot. ``leads``: it leads now."""
        if key in self._committed:
            return Outcome(Standing.COMMITTED, self._committed[key])
        if key in self._open:
            return Outcome(Standing.PENDING if leads else Standing.UNKNOWN, self._open[key].index)
        if key in self._asked:
            return Outcome(Standing.UNKNOWN)
        if key in self._refused:
            return Outcome(Standing.REFUSED, reason=self._refused[key])
        return None

    def stands_in_log(self, key: bytes) -> bool:
        """Whether a leader must not append it again."""
        return key in self._committed or key in self._open

    def asked(self, key: bytes) -> None:
        """A client of this replica waits for the outcome of a key that is open in the log."""
        if key in self._committed:
            return
        self._refused.pop(key, None)
        self._await(key, self._open[key])

    def truncated(self, keep: int) -> None:
        """Everything after ``keep`` left the log."""
        for index in [index for index in self._open_at if index > keep]:
            del self._open[self._open_at.pop(index)]

    def appended(self, entries: Sequence[Entry]) -> None:
        """These entered the log at its end."""
        for entry in entries:
            key = self._key_of(entry)
            if key is None:
                continue
            if self.stands_in_log(key):
                self.duplicates += 1
                continue
            self._open[key] = _Position(entry.index, entry.term)
            self._open_at[entry.index] = key
            self._refused.pop(key, None)
            if key in self._asked:
                self._await(key, self._open[key])

    def committed(self, entries: Iterable[Entry]) -> None:
        """The next committed entries, in order."""
        for entry in entries:
            key = self._open_at.pop(entry.index, None)
            if key is not None:
                del self._open[key]
                self._forget_asked(key)
                self._refused.pop(key, None)
                _remember(self._committed, key, entry.index, self._remembered_max)
            for loser in self._asked_at.pop(entry.index, ()):
                self._superseded(loser, {copy for copy in self._asked[loser] if copy.index == entry.index})

    def dump(self, upto: int) -> list[tuple[bytes, int]]:
        """The committed keys up to an index, oldest first. A snapshot of the application there has to carry them."""
        return [(key, index) for key, index in self._committed.items() if index <= upto]

    def load(self, dumped: Iterable[tuple[bytes, int]], index: int) -> None:
        """Go on from a snapshot that stands for the log up to ``index``. Later entries may have come already."""
        later = {key: place for key, place in self._committed.items() if place > index}
        self._committed = dict(dumped) | later
        for key in self._committed.keys() & self._open.keys():
            del self._open_at[self._open.pop(key).index]
        complete = len(self._committed) < self._remembered_max  # otherwise the key may have been forgotten
        for key in self._committed:
            self._forget_asked(key)
            self._refused.pop(key, None)
        for key, copies in list(self._asked.items()):
            below = {copy for copy in copies if copy.index <= index}
            self._superseded(key, below, surely=complete)
        self._asked_at = {place: keys for place, keys in self._asked_at.items() if place > index}

    def check_invariants(self) -> None:
        assert not self._committed.keys() & (self._open.keys() | self._asked.keys() | self._refused.keys())
        assert {position.index: key for key, position in self._open.items()} == self._open_at
        places = {(copy.index, key) for key, copies in self._asked.items() for copy in copies}
        assert places == {(index, key) for index, keys in self._asked_at.items() for key in keys}
        assert all(self._asked.values())
        assert max(len(self._committed), len(self._refused)) <= self._remembered_max

    def _await(self, key: bytes, copy: _Position) -> None:
        self._asked.setdefault(key, set()).add(copy)
        self._asked_at.setdefault(copy.index, set()).add(key)

    def _superseded(self, key: bytes, copies: set[_Position], surely: bool = True) -> None:
        """Other entries are committed where these copies stood. After the last one the key is refused for certain."""
        self._asked[key] -= copies
        if not self._asked[key]:
            del self._asked[key]
            if surely:
                _remember(self._refused, key, _SUPERSEDED, self._remembered_max)

    def _forget_asked(self, key: bytes) -> None:
        for index in {copy.index for copy in self._asked.pop(key, ())}:
            self._asked_at[index].discard(key)
            if not self._asked_at[index]:
                del self._asked_at[index]


def _remember(known: dict[bytes, _Value], key: bytes, value: _Value, limit: int) -> None:
    known[key] = value
    if len(known) > limit:
        del known[next(iter(known))]
