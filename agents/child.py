"""One supervised agent process: start it, ask it, read its logs, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agents.logs import parse_line

LINE_BYTES_MAX: Final = 1 << 22
"""A full status of a long run is one line."""
TERMINATE_S: Final = 2.0
"""How long an agent may take to close before it is killed."""


class Child:
    """``on_line(agent id, text, fields or None)`` receives every line of the agent's standard error."""

    def __init__(
        self, agent_id: str, arguments: Sequence[str], on_line: Callable[[str, str, dict[str, Any] | None], None]
    ) -> None:
        self.agent_id = agent_id
        self.fatal: dict[str, Any] | None = None
        """The agent's own last words, if it had any."""
        self._arguments = list(arguments)
        self._on_line = on_line
        self._process: asyncio.subprocess.Process | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._nonces = itertools.count(1)

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    @property
    def returncode(self) -> int | None:
        return self._process.returncode if self._process is not None else None

    async def start(self) -> None:
        # A session of its own: Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order.
        self.fatal = None
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "agents.cli",
            *self._arguments,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=LINE_BYTES_MAX,
            start_new_session=True,
            env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            asyncio.create_task(self._read_answers(self._process.stdout)),
            asyncio.create_task(self._read_logs(self._process.stderr)),
        ]

    async def wait(self) -> int:
        assert self._process is not None
        code = await self._process.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        for answer in self._answers.values():
            if not answer.done():
                answer.cancel()
        self._answers.clear()
        return code

    async def status(self, detail: bool = False, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """Ask the agent's own event loop; None if it is gone or does not answer in time."""
        process = self._process
        if process is None or process.returncode is not None or process.stdin is None:
            return None
        nonce = next(self._nonces)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[nonce] = future
        try:
            process.stdin.write(json.dumps({"nonce": nonce, "detail": detail}).encode() + b"\n")
            return await asyncio.wait_for(future, timeout_s)
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None
        finally:
            self._answers.pop(nonce, None)

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def stop(self) -> None:
        """Ask it to close; kill it if it does not."""
        if self._process is None or self._process.returncode is not None:
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), TERMINATE_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    async def _read_answers(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            answer = parse_answer(line)
            future = self._answers.get(answer["nonce"]) if answer is not None else None
            if answer is not None and future is not None and not future.done():
                future.set_result(answer["status"])

    async def _read_logs(self, stream: asyncio.StreamReader) -> None:
        while line := await stream.readline():
            text = line.decode(errors="replace").rstrip("\n")
            fields = parse_line(text)
            if fields is not None and fields["event"] == "fatal":
                self.fatal = fields
            self._on_line(self.agent_id, text, fields)


def parse_answer(line: bytes) -> dict[str, Any] | None:
    """An answer line, or None for anything else that a library may print on standard output."""
    try:
        answer = json.loads(line)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) and {"nonce", "status"} <= answer.keys() else None


def append_line(path: Path, text: str) -> None:
    """Keep an agent's log beside its traces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(text + "\n")
