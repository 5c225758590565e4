"""Explicit threads over kernels that release the GIL. Nothing here or below starts a thread unless it was asked to."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from dtw.errors import InvalidArgument


def checked_threads(threads: int) -> int:
    """``threads``, or ``InvalidArgument`` unless it is at least 1."""
    if threads < 1:
        raise InvalidArgument(f"a call runs in at least 1 thread, not {threads}")
    return int(threads)


def in_threads(calls: Sequence[Callable[[], object]], threads: int) -> None:
    """Make all calls, at most ``threads`` at a time; the first error is raised when all have ended."""
    if threads == 1 or len(calls) < 2:
        for call in calls:
            call()
        return
    with ThreadPoolExecutor(min(threads, len(calls)), thread_name_prefix="dtw") as pool:
        for running in [pool.submit(call) for call in calls]:
            running.result()


def slices(count: int, threads: int, multiple: int) -> list[slice]:
    """``count`` items in at most ``threads`` contiguous parts, whose starts are multiples of ``multiple``."""
    groups = -(-count // multiple)
    share = max(1, -(-groups // threads)) * multiple
    return [slice(start, min(count, start + share)) for start in range(0, count, share)]
