"""How much memory a call takes beyond its arguments, ours and the peers', as the system counts it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from profiling.bench.kernels.case import Case, plain_ratio
from profiling.bench.peers.client import Peers
from profiling.bench.peers.host import PeakMemory
from profiling.bench.result import Result

MEGABYTE = 1e6


def measure(
    result: Result, peers: Peers, versions: Mapping[str, str], cases: Iterator[Case], progress: Callable[[str], None]
) -> None:
    """A row for each peer of each case whose process the system tells about."""
    for case in cases:
        progress(f"memory: {case.name}")
        ours = added_by(case.call)
        for each in case.against:
            theirs = peers.run(each.peer, each.operation, memory=True, **each.parameters).memory_bytes_peak
            if ours is None or theirs is None or each.items != case.items:
                continue
            name = f"{each.peer} {versions[each.peer]}"
            ratio = plain_ratio(max(theirs, 4096), max(ours, 4096))
            result.row(f"memory: {case.name}", ours / MEGABYTE, "MB", name, theirs / MEGABYTE, ratio)


def added_by(call: Callable[[], Any]) -> int | None:
    """Peak of resident bytes that a second call adds, None where the system does not tell."""
    call()
    peak = PeakMemory()
    call()
    return peak.bytes_added()
