"""Runs the Python peers for ``client.py``: JSON lines on standard input and output, arrays in files.

    {"do": "put", "name": "rows", "file": "rows.npy"}
    {"do": "run", "peer": "aeon", "operation": "batch", "repeats": 3, "memory": false, "arrays": {"rows": "rows"},
     "values": {"k": 8}}
    {"do": "versions"}

A run answers with the seconds of each repeat, the setting that was the fastest, the peak of memory that the repeats
added, and a file of little-endian float64 with its shape. Whatever a library prints goes to standard error.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import json
import math
import os
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np

from profiling.bench.peers import libraries, searches
from profiling.bench.peers.libraries import Array, Task, Way

PACKAGES: Final = ("aeon", "dtaidistance", "fastdtw", "stumpy", "tslearn", "wildboar")
OPERATIONS: Final[dict[tuple[str, str], Callable[..., Task]]] = {
    ("aeon", "batch"): libraries.aeon_batch,
    ("aeon", "cases"): libraries.aeon_cases,
    ("aeon", "knn"): libraries.aeon_knn,
    ("aeon", "pair"): libraries.aeon_pair,
    ("aeon", "pairwise"): libraries.aeon_pairwise,
    ("aeon", "path"): libraries.aeon_path,
    ("dtaidistance", "batch"): libraries.dtaidistance_batch,
    ("dtaidistance", "cases"): libraries.dtaidistance_cases,
    ("dtaidistance", "knn"): libraries.dtaidistance_knn,
    ("dtaidistance", "pair"): libraries.dtaidistance_pair,
    ("dtaidistance", "pairwise"): libraries.dtaidistance_pairwise,
    ("dtaidistance", "path"): libraries.dtaidistance_path,
    ("dtaidistance", "search"): searches.dtaidistance_search,
    ("fastdtw", "fastdtw"): libraries.fastdtw_fastdtw,
    ("stumpy", "mass"): searches.stumpy_mass,
    ("tslearn", "batch"): libraries.tslearn_batch,
    ("tslearn", "cases"): libraries.tslearn_cases,
    ("tslearn", "knn"): libraries.tslearn_knn,
    ("tslearn", "pair"): libraries.tslearn_pair,
    ("tslearn", "pairwise"): libraries.tslearn_pairwise,
    ("wildboar", "batch"): libraries.wildboar_batch,
    ("wildboar", "cases"): libraries.wildboar_cases,
    ("wildboar", "knn"): libraries.wildboar_knn,
    ("wildboar", "pair"): libraries.wildboar_pair,
    ("wildboar", "pairwise"): libraries.wildboar_pairwise,
    ("wildboar", "search"): searches.wildboar_search,
}
ROUNDS: Final = 3
HOPELESS: Final = 1.5
"""A way this many times slower than the best is not measured again."""
AGREEMENT: Final = 1e-7
"""Relative; running sums and different orders of adding stay far below."""
PREPARED_MAX: Final = 8
M_TRIM_THRESHOLD: Final = -1
M_MMAP_THRESHOLD: Final = -3
MAPPED_BYTES_MIN: Final = 1 << 16
"""See mallopt(3)."""
CLEAR_REFS: Final = Path("/proc/self/clear_refs")
RESET_PEAK: Final = "5"
"""See proc(5): sets the peak of resident memory back to what is resident now."""


class Host:
    """Holds the arrays, and the fastest way per peer, operation and input shapes."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        self._arrays: dict[str, Array] = {}
        self._fastest: dict[str, str] = {}
        self._prepared: dict[str, Task] = {}
        self._results = 0

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request; see the module's text."""
        if request["do"] == "put":
            self._arrays[request["name"]] = np.load(self._scratch / request["file"])
            self._prepared.clear()
            return {}
        if request["do"] == "versions":
            return {name: importlib.metadata.version(name) for name in PACKAGES}
        return self._run(request)

    def _run(self, request: dict[str, Any]) -> dict[str, Any]:
        task = self._task(request)
        setting = self._setting(request, task)
        way = task.ways[setting]
        peak = PeakMemory() if request["memory"] else None
        seconds, found = [], None
        for _ in range(request["repeats"]):
            began = time.perf_counter()
            found = way()
            seconds.append(time.perf_counter() - began)
        memory = peak.bytes_added() if peak is not None else None
        result = np.ascontiguousarray(task.finish(found), "<f8")
        self._results += 1
        file = self._scratch / f"result-{self._results}.f64"
        result.tofile(file)
        return {
            "seconds": seconds,
            "setting": setting,
            "memory_bytes_peak": memory,
            "file": file.name,
            "shape": result.shape,
        }

    def _task(self, request: dict[str, Any]) -> Task:
        """The last few are kept: interleaved runs ask for the same ones again, and stacking a library takes long."""
        key = json.dumps(
            {name: value for name, value in request.items() if name not in ("repeats", "memory")}, sort_keys=True
        )
        if key not in self._prepared:
            if len(self._prepared) == PREPARED_MAX:
                self._prepared.clear()
            arrays = {parameter: self._arrays[name] for parameter, name in request["arrays"].items()}
            self._prepared[key] = OPERATIONS[request["peer"], request["operation"]](**arrays, **request["values"])
        return self._prepared[key]

    def _setting(self, request: dict[str, Any], task: Task) -> str:
        """The fastest way, found the first time that such inputs come; this is the untimed warm-up as well."""
        arrays = [self._arrays[name] for name in request["arrays"].values()]
        shapes = [(array.shape, str(array.dtype)) for array in arrays]
        key = str((request["peer"], request["operation"], shapes, request["values"]))
        if key not in self._fastest:
            check_agreement({name: task.finish(way()) for name, way in task.ways.items()})
            self._fastest[key] = fastest(task.ways)
        return self._fastest[key]


def check_agreement(answers: dict[str, Array]) -> None:
    """``ValueError`` unless all ways say the same: a wrong one must not win. Equal distances may come in any order, so
    of ``(2, k)`` indices and distances only the latter count."""
    found = {name: answer[1] if answer.ndim == 2 and len(answer) == 2 else answer for name, answer in answers.items()}
    first = next(iter(found.values()))
    wrong = [name for name, answer in found.items() if not np.allclose(answer, first, rtol=AGREEMENT, atol=0)]
    if wrong:
        raise ValueError(f"these settings give another answer: {', '.join(wrong)}")


def fastest(ways: dict[str, Way]) -> str:
    """The name of the way that takes the least time; all of them are warm."""
    best = dict.fromkeys(ways, math.inf)
    for _ in range(ROUNDS if len(ways) > 1 else 0):
        near = [name for name in ways if best[name] == math.inf or best[name] <= HOPELESS * min(best.values())]
        for name in near:
            began = time.perf_counter()
            ways[name]()
            best[name] = min(best[name], time.perf_counter() - began)
    return min(best, key=lambda name: best[name])


class PeakMemory:
    """Peak of resident memory since it was made, above what was resident then; Linux with glibc only.

    From then on the process gives freed memory back at once, or calls would live on what earlier ones left. That slows
    them down: not for processes that are still to be timed.
    """

    def __init__(self) -> None:
        try:
            allocator = ctypes.CDLL(None)
            allocator.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES_MIN)
            allocator.mallopt(M_TRIM_THRESHOLD, 0)
            allocator.malloc_trim(0)
            CLEAR_REFS.write_text(RESET_PEAK)
            self._before: int | None = _status_bytes("VmRSS")
        except (OSError, AttributeError):
            self._before = None

    def bytes_added(self) -> int | None:
        """None where the system does not tell."""
        return None if self._before is None else max(0, _status_bytes("VmHWM") - self._before)


def _status_bytes(name: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    """Answer until standard input ends."""
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    host = Host(Path(sys.argv[1]))
    for line in sys.stdin:
        try:
            answer = host.answer(json.loads(line))
        except ImportError as error:
            traceback.print_exc()
            answer = {"missing": str(error)}
        except Exception as error:
            traceback.print_exc()
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")


if __name__ == "__main__":
    main()
