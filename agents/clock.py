"""Wall-clock deadlines of frames: the one place where agents compare clocks of different hosts."""

from __future__ import annotations

from typing import Final

from profiling.clock import wall_ns

__all__ = ["EXPIRY_GRACE_NS", "expired", "wall_ns"]

EXPIRY_GRACE_NS: Final = 400_000_000
"""How much longer than the gate a trader waits before it calls a decision refused: clock skew plus one delivery."""


def expired(expires_at_ns: int, now_wall_ns: int) -> bool:
    """Whether nothing may be signed or released for a frame any more."""
    return now_wall_ns >= expires_at_ns
