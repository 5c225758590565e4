"""The peers' clusters: etcd and PySyncObj, started beside our lane and asked in turn with it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from profiling.bench.lane.ports import lasting_ports
from profiling.bench.peers.client import ENVIRONMENT, MEND
from profiling.bench.transport.site import HOST
from protocol.errors import RunFailure, UsageError

HERE: Final = Path(__file__).parent
START_S: Final = 20.0
CLOCK_TICKS: Final = os.sysconf("SC_CLK_TCK")


def peers_python() -> str:
    """The interpreter with the peers. Raises ``UsageError``."""
    python = ENVIRONMENT / "bin" / "python"
    if not python.exists():
        raise UsageError(f"the peers are not installed: {MEND}")
    return str(python)


def etcd_binary() -> str:
    """On the path, or where `make setup-bench` puts it. Raises ``UsageError``."""
    installed = ENVIRONMENT / "etcd" / "usr" / "bin" / "etcd"
    found = shutil.which("etcd") or (str(installed) if installed.exists() else None)
    if found is None:
        raise UsageError(f"etcd is not installed: {MEND} (on Debian), or put an etcd 3.4 or later on the PATH")
    return found


def etcd_version() -> str:
    """Of the etcd that is measured."""
    done = subprocess.run([etcd_binary(), "--version"], capture_output=True, text=True, check=True)
    return done.stdout.split("\n")[0].removeprefix("etcd Version: ")


class Etcd:
    """A cluster of etcd with its own defaults: durable, without TLS, on loopback."""

    def __init__(self, directory: Path, nodes: int) -> None:
        ports = lasting_ports(2 * nodes)
        self._peer_ports, self.client_ports = ports[:nodes], ports[nodes:]
        self.leader_port = self.client_ports[0]
        members = ",".join(f"n{index}=http://{HOST}:{port}" for index, port in enumerate(self._peer_ports))
        self.processes = [self._start(directory, index, members) for index in range(nodes)]
        try:
            self.leader_port = self._find_leader()
        except BaseException:
            self.close()
            raise

    def _start(self, directory: Path, index: int, members: str) -> subprocess.Popen[bytes]:
        peer, client = (f"http://{HOST}:{ports[index]}" for ports in (self._peer_ports, self.client_ports))
        command = [
            etcd_binary(), "--name", f"n{index}", "--data-dir", str(directory / f"etcd-{index}"),
            "--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer,
            "--listen-client-urls", client, "--advertise-client-urls", client,
            "--initial-cluster", members, "--initial-cluster-state", "new", "--log-level", "error",
        ]  # fmt: skip
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def _find_leader(self) -> int:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            for port in self.client_ports:
                status = self._status(port)
                if status.get("leader") and status["leader"] == status["header"]["member_id"]:
                    return port
            time.sleep(0.1)
        raise RunFailure(f"etcd had no leader within {START_S:g} s; run `{etcd_binary()}` by hand to see why")

    def _status(self, port: int) -> dict[str, Any]:
        url = f"http://{HOST}:{port}/v3/maintenance/status"
        try:
            with urllib.request.urlopen(url, b"{}", timeout=2) as answer:
                status: dict[str, Any] = json.load(answer)
                return status
        except (urllib.error.URLError, OSError, ValueError):
            return {}

    def load(self, how: str, in_flight: int, count: int, size: int, rate: int = 0) -> dict[str, Any]:
        """``etcd_load`` against the leader. Adds the processor time of all nodes, in nanoseconds."""
        numbers = map(str, (self.leader_port, how, in_flight, count, size, rate))
        before = cpu_ns(self.processes)
        done = subprocess.run(
            [peers_python(), str(HERE / "etcd_load.py"), *numbers], capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RunFailure(f"the load on etcd failed: {done.stderr.strip() or done.returncode}")
        found: dict[str, Any] = json.loads(done.stdout)
        return {**found, "cpu_ns": cpu_ns(self.processes) - before}

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()

    def __enter__(self) -> Etcd:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class PySyncObj:
    """A cluster of PySyncObj, in memory: nothing it acknowledges is durable."""

    def __init__(self, nodes: int, batches: bool) -> None:
        addresses = [f"{HOST}:{port}" for port in lasting_ports(nodes)]
        self.processes = [
            subprocess.Popen(
                [peers_python(), str(HERE / "pysyncobj_load.py"), ",".join(ordered), str(int(batches))],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            )
            for ordered in (addresses[own:] + addresses[:own] for own in range(nodes))
        ]  # fmt: skip
        for process in self.processes:
            if self._line(process) != "ready":
                self.close()
                raise RunFailure("PySyncObj did not start; its last words stand above")

    def load(self, in_flight: int, count: int, size: int) -> dict[str, Any]:
        """By the leader itself: the library has no client."""
        question = json.dumps({"in_flight": in_flight, "count": count, "size": size}) + "\n"
        before = cpu_ns(self.processes)
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(question)
            process.stdin.flush()
            found: dict[str, Any] = json.loads(self._line(process) or '{"leader": false}')
            if "seconds" in found:
                return {**found, "cpu_ns": cpu_ns(self.processes) - before}
        raise RunFailure("no node of PySyncObj led")

    def _line(self, process: subprocess.Popen[str]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().strip()

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> PySyncObj:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def cpu_ns(processes: list[Any]) -> int:
    """Processor time that these have used, as coarse as the kernel's clock tick."""
    ticks = 0
    for process in processes:
        fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks * 10**9 // CLOCK_TICKS
