"""Explicit threads over kernels that release the GIL. Nothing here or below starts a thread unless it was asked to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Thread

from dtw.errors import InvalidArgument


def checked_threads(threads: int) -> int:
    """``threads``, or ``InvalidArgument`` unless it is at least 1."""
    if threads < 1:
        raise InvalidArgument(f"a call runs in at least 1 thread, not {threads}")
    return int(threads)


def in_threads(calls: Sequence[Callable[[], object]], threads: int) -> None:
    """Make all calls, at most ``threads`` at a time. After an error no more begin; it is raised when all have ended.

    The caller is one of the threads: two of them cost one to start.
    """
    workers = min(threads, len(calls))
    if workers < 2:
        for call in calls:
            call()
        return
    waiting, errors = iter(calls), list[BaseException]()
    others = [Thread(target=_work, args=(waiting, errors), name=f"dtw-{number}") for number in range(1, workers)]
    for other in others:
        other.start()
    _work(waiting, errors)
    for other in others:
        other.join()
    if errors:
        raise errors[0]


def _work(waiting: Iterator[Callable[[], object]], errors: list[BaseException]) -> None:
    """Make calls until there is none left; taking the next one is atomic under the GIL."""
    try:
        for call in waiting:
            if errors:
                return
            call()
    except BaseException as error:  # raised again by the caller
        errors.append(error)


def slices(count: int, threads: int, multiple: int) -> list[slice]:
    """``count`` items in at most ``threads`` contiguous parts, whose starts are multiples of ``multiple``."""
    groups = -(-count // multiple)
    share = max(1, -(-groups // threads)) * multiple
    return [slice(start, min(count, start + share)) for start in range(0, count, share)]
