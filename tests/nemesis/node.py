"""A node of the lane as the nemesis starts it: its disk can be slow, and it can be broken on purpose, as a real one
might be, so that the checkers can show that they notice."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from consensus.machine import Record
from consensus.storage import KeyValue, Storage
from profiling.bench.lane import node, service
from profiling.bench.lane.requests import Request, Response, Standing, Verb

LATE_S: Final = 1.0
TRAILING_ENTRIES: Final = 10
"""So few that whoever was away for a moment needs a snapshot, where there are any."""


def die_with_parent() -> None:
    """Also one that stands still, which cannot notice the end of its standard input."""
    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def slow_down(switch: Path) -> None:
    """Commits take as many milliseconds longer as stand in the file."""
    commit = Storage.commit

    def slowly(self: Storage, records: Sequence[Record | KeyValue]) -> None:
        if switch.exists():
            time.sleep(int(switch.read_text() or 0) / 1000)
        commit(self, records)

    Storage.commit = slowly  # type: ignore[method-assign]


def write_late() -> None:
    """Promises leave before they are on the disk, which gets them a second later, if there is one."""
    commit = Storage.commit
    held: list[Record | KeyValue] = []
    since = time.monotonic()

    def late(self: Storage, records: Sequence[Record | KeyValue]) -> None:
        nonlocal since
        held.extend(records)
        if time.monotonic() - since > LATE_S:
            commit(self, held)
            held.clear()
            since = time.monotonic()

    Storage.commit = late  # type: ignore[method-assign]


def read_locally() -> None:
    """Every node answers reads from its own state, as if nobody could have written without it."""

    def read(self: service.Service, client: service.Client, request: Request) -> None:
        client.answer(Response(request.number, Standing.DONE, self.values.values.get(request.key)))

    service.Service._on_read = read  # type: ignore[method-assign]


def acknowledge_early() -> None:
    """A leader says that a put is done when it has only begun."""
    on_write = service.Service._on_write

    def write(self: service.Service, client: service.Client, request: Request) -> None:
        on_write(self, client, request)
        if request.verb == Verb.PUT and request.once in self._waiting:
            del self._waiting[request.once]
            client.answer(Response(request.number, Standing.DONE, b""))

    service.Service._on_write = write  # type: ignore[method-assign]


def hang() -> None:
    """It never comes up."""
    while True:
        time.sleep(1)


BROKEN: Final = {
    "late-disk": write_late,
    "local-reads": read_locally,
    "early-answers": acknowledge_early,
    "hangs": hang,
}


if __name__ == "__main__":
    site_path, own = sys.argv[1:]
    die_with_parent()
    if broken := os.environ["NEMESIS_BROKEN"]:
        BROKEN[broken]()
    node.TRAILING_ENTRIES = TRAILING_ENTRIES  # type: ignore[misc]
    slow_down(Path(site_path).parent / f"slow-{own}")
    node.main([site_path, own])
