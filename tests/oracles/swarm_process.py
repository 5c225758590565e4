"""Drives real swarms for tests: a cluster of its own in a directory of its own, on ports that were free."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

SWARM = [sys.executable, "-m", "agents.cli"]
ROOT = Path(__file__).resolve().parents[2]
PORTS = 5


def free_base_port() -> int:
    """The first of five consecutive UDP ports that are free on loopback right now."""
    for base in range(20_000 + os.getpid() % 20_000, 60_000, PORTS):
        with ExitStack() as stack:
            try:
                for port in range(base, base + PORTS):
                    bound = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
                    bound.bind(("127.0.0.1", port))
            except OSError:
                continue
            return base
    raise AssertionError("no five free ports in a row")


class SwarmDirectory:
    """A fresh cluster in ``path`` that trades a few generated symbols, so that runs are short."""

    def __init__(self, path: Path, data: str = "synthetic") -> None:
        self.path = path
        self.base_port = free_base_port()
        self.config = path / "cluster" / "cluster.toml"
        self.runs = path / "runs"
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = self.run("init", "--dir", "cluster", "--base-port", str(self.base_port), "--data", data)
        assert done.returncode == 0, done.stderr
        text = self.config.read_text().replace("critical_notional = 15000.0", "critical_notional = 6000.0")
        self.config.write_text(text.replace("[data]", "[data]\nsynthetic_symbols = 12\nsynthetic_bars = 1200"))

    def run(self, *arguments: str, timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*SWARM, *arguments],
            cwd=self.path,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )

    def up(self, *arguments: str) -> subprocess.Popen[str]:
        """``swarm up`` in the background, with the report on standard output."""
        return subprocess.Popen(
            [*SWARM, "up", "--json", "--log-level", "warning", *arguments],
            cwd=self.path,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def status(self) -> dict[str, dict[str, Any]]:
        """Status of every agent, by id, asked over the wire."""
        done = self.run("status", "--json", "--timeout", "5")
        agents: dict[str, dict[str, Any]] = json.loads(done.stdout)["agents"] if done.stdout else {}
        return agents

    def await_cycle(
        self, cycle: int, process: subprocess.Popen[str], timeout_s: float = 60
    ) -> dict[str, dict[str, Any]]:
        """The agents' status once the trader has begun ``cycle``."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            assert process.poll() is None, "".join(process.communicate())
            agents = self.status()
            if agents.get("trader-1", {}).get("cycle", 0) >= cycle:
                return agents
        raise AssertionError(f"cycle {cycle} was not reached within {timeout_s} s")

    def processes(self) -> list[int]:
        """Processes that were started for this cluster and still run."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes()
                    zombie = b") Z " in (entry / "stat").read_bytes()
                except OSError:
                    continue
                if str(self.path).encode() in command and not zombie:
                    found.append(int(entry.name))
        return found

    def await_process(self, agent_id: str, timeout_s: float = 60) -> int:
        """The agent's process, as soon as there is one, long before it answers anybody."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for pid in self.processes():
                with suppress(OSError):
                    if f"--id {agent_id} " in Path(f"/proc/{pid}/cmdline").read_text():
                        return pid
            time.sleep(0.02)
        raise AssertionError(f"{agent_id} was not started within {timeout_s} s")

    def log_of(self, agent_id: str) -> Path:
        """The log that a running agent writes; ``runs/latest`` is the last run that has ended."""
        words = Path(f"/proc/{self.await_process(agent_id)}/cmdline").read_text().replace("\0", " ").split()
        return self.path / words[words.index("--run-dir") + 1] / agent_id / "log.jsonl"

    def await_line(self, log: Path, *words: str, count: int = 1, timeout_s: float = 30) -> None:
        """Wait until so many lines of a log hold all of these words."""
        deadline = time.monotonic() + timeout_s
        while sum(all(word in line for word in words) for line in log.read_text().splitlines()) < count:
            assert time.monotonic() < deadline, f"{log} has no {count} lines with {words}"
            time.sleep(0.05)

    def kill_all(self) -> None:
        """After a failed test: nothing of this cluster may stay behind."""
        for pid in self.processes():
            os.kill(pid, signal.SIGKILL)


def finish(process: subprocess.Popen[str], timeout_s: float = 120) -> dict[str, Any]:
    """Wait for a run to end well and return its report."""
    out, err = process.communicate(timeout=timeout_s)
    assert process.returncode == 0, f"exit {process.returncode}\n{err[-4000:]}\n{out[-2000:]}"
    report: dict[str, Any] = json.loads(out)
    return report


def assert_nothing_lost(report: dict[str, Any]) -> None:
    """The promises of the house: nothing lost, nothing doubled, one history."""
    orders = report["orders"]
    assert (orders["lost"], orders["duplicate"], orders["unknown"]) == (0, 0, 0)
    ended = sum(orders[name] for name in ("filled", "rejected", "expired", "canceled", "lapsed"))
    assert ended == orders["opened"], orders
    assert report["decisions"]["pending"] == 0
    assert report["consistency"]["decision_logs_identical"]
