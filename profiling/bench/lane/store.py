"""A key-value store on the lane, pure: what a log of writes means, and how its clients' messages travel.

It is what etcd is to its users, in a hundred lines: the benchmark measures it beside etcd, the nemesis breaks its
processes and checks what the clients saw. Like the lane below it, it is compiled (docs/native.md).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from consensus.raft.proposals import Remembered
from profiling.bench.lane.requests import ONCE_BYTES, REQUEST_BYTES_MAX, Dump, Request, Response, Write
from protocol.codes import EntryKind
from protocol.messages import Entry

RESULTS_MIN: Final = 5_000
"""Latest writes whose results are remembered at least, and up to twice as many, for a client that asks again. Which
ones, the log alone decides."""
LENGTH_BYTES: Final = 4
MESSAGES_PER_FRAME: Final = 64
"""What one turn of a loop says travels together, in frames of at most so many messages."""

_write_encoder: Final = msgspec.msgpack.Encoder()
_write_decoder: Final = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes | None])
"""A ``Write`` as the tuple that it is on the wire: every entry passes here, on every node."""
_FRAME: Final = int(EntryKind.FRAME)


def payload_of(request: Request) -> bytes:
    """A PUT or a CAS as the payload of a lane entry."""
    return request.once + _write_encoder.encode(Write(request.key, request.value, request.expected))


def once_of(entry: Entry) -> bytes | None:
    """The idempotency key of an entry: ``key_of`` of the lane."""
    return entry.payload[:ONCE_BYTES] if entry.kind == _FRAME else None


class KeyValues:
    """The state after the entry at ``index``, a function of the log alone."""

    def __init__(self) -> None:
        self.index = 0
        self.values: dict[bytes, bytes] = {}
        self._results: dict[bytes, bool] = {}
        """Of the latest writes, by idempotency key: whether they took effect."""
        self._results_before: dict[bytes, bool] = {}
        """Of those before them. To forget many at once costs nothing for each."""

    def apply(self, entries: Sequence[Entry]) -> list[bytes]:
        """The next committed entries; returns the idempotency keys of the writes among them, in order."""
        values, results, index, decode = self.values, self._results, self.index, _write_decoder.decode
        keys = []
        for entry in entries:
            index += 1
            assert entry.index == index, f"entry {entry.index} after {index - 1}"
            if entry.kind != _FRAME:
                continue
            payload = entry.payload
            once = payload[:ONCE_BYTES]
            key, value, expected = decode(payload[ONCE_BYTES:])
            done = expected is None or values.get(key, b"") == expected
            if done:
                values[key] = value
            results[once] = done
            keys.append(once)
            if len(results) == RESULTS_MIN:
                self._results_before, self._results = results, {}
                results = self._results
        self.index = index
        return keys

    def result(self, once: bytes) -> bool | None:
        """Whether a write took effect; None when it is not known here, or was forgotten."""
        found = self._results.get(once)
        return self._results_before.get(once) if found is None else found

    def dump(self, keys: Remembered) -> bytes:
        """For a snapshot; ``keys`` are those that the lane remembers."""
        return msgspec.msgpack.encode(Dump(self.index, self.values, self._results, self._results_before, keys))

    def load(self, data: bytes) -> Remembered:
        """Restore from a snapshot; returns the lane's keys in it."""
        dumped = msgspec.msgpack.decode(data, type=Dump)
        self.index, self.values = dumped.index, dumped.values
        self._results, self._results_before = dumped.results, dumped.results_before
        return dumped.keys


def frames(encoder: msgspec.msgpack.Encoder, messages: Sequence[Request] | Sequence[Response], bytes_max: int) -> bytes:
    """Messages as they travel on a client's connection: each frame its length, then a list of them. Only a message that
    is itself larger makes a frame larger than ``bytes_max``; its reader refuses it."""
    first = range(0, len(messages), MESSAGES_PER_FRAME)
    return b"".join([_cut(encoder, messages[at : at + MESSAGES_PER_FRAME], bytes_max) for at in first])


def _cut(encoder: msgspec.msgpack.Encoder, messages: Sequence[Request] | Sequence[Response], bytes_max: int) -> bytes:
    data = encoder.encode(messages)
    if len(data) > bytes_max and len(messages) > 1:
        middle = len(messages) // 2
        return _cut(encoder, messages[:middle], bytes_max) + _cut(encoder, messages[middle:], bytes_max)
    return len(data).to_bytes(LENGTH_BYTES, "little") + data


class Deframer:
    """Cuts what arrives on a connection into frames. Raises ``ValueError`` for one that is longer than the bound."""

    def __init__(self, handle: Callable[[bytes], None], bytes_max: int = REQUEST_BYTES_MAX) -> None:
        self._handle = handle
        self._bytes_max = bytes_max
        self._rest = b""

    def receive(self, data: bytes) -> None:
        """Take what arrived; every frame that is whole is handed on."""
        data = self._rest + data if self._rest else data
        position, end = 0, len(data)
        while end - position >= LENGTH_BYTES:
            size = int.from_bytes(data[position : position + LENGTH_BYTES], "little")
            if size > self._bytes_max:
                raise ValueError(f"a frame of {size} bytes; {self._bytes_max} at most")
            following = position + LENGTH_BYTES + size
            if following > end:
                break
            self._handle(data[position + LENGTH_BYTES : following])
            position = following
        self._rest = data[position:]
