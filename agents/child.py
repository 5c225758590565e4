"""One supervised agent process: start it, ask it, read its logs, stop it."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from agents.logs import parse_line
from agents.nursery import Born

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
        self._born: Born | None = None
        self._ended = asyncio.Event()
        self._asking: asyncio.WriteTransport | None = None
        self._readers: list[asyncio.Task[None]] = []
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._nonces = itertools.count(1)

    @property
    def pid(self) -> int | None:
        return self._born.process.pid if self._born is not None else None

    @property
    def returncode(self) -> int | None:
        """The exit code, minus the signal's number if one ended it, None while it lives."""
        if self._born is None or not self._ended.is_set():
            return None
        return self._born.process.exitcode

    async def start(self) -> None:
        self.fatal = None
        self._ended.clear()
        loop = asyncio.get_running_loop()
        self._born = await loop.run_in_executor(None, Born, self.agent_id, self._arguments)
        loop.add_reader(self._born.process.sentinel, self._on_end, self._born)
        asking, answers, errors = self._born.take_streams()
        self._asking, _ = await loop.connect_write_pipe(asyncio.BaseProtocol, os.fdopen(asking, "wb", 0))
        self._readers = [
            asyncio.create_task(self._read_answers(answers)),
            asyncio.create_task(self._read_logs(errors)),
        ]

    def _on_end(self, born: Born) -> None:
        asyncio.get_running_loop().remove_reader(born.process.sentinel)
        born.process.join()
        self._ended.set()

    async def wait(self) -> int:
        assert self._born is not None
        await self._ended.wait()
        await asyncio.gather(*self._readers, return_exceptions=True)
        if self._asking is not None:
            self._asking.close()
        for answer in self._answers.values():
            if not answer.done():
                answer.cancel()
        self._answers.clear()
        code = self._born.process.exitcode
        assert code is not None
        return code

    async def status(self, detail: bool = False, timeout_s: float = 2.0) -> dict[str, Any] | None:
        """Ask the agent's own event loop; None if it is gone or does not answer in time."""
        if self._born is None or self._asking is None or self._asking.is_closing() or self._ended.is_set():
            return None  # a pipe that broke closes itself, perhaps before the end of its process is seen
        nonce = next(self._nonces)
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._answers[nonce] = future
        try:
            self._asking.write(json.dumps({"nonce": nonce, "detail": detail}).encode() + b"\n")
            return await asyncio.wait_for(future, timeout_s)
        except (TimeoutError, ConnectionError, asyncio.CancelledError):
            if (task := asyncio.current_task()) is not None and task.cancelling():
                raise
            return None
        finally:
            self._answers.pop(nonce, None)

    def signal(self, number: signal.Signals) -> None:
        pid = self.pid
        if pid is not None and not self._ended.is_set():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)

    async def stop(self) -> None:
        """Ask it to close; kill it if it does not."""
        if self._born is None or self._ended.is_set():
            return
        self.signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.wait(), TERMINATE_S)
        except TimeoutError:
            self.signal(signal.SIGKILL)
            await self.wait()

    async def _read_answers(self, descriptor: int) -> None:
        async for line in _lines(descriptor):
            answer = parse_answer(line)
            future = self._answers.get(answer["nonce"]) if answer is not None else None
            if answer is not None and future is not None and not future.done():
                future.set_result(answer["status"])

    async def _read_logs(self, descriptor: int) -> None:
        async for line in _lines(descriptor):
            text = line.decode(errors="replace").rstrip("\n")
            fields = parse_line(text)
            if fields is not None and fields["event"] == "fatal":
                self.fatal = fields
            self._on_line(self.agent_id, text, fields)


async def _lines(descriptor: int) -> AsyncIterator[bytes]:
    """All that comes out of a pipe, which is closed at its end: uvloop would leave it open."""
    reader = asyncio.StreamReader(limit=LINE_BYTES_MAX)
    pipe = os.fdopen(descriptor, "rb", 0)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, pipe)
    try:
        while line := await reader.readline():
            yield line
    finally:
        transport.close()


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
