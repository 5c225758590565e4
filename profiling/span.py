"""Measure what runs: spans around code, intervals known otherwise, and marks where a stage of a cycle ends.

    install(RingWriter(run_dir / "risk-1" / "trace.ring", agent_index=2))
    with span(Operation.RISK_CHECK, trace=cycle):
        ...
    mark(Operation.FRAME_VERIFIED, since_ns=received_ns, trace=cycle, aux=frame_key(digest))

Without an installed ring all of it does nothing. The trace (cycle number, 0 outside a cycle) is always passed by hand:
an event loop interleaves many cycles and worker threads serve them out of order, so a "current cycle" kept in a module
would often name the wrong one, and a context variable costs as much as a third of the span.
"""

from __future__ import annotations

import os
from types import TracebackType
from typing import Final

from profiling.clock import now_ns
from profiling.ring import Kind, RingWriter, Write
from profiling.stages import Operation

_KIND_SPAN: Final = int(Kind.SPAN)
_KIND_INTERVAL: Final = int(Kind.INTERVAL)
_KIND_MARK: Final = int(Kind.MARK)

_write: Write | None = None


def install(writer: RingWriter) -> None:
    """Record into this ring from now on, in all threads of this process."""
    global _write
    _write = writer.write


def uninstall() -> None:
    """Record nothing from now on. The caller closes the ring."""
    global _write
    _write = None


# A forked child would write into its parent's slots with the parent's numbers.
os.register_at_fork(after_in_child=uninstall)


class Span:
    """Times a ``with`` block and records it when the block ends, also when it ends by an exception.

    May be used again after it ended, but not inside itself or from two threads at once. ``aux`` is any number below
    2**64.
    """

    __slots__ = ("_aux", "_operation", "_t0_ns", "_trace")

    def __init__(self, operation: Operation, trace: int = 0, aux: int = 0) -> None:
        self._operation = operation
        self._trace = trace
        self._aux = aux
        self._t0_ns = 0

    def __enter__(self) -> None:
        self._t0_ns = now_ns() if _write is not None else 0

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # A ring installed while the block ran has no start to go with: nothing is recorded.
        write = _write
        if write is not None and self._t0_ns:
            write(self._operation, self._t0_ns, now_ns(), self._trace, self._aux, _KIND_SPAN)


span = Span
"""``with span(Operation.DTW_SEARCH, trace=cycle):`` reads as a sentence."""


def record(operation: Operation, t0_ns: int, t1_ns: int, trace: int = 0, aux: int = 0) -> None:
    """Record an interval that was measured otherwise, in nanoseconds of ``now_ns``."""
    if _write is not None:
        _write(operation, t0_ns, t1_ns, trace, aux, _KIND_INTERVAL)


def mark(operation: Operation, since_ns: int, trace: int = 0, aux: int = 0) -> None:
    """Record that a point of the cycle is reached now, by work that began at ``since_ns``. ``aux``: ``frame_key``."""
    if _write is not None:
        _write(operation, since_ns, now_ns(), trace, aux, _KIND_MARK)


def frame_key(digest: bytes) -> int:
    """The number that identifies a frame in ``aux``: the first 8 bytes of its digest, big-endian."""
    if len(digest) < 8:
        raise ValueError(f"a frame digest has 8 bytes or more, not {len(digest)}")
    return int.from_bytes(digest[:8], "big")
