"""``swarm bench storage``: commits of several sizes, ours and other stores in turn; loading; what a log takes."""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count, islice
from pathlib import Path
from typing import Final

import numpy as np

from consensus.storage_file import sync_directory
from profiling.bench.result import Ratio, Result, paired_ratio, variation
from profiling.bench.storage.stores import Entries, Store, bytes_on_disk, stores
from protocol.codes import EntryKind
from protocol.errors import RunFailure
from protocol.messages import Entry


@dataclass(frozen=True, slots=True)
class Plan:
    """``commits`` of each side in a block; ``loads`` of ``entries`` each."""

    blocks: int
    commits: int
    warm_up: int
    entries: int
    loads: int


FULL: Final = Plan(blocks=20, commits=200, warm_up=600, entries=100_000, loads=10)
QUICK: Final = Plan(blocks=10, commits=50, warm_up=100, entries=100_000, loads=3)
GROUPS: Final = (1, 16, 64, 256)
"""Entries in a commit."""
LOAD_GROUP: Final = 64
PAYLOAD_BYTES: Final = 200


@dataclass(slots=True)
class _Side:
    name: str
    store: Store
    indices: count[int] = field(default_factory=lambda: count(1))
    blocks_s: list[list[float]] = field(default_factory=list)

    def quantile(self, share: float) -> tuple[float, list[float]]:
        """Of all commits, in microseconds, and of each block."""
        pooled = np.concatenate(self.blocks_s)
        return float(np.quantile(pooled, share)) * 1e6, [float(np.quantile(block, share)) for block in self.blocks_s]


def measure(plan: Plan, progress: Callable[[str], None]) -> Result:
    """Run the plan in the current directory, since others are often in memory. Raises ``UsageError`` without LMDB,
    ``RunFailure`` when a store does not give back what went in."""
    result = Result("storage")
    for group in GROUPS:
        progress(f"commits of {group}")
        _measure_commits(result, plan, group)
    progress("loading")
    _measure_loads(result, plan)
    return result


def _measure_commits(result: Result, plan: Plan, group: int) -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-storage-") as scratch:
        sides = [_Side(name, make(Path(scratch) / str(number))) for number, (name, make) in enumerate(stores().items())]
        for side in sides:
            _commits(side, group, plan.warm_up)
        for _ in range(plan.blocks):
            for side in sides:
                side.blocks_s.append(_commits(side, group, plan.commits))
        for side in sides:
            side.store.close()
    own, *others = sides
    result.variations.append(variation(own.quantile(0.5)[1]))
    for share, name in ((0.5, "p50"), (0.99, "p99")):
        ours, our_blocks = own.quantile(share)
        for other in others:
            theirs, their_blocks = other.quantile(share)
            ratio = paired_ratio(their_blocks, our_blocks)
            result.row(f"commit of {group}, {name}", ours, "us", other.name, theirs, ratio)


def _commits(side: _Side, group: int, times: int) -> list[float]:
    """Seconds of each commit."""
    took = []
    for entries in [_entries(side.indices, group) for _ in range(times)]:
        began = time.perf_counter()
        side.store.commit(entries)
        took.append(time.perf_counter() - began)
    return took


def _entries(indices: count[int], group: int) -> Entries:
    return tuple(Entry(1, index, EntryKind.FRAME, os.urandom(PAYLOAD_BYTES)) for index in islice(indices, group))


def _measure_loads(result: Result, plan: Plan) -> None:
    with tempfile.TemporaryDirectory(dir=Path.cwd(), prefix=".bench-storage-") as scratch:
        places = {name: Path(scratch) / str(number) for number, name in enumerate(stores())}
        for name, place in places.items():
            _fill(name, place, plan.entries)
        took = {name: list[float]() for name in places}
        for _ in range(plan.loads):
            for name, place in places.items():
                took[name].append(_load(name, place, plan.entries))
        sizes = {name: bytes_on_disk(place) / (plan.entries * PAYLOAD_BYTES) for name, place in places.items()}
    own, *others = places
    result.variations.append(variation(took[own]))
    for other in others:
        figures = [float(np.median(took[name])) * 1e3 for name in (own, other)]
        case = f"load of {plan.entries:,} entries"
        result.row(case, figures[0], "ms", other, figures[1], paired_ratio(took[other], took[own]))
        exact = sizes[other] / sizes[own]
        ratio = Ratio(exact, exact, exact, 1)
        result.row("bytes on the disk for a byte of payload", sizes[own], "bytes", other, sizes[other], ratio)


def _fill(name: str, place: Path, entries: int) -> None:
    indices = count(1)
    store = stores()[name](place)
    for start in range(0, entries, LOAD_GROUP):
        store.commit(_entries(indices, min(LOAD_GROUP, entries - start)))
    store.close()
    sync_directory(place)


def _load(name: str, place: Path, entries: int) -> float:
    """Seconds to open the store and read everything, checked, from the system's cache."""
    gc.collect()
    began = time.perf_counter()
    store = stores()[name](place)
    found = store.load()
    took = time.perf_counter() - began
    store.close()
    if [entry.index for entry in found] != list(range(1, entries + 1)):
        raise RunFailure(f"{name} does not give back what was written")
    return took
