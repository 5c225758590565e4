"""Decided slots: held until there is no gap below them, then executed, then kept for peers that lag."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consensus.pbft.pending import command_bytes
from protocol.errors import LocalMisuse
from protocol.messages import CommittedSlot

Archive = Callable[[int], CommittedSlot | None]
"""Reads one executed slot from the storage, None when it is not there."""

_COMMIT_BYTES = 128


class History:
    """``executed`` is the low watermark: everything up to it was handed out by ``release``, or lies before our time.

    ``slots`` are the storage's decisions in any order; those above ``executed_upto`` are handed out again.
    """

    # Invariant: the slot after ``executed`` is not held once release() has run.

    def __init__(
        self, executed_upto: int, slots: Iterable[CommittedSlot], kept_max: int, archive: Archive | None
    ) -> None:
        self.executed = executed_upto
        self._kept_max = kept_max
        self._archive = archive
        self._slots: dict[int, CommittedSlot] = {}
        for slot in slots:
            if self._slots.setdefault(slot.sequence, slot).digest != slot.digest:
                raise LocalMisuse(f"storage holds two decisions for sequence {slot.sequence}")
        for sequence in [sequence for sequence in self._slots if sequence <= executed_upto - kept_max]:
            del self._slots[sequence]

    def is_decided(self, sequence: int) -> bool:
        return sequence <= self.executed or sequence in self._slots

    def decide(self, slot: CommittedSlot) -> None:
        assert not self.is_decided(slot.sequence), "a sequence number is decided once"
        self._slots[slot.sequence] = slot

    def release(self) -> list[CommittedSlot]:
        """The slots that are now executable: in order, without gaps, each once."""
        released: list[CommittedSlot] = []
        while (slot := self._slots.get(self.executed + 1)) is not None:
            self.executed += 1
            released.append(slot)
            self._slots.pop(self.executed - self._kept_max, None)
        return released

    @property
    def waiting_count(self) -> int:
        """Decided slots above a gap."""
        return sum(1 for sequence in self._slots if sequence > self.executed)

    def get(self, sequence: int) -> CommittedSlot | None:
        slot = self._slots.get(sequence)
        if slot is None and self._archive is not None and 0 < sequence <= self.executed:
            return self._archive(sequence)
        return slot

    def chunk(self, from_sequence: int, slots_max: int, bytes_max: int) -> tuple[CommittedSlot, ...]:
        """Executed slots from ``from_sequence`` on, at least one if it is there, else within both bounds."""
        chunk: list[CommittedSlot] = []
        size_bytes = 0
        for sequence in range(from_sequence, min(self.executed, from_sequence + slots_max - 1) + 1):
            slot = self.get(sequence)
            if slot is None:
                break
            size_bytes += _slot_bytes(slot)
            if chunk and size_bytes > bytes_max:
                break
            chunk.append(slot)
        return tuple(chunk)


def _slot_bytes(slot: CommittedSlot) -> int:
    return sum(command_bytes(command) for command in slot.commands) + _COMMIT_BYTES * len(slot.commits)
