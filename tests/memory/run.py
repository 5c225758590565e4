"""Starts the processes, disturbs them, and looks at their memory all the while."""

from __future__ import annotations

import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.memory.cluster import renew, write_cluster
from tests.memory.slope import theil_sen
from tests.oracles.clusters import Cluster

WARM_UP_S: Final = 60.0
WARM_UP_SHARE: Final = 0.4
"""Of a run that is too short for a whole minute."""
SAMPLE_S: Final = 0.5
SAMPLES_SHARE_MIN: Final = 0.5
DISTURB_S: Final = 4.0
"""Certificates are reloaded and a connection is ended in turn, so often; keys are renewed by the number of packets."""
SLOPE_MIB_PER_HOUR_MAX: Final = 60.0
"""Nine MiB in the nine minutes that are looked at, while gigabytes go through; queues that fill and empty alone make a
process swing by twenty."""
ALLOCATOR: Final = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""glibc gives large pieces back when they are freed. It would otherwise learn not to, and its high-water mark would
creep up over a heap that does not grow."""
SHORT_S: Final = 300.0
"""Anything shorter tries the parts and judges no slope."""
MIB: Final = 1024 * 1024
HANG_S: Final = 30.0
ROOT: Final = Path(__file__).parents[2]


@dataclass
class Outcome:
    """What came of it. Samples are (seconds, bytes) by agent, warm-up included."""

    transport: str
    seconds: float
    samples: dict[str, list[tuple[float, int]]] = field(default_factory=dict)
    reports: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: str | None = None

    @property
    def warm_up_s(self) -> float:
        return min(WARM_UP_S, WARM_UP_SHARE * self.seconds)

    @property
    def warm_samples(self) -> dict[str, int]:
        """How many samples tell something, by agent."""
        return {name: sum(at >= self.warm_up_s for at, _ in samples) for name, samples in self.samples.items()}

    @property
    def slopes(self) -> dict[str, float]:
        """MiB an hour after the warm-up, by agent."""
        found = {}
        for agent_id, samples in self.samples.items():
            warm = [(at / 3600, size / MIB) for at, size in samples if at >= self.warm_up_s]
            found[agent_id] = theil_sen(*zip(*warm, strict=True))
        return found

    def total(self, what: str) -> int:
        return sum(int(report.get(what, 0)) for report in self.reports.values())

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        counts = ("delivered", "reloads", "reconnects", "connects", "key_updates", "out_of_order")
        return {
            "transport": self.transport,
            "seconds": self.seconds,
            "warm_up_s": self.warm_up_s,
            "slope_mib_per_hour": {name: round(slope, 2) for name, slope in self.slopes.items()},
            "slope_mib_per_hour_max": SLOPE_MIB_PER_HOUR_MAX,
            "resident_mib": {
                name: {"warm": round(self._at(samples, self.warm_up_s), 1), "end": round(samples[-1][1] / MIB, 1)}
                for name, samples in self.samples.items()
            },
            **{what: self.total(what) for what in counts},
            "refused": dict(sum((Counter(report.get("refused", {})) for report in self.reports.values()), Counter())),
            "failure": self.failure,
        }

    @staticmethod
    def _at(samples: list[tuple[float, int]], at_s: float) -> float:
        return next(size for at, size in samples if at >= at_s) / MIB


def run(seconds: float, transport: str) -> Outcome:
    """Two agents at full load for so long; what they have done, and whether something was wrong."""
    outcome = Outcome(transport, seconds)
    with tempfile.TemporaryDirectory() as folder:
        cluster = write_cluster(Path(folder))
        names = [agent.id for agent in cluster.roster.agents]
        processes = {name: _start(Path(folder), name, transport) for name in names}
        try:
            _watch(outcome, cluster, processes)
            if min(outcome.warm_samples.values()) < SAMPLES_SHARE_MIN * (seconds - outcome.warm_up_s) / SAMPLE_S:
                raise RuntimeError("the machine had other work for most of the time: nothing can be said")
            outcome.reports = {name: _ended(process) for name, process in processes.items()}
        finally:
            for process in processes.values():
                process.kill()
                process.wait()
    outcome.failure = outcome.failure or _wrong(outcome)
    return outcome


def _start(folder: Path, agent_id: str, transport: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.memory.node", str(folder), agent_id, transport]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | ALLOCATOR, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    process.stdout.readline()  # ready, or the end of it
    return process


def _watch(outcome: Outcome, cluster: Cluster, processes: dict[str, subprocess.Popen[str]]) -> None:
    began = time.monotonic()
    disturbances = itertools.cycle(["reload", "reconnect"])
    every_s = min(DISTURB_S, outcome.seconds / 6)
    next_at = every_s
    while (at := time.monotonic() - began) < outcome.seconds:
        for name, process in processes.items():
            if process.poll() is not None:
                raise RuntimeError(f"{name} has ended with {process.returncode}")
            outcome.samples.setdefault(name, []).append((at, _resident_bytes(process.pid)))
        if at >= next_at:
            next_at += every_s
            _disturb(next(disturbances), cluster, processes)
        time.sleep(SAMPLE_S)


def _disturb(command: str, cluster: Cluster, processes: dict[str, subprocess.Popen[str]]) -> None:
    if command == "reload":
        renew(cluster)
    for process in processes.values() if command == "reload" else [next(iter(processes.values()))]:
        _tell(process, command)


def _tell(process: subprocess.Popen[str], command: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{command}\n")
    process.stdin.flush()


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    _tell(process, "stop")
    output, _ = process.communicate(timeout=HANG_S)
    report: dict[str, Any] = json.loads(output)
    return report


def _wrong(outcome: Outcome) -> str | None:
    if outcome.total("out_of_order"):
        return f"{outcome.total('out_of_order')} messages out of order"
    short = outcome.seconds < SHORT_S
    for what in ("delivered", "reloads", "reconnects", *(() if short else ("key_updates",))):
        if not outcome.total(what):
            return f"no {what}: nothing was tried"
    rising = {name: slope for name, slope in outcome.slopes.items() if slope > SLOPE_MIB_PER_HOUR_MAX}
    return f"memory rises: {rising} MiB an hour" if rising and not short else None


def _resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()
