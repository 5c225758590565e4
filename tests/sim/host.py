"""One replica of a simulated lane: the real machine, a disk that survives crashes, and a small application."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Iterable

import msgspec

from consensus.machine import (
    BROADCAST,
    Compact,
    HardState,
    LogAppend,
    Outgoing,
    ReadResult,
    Ready,
    Record,
    Snapshot,
    SnapshotRecord,
)
from consensus.raft.config import RaftConfig
from consensus.raft.core import Raft
from consensus.raft.membership import QuorumSize
from consensus.raft.proposals import Remembered
from protocol.codes import EntryKind
from protocol.messages import Entry, Message
from protocol.signing import digest


class Disk:
    """What survives a crash."""

    def __init__(self) -> None:
        self.hard_state = HardState(0, -1)
        self.entries: list[Entry] = []
        self.base = (0, 0)
        """Index and term before the first entry."""
        self.snapshot: Snapshot | None = None
        self.torn = 0
        """Writes of which a crash left a part."""

    def write(self, records: Iterable[Record]) -> None:
        for record in records:
            match record:
                case HardState():
                    self.hard_state = record
                case LogAppend(entries):
                    self._append(entries)
                case SnapshotRecord(snapshot, restarts_log):
                    assert self.snapshot is None or self.snapshot.index < snapshot.index, "an older snapshot"
                    self.snapshot = snapshot
                    if restarts_log:
                        self.entries, self.base = [], (snapshot.index, snapshot.term)
                case Compact(index, term):
                    assert self.snapshot is not None and self.base[0] <= index <= self.snapshot.index
                    del self.entries[: index - self.base[0]]
                    self.base = (index, term)
                case _:
                    raise AssertionError(record)

    def write_torn(self, records: list[Record], rng: random.Random) -> None:
        """The power fails in the middle: some of the records, and perhaps the beginning of one more."""
        whole = rng.randint(0, len(records))
        left: list[Record] = records[:whole]
        if whole < len(records) and isinstance(torn := records[whole], LogAppend):
            entries = torn.entries[: rng.randint(0, len(torn.entries))]
            left += [LogAppend(entries)] if entries else []
        self.torn += bool(left) and left != records
        self.write(left)

    def holds(self, entry: Entry) -> bool:
        """Whether the entry, or a snapshot in place of it, is here."""
        if entry.index <= self.base[0]:
            return True
        place = entry.index - self.base[0] - 1
        return place < len(self.entries) and self.entries[place] == entry

    def _append(self, entries: tuple[Entry, ...]) -> None:
        place = entries[0].index - self.base[0] - 1
        assert 0 <= place <= len(self.entries), "gap in the stored log"
        self.entries[place:] = entries


class Application:
    """What a replica applies: a hash over everything so far, and the keys that must not commit twice."""

    def __init__(self) -> None:
        self.index = 0
        self.chain = bytes(32)

    def apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            assert entry.index == self.index + 1, f"applied {entry.index} after {self.index}"
            self.index, self.chain = entry.index, link(self.chain, entry)

    def data(self, raft: Raft) -> bytes:
        """For a snapshot."""
        assert raft.proposals is not None
        return msgspec.msgpack.encode((self.chain, raft.proposals.dump(self.index)))

    def restore(self, snapshot: Snapshot, raft: Raft) -> None:
        self.chain, keys = msgspec.msgpack.decode(snapshot.data, type=tuple[bytes, Remembered])
        self.index = snapshot.index
        assert raft.proposals is not None
        raft.proposals.load(keys, snapshot.index)


def link(chain: bytes, entry: Entry) -> bytes:
    return digest(chain, b"%d/%d/%d" % (entry.index, entry.term, entry.kind), entry.payload)


def key_of(entry: Entry) -> bytes | None:
    """Every frame is its own idempotency key here."""
    return entry.payload if entry.kind == EntryKind.FRAME else None


def _nothing(*_: object) -> None:
    """What is told to nobody."""


class Host:
    """One replica with its disk. The machine may die and come back; the disk stays."""

    def __init__(
        self,
        own: int,
        voters: tuple[int, ...],
        quorum_size: int | QuorumSize,
        config: RaftConfig,
        machine_type: type[Raft] = Raft,
        seed: str = "host",
        roster: tuple[int, ...] | None = None,
        application_type: type[Application] = Application,
    ) -> None:
        self.own = own
        self.roster = voters if roster is None else roster
        self.voters = voters
        self.disk = Disk()
        self.open_writes: deque[Ready] = deque()
        self.stored_writes: deque[Ready] = deque()
        """On the disk, and the machine has not been told."""
        self.life = 0
        self.writes_lost = 0
        """Writes that were under way at a crash, and did not all reach the disk."""
        self._quorum_size = quorum_size
        self._config = config
        self._machine_type = machine_type
        self._seed = seed
        self.compact_every = 0
        """Take a snapshot whenever so many entries were applied since the last one; 0 for never."""
        self.trailing = 0
        self._application_type = application_type
        self.application = application_type()
        self.machine: Raft | None = self._make()
        self.send: Callable[[int, int, Message], None] = _nothing
        self.on_write: Callable[[Host], None] = _nothing
        self.on_commit: Callable[[Host, list[Entry]], None] = _nothing
        self.on_read: Callable[[Host, ReadResult], None] = _nothing

    def _make(self) -> Raft:
        rng = random.Random(f"{self._seed}/{self.own}/{self.life}")
        disk, self.application = self.disk, self._application_type()
        raft = self._machine_type(
            self.own, self.voters, self._quorum_size, rng, self._config, disk.hard_state, disk.entries,
            key_of=key_of, snapshot=disk.snapshot, log_base=disk.base, roster=self.roster,
        )  # fmt: skip
        if disk.snapshot is not None:
            self.application.restore(disk.snapshot, raft)
        return raft

    @property
    def raft(self) -> Raft:
        assert self.machine is not None, f"host {self.own} is down"
        return self.machine

    def drain(self) -> None:
        """Perform every Ready up to the point where only the disk is awaited."""
        raft = self.raft
        while not (ready := raft.take_ready()).empty:
            self._send(ready.send_now)
            if ready.records:
                self.open_writes.append(ready)
                self.on_write(self)
            else:
                self._send(ready.send_after_sync)
                raft.persisted(ready)
            if ready.snapshot is not None:
                self.application.restore(ready.snapshot, raft)
            if ready.committed_entries:
                self.application.apply(ready.committed_entries)
                self.on_commit(self, ready.committed_entries)
                self._compact()
            for result in ready.reads:
                self.on_read(self, result)

    def complete_write(self) -> None:
        """The oldest open write has reached the disk, and the machine learns of it at once."""
        self.store_write()
        self.report_write()

    def store_write(self) -> None:
        """The oldest open write has reached the disk."""
        ready = self.open_writes.popleft()
        self.disk.write(ready.records)
        self.stored_writes.append(ready)

    def report_write(self) -> None:
        """The machine learns of the oldest write that is stored."""
        ready = self.stored_writes.popleft()
        self._send(ready.send_after_sync)
        self.raft.persisted(ready)
        self.drain()

    def _compact(self) -> None:
        last = 0 if self.raft.snapshot is None else self.raft.snapshot.index
        if self.compact_every and self.application.index - last >= self.compact_every:
            self.raft.compact(self.application.index, self.application.data(self.raft), self.trailing)

    def crash(self, rng: random.Random | None = None) -> None:
        """Lose the machine and all open writes, or with ``rng`` all but the first few, whose promises never left, and
        the torn beginning of one more."""
        if rng is not None:
            whole = rng.randint(0, len(self.open_writes))
            for ready in list(self.open_writes)[:whole]:
                self.disk.write(ready.records)
            self.writes_lost += len(self.open_writes) - whole
            for ready in list(self.open_writes)[whole : whole + 1]:
                self.disk.write_torn(ready.records, rng)
        self.open_writes.clear()
        self.stored_writes.clear()
        self.machine = None
        self.life += 1

    def restart(self) -> None:
        assert self.machine is None
        self.machine = self._make()

    def _send(self, outgoing: Iterable[Outgoing]) -> None:
        for item in outgoing:
            if item.destination != BROADCAST:
                self.send(self.own, item.destination, item.message)
                continue
            for other in self.roster:
                if other != self.own:
                    self.send(self.own, other, item.message)
