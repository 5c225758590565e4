"""Commands that wait for their execution, oldest first, and which of them still wait to be proposed."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.messages import SignedCommand

_COMMAND_OVERHEAD_BYTES = 16


def command_bytes(command: SignedCommand) -> int:
    """Size of a command on the wire, near enough for a bound."""
    return len(command.body) + len(command.signature) + _COMMAND_OVERHEAD_BYTES


@dataclass(slots=True)
class _Waiting:
    command: SignedCommand
    since_ns: int | None
    """None until the clock is seen for the first time after the submission."""


class PendingCommands:
    """Bounded, keyed by command digest. A command stays from its submission to its execution."""

    # Invariant: unproposed is a subset of waiting, and both run from the oldest to the newest.

    def __init__(self, count_max: int) -> None:
        self._count_max = count_max
        self._waiting: dict[bytes, _Waiting] = {}
        self._unproposed: dict[bytes, None] = {}
        self._unstamped: list[bytes] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def __contains__(self, digest: bytes) -> bool:
        return digest in self._waiting

    @property
    def unproposed_count(self) -> int:
        return len(self._unproposed)

    @property
    def unstamped(self) -> bool:
        return bool(self._unstamped)

    def add(self, digest: bytes, command: SignedCommand) -> bool:
        """Remember a new command; False when there is no room."""
        assert digest not in self._waiting, "the caller removes duplicates"
        if len(self._waiting) >= self._count_max:
            return False
        self._waiting[digest] = _Waiting(command, None)
        self._unproposed[digest] = None
        self._unstamped.append(digest)
        return True

    def holds(self, digest: bytes, command: SignedCommand) -> bool:
        """Whether exactly this command, signature included, waits here and so was validated."""
        waiting = self._waiting.get(digest)
        return waiting is not None and waiting.command == command

    def mark_proposed(self, digest: bytes) -> None:
        self._unproposed.pop(digest, None)

    def mark_unproposed(self, digest: bytes) -> None:
        """Its slot was decided otherwise: it waits for a proposal again, behind the others."""
        if digest in self._waiting:
            self._unproposed[digest] = None

    def discard(self, digest: bytes) -> None:
        self._waiting.pop(digest, None)
        self._unproposed.pop(digest, None)

    def stamp(self, now_ns: int) -> None:
        for digest in self._unstamped:
            if (waiting := self._waiting.get(digest)) is not None:
                waiting.since_ns = now_ns
        self._unstamped.clear()

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest waiting command was submitted."""
        oldest = next(iter(self._waiting.values()), None)
        return oldest.since_ns if oldest is not None else None

    def take_batch(self, count_max: int, bytes_max: int) -> tuple[tuple[bytes, SignedCommand], ...]:
        """The oldest unproposed commands that fit into one slot; they count as proposed from now on."""
        batch = self._oldest_unproposed(count_max, bytes_max)
        for digest, _ in batch:
            del self._unproposed[digest]
        return batch

    def overdue(self, before_ns: int, count_max: int, bytes_max: int) -> tuple[SignedCommand, ...]:
        """Unproposed commands that were submitted at or before ``before_ns``, the oldest first."""
        batch = self._oldest_unproposed(count_max, bytes_max)
        return tuple(command for digest, command in batch if self._since_ns(digest) <= before_ns)

    def _since_ns(self, digest: bytes) -> int:
        since_ns = self._waiting[digest].since_ns
        assert since_ns is not None, "stamped at the start of every step and tick"
        return since_ns

    def _oldest_unproposed(self, count_max: int, bytes_max: int) -> tuple[tuple[bytes, SignedCommand], ...]:
        batch: list[tuple[bytes, SignedCommand]] = []
        size_bytes = 0
        for digest in self._unproposed:
            command = self._waiting[digest].command
            size_bytes += command_bytes(command)
            if len(batch) >= count_max or size_bytes > bytes_max:
                break
            batch.append((digest, command))
        return tuple(batch)
