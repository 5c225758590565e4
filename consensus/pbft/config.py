"""Limits and timers of the spine, in one immutable value."""

from __future__ import annotations

from dataclasses import dataclass, fields

from protocol.errors import LocalMisuse


@dataclass(frozen=True, slots=True)
class PbftConfig:
    """Every bound that ``Pbft`` keeps. All values are positive; replicas of one cluster share them.

    Raises ``LocalMisuse`` for a value that is not positive or for a history shorter than the window.
    """

    window: int = 64
    """Sequence numbers between the watermarks: at most so many slots are unfinished at once."""
    commands_per_slot_max: int = 64
    slot_bytes_max: int = 1 << 20
    pending_max: int = 4096
    """Commands remembered until they are executed. The newest is refused when it is full."""
    resend_ns: int = 250_000_000
    """First retransmission of an unfinished slot; it doubles from there."""
    resend_backoff_max: int = 8
    """Retransmissions are at most ``resend_ns`` times this apart."""
    probe_ns: int = 1_000_000_000
    """An idle replica asks its peers so often whether it has missed something."""
    suspect_ns: int = 2_000_000_000
    """A command unexecuted for longer makes the primary suspect."""
    reply_slots_max: int = 16
    reply_bytes_max: int = 4 << 20
    history_slots_max: int = 4096
    """Executed slots kept in memory for peers that lag; older ones come from the archive, when there is one."""

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) <= 0:
                raise LocalMisuse(f"PbftConfig.{field.name} must be positive")
        if self.history_slots_max < self.window:
            raise LocalMisuse("PbftConfig.history_slots_max must be at least the window")
