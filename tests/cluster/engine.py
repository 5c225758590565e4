"""A Compose project under test: what docker and docker-compose are asked to do, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]


def say(text: str) -> None:
    """Progress; building takes minutes."""
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


def why_unavailable() -> str | None:
    """Why containers cannot be tested on this host, or None if they can."""
    for program in ("docker", "docker-compose"):
        if shutil.which(program) is None:
            return f"{program} is not installed"
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return "`docker info` does not come back"
    return None if done.returncode == 0 else "no Docker engine answers `docker info`"


def run(*command: str, env: Mapping[str, str] | None = None, timeout_s: float = 120, cwd: Path = ROOT) -> str:
    """Standard output of a command that must succeed. Raises ``AssertionError`` with what it said."""
    done = subprocess.run(
        command,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    said = f"{done.stdout}\n{done.stderr}"[-4000:]
    assert done.returncode == 0, f"{' '.join(command)} exited with {done.returncode}:\n{said}"
    return done.stdout


@dataclass
class Project:
    """One Compose project; ``down`` removes its containers, networks and volumes."""

    name: str
    env: dict[str, str]
    directory: Path = ROOT
    containers: dict[str, str] = field(default_factory=dict)
    """Container id by service, of those that ``up`` started."""

    def compose(self, *arguments: str, timeout_s: float = 120) -> str:
        return run("docker-compose", "-p", self.name, *arguments, env=self.env, timeout_s=timeout_s, cwd=self.directory)

    def up(self, services: list[str]) -> None:
        self.compose("up", "-d", "--no-build", timeout_s=180)
        self.containers = {service: self.compose("ps", "-q", service).strip() for service in services}

    def down(self) -> None:
        self.compose("down", "-v", "--remove-orphans", "--timeout", "5", timeout_s=180)

    def inspect(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(run("docker", "inspect", self.containers[service]))[0]
        return found

    def execute(self, service: str, *command: str, timeout_s: float = 30) -> str:
        return run("docker", "exec", self.containers[service], *command, timeout_s=timeout_s)

    def health(self, service: str) -> dict[str, Any] | None:
        """What the agent says of itself, asked inside its container; None while it does not answer."""
        command = ["docker", "exec", self.containers[service], "swarm", "health", "--id", service]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        try:
            status = json.loads(done.stdout)
        except ValueError:
            return None
        return status if isinstance(status, dict) else None

    def events(self, service: str, name: str) -> list[dict[str, Any]]:
        """The log lines of one agent that tell of the event ``name``."""
        command = ["docker", "logs", self.containers[service]]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60, check=True
        )
        return [json.loads(line) for line in done.stdout.splitlines() if f'"event": "{name}"' in line]

    def logs(self, lines: int = 15) -> str:
        return self.compose("logs", "--no-color", f"--tail={lines}")

    def until(self, what: str, reached: Callable[[], bool], timeout_s: float, pause_s: float = 1) -> None:
        """Wait until ``reached``; past the deadline fail with the agents' last lines."""
        deadline = time.monotonic() + timeout_s
        while not reached():
            assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}\n{self.logs()}"
            time.sleep(pause_s)
