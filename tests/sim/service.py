"""What the simulated lane is for: a small key-value service whose commands carry their own identity."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import msgspec

from consensus.machine import Snapshot
from consensus.raft.core import Raft
from consensus.raft.proposals import Remembered
from protocol.messages import Entry
from tests.oracles.linearizability import Operation, perform
from tests.sim.host import Application

Whole = tuple[bytes, Remembered, dict[str, Any], dict[str, Any]]
"""A snapshot: the chain, the lane's keys, the table, the results."""


@dataclass(frozen=True, slots=True)
class Command:
    """One request of a client. Its text is the idempotency key, so it must be given once."""

    identity: str
    kind: str
    key: str
    argument: Any
    padding: str = ""

    def encode(self) -> bytes:
        return msgspec.json.encode((self.identity, self.kind, self.key, self.argument, self.padding))


class Service(Application):
    """The table, and what became of every command: a repeated one is answered, not performed again."""

    def __init__(self) -> None:
        super().__init__()
        self.table: dict[str, Any] = {}
        self.results: dict[str, Any] = {}

    def apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            super().apply([entry])
            if entry.payload.startswith(b"["):
                self._perform(entry)

    def _perform(self, entry: Entry) -> None:
        identity, kind, key, argument, _ = msgspec.json.decode(entry.payload)
        if kind == "cas":
            argument = tuple(argument)
        operation = Operation(0, key, kind, argument, None, 0)
        state, self.results[identity] = perform(self.table.get(key), operation)
        self.table[key] = state
        shown = repr((self.chain, self.results[identity], sorted(self.table.items())))
        self.chain = hashlib.sha256(shown.encode()).digest()

    def data(self, raft: Raft) -> bytes:
        assert raft.proposals is not None
        return msgspec.msgpack.encode((self.chain, raft.proposals.dump(self.index), self.table, self.results))

    def restore(self, snapshot: Snapshot, raft: Raft) -> None:
        self.chain, keys, self.table, self.results = msgspec.msgpack.decode(snapshot.data, type=Whole)
        self.index = snapshot.index
        assert raft.proposals is not None
        raft.proposals.load(keys, snapshot.index)
