"""A client of a measured lane, and the processes of its nodes."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any, Final

import msgspec

from profiling.bench.lane.requests import ONCE_BYTES, REQUEST_BYTES_MAX, RESPONSE_BYTES_MAX, Request, Response, Verb
from profiling.bench.lane.site import LaneSite
from profiling.bench.lane.store import Deframer, frames
from profiling.bench.transport.site import HOST
from protocol.errors import RunFailure

START_S: Final = 20.0
NODE: Final = "profiling.bench.lane.node"

Answered = Callable[[Response | None], None]
"""Takes the answer, or None when the connection ended first."""

_encoder: Final = msgspec.msgpack.Encoder()
_decoder: Final = msgspec.msgpack.Decoder(list[Response])


class NodeProcess:
    """One node, alive from the call until ``kill`` or ``close``. ``before`` is put in front of its command, for
    instance to enter a namespace; ``errors`` takes what it writes to standard error."""

    def __init__(
        self,
        site: LaneSite,
        index: int,
        module: str = NODE,
        before: Sequence[str] = (),
        errors: IO[str] | int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.index = index
        command = [*before, sys.executable, "-m", module, str(site.file), str(index)]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env={**os.environ, **(environment or {})},
        )

    def wait_ready(self) -> None:
        """Raises ``RunFailure`` when the node does not come up."""
        assert self.process.stdout is not None
        if self.process.stdout.readline() != "ready\n":
            raise RunFailure(f"node {self.index} did not start; its last words stand above")

    def cpu_ns(self) -> int:
        """Processor time that it has used."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def signal(self, number: int) -> None:
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close_pipes()

    def close(self) -> None:
        """End it in order."""
        assert self.process.stdin is not None
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self._close_pipes()

    def _close_pipes(self) -> None:
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                pipe.close()


class LaneClient(asyncio.Protocol):
    """A connection to one node. Requests may overlap; every one has a future."""

    def __init__(self, client: int = 0) -> None:
        self._frames = Deframer(self._on_frame, RESPONSE_BYTES_MAX)
        self._open: dict[int, Answered] = {}
        self._number = 0
        self._prefix = client.to_bytes(2, "little") + time.time_ns().to_bytes(8, "little")[:6]
        self._out: list[Request] = []
        self._reading = False

    @classmethod
    async def connect(cls, site: LaneSite, index: int, client: int = 0) -> LaneClient:
        """Raises ``OSError`` when the node is not there."""
        loop = asyncio.get_running_loop()
        _, protocol = await loop.create_connection(lambda: cls(client), HOST, site.client_ports[index])
        return protocol

    def once(self) -> bytes:
        """A new idempotency key."""
        self._number += 1
        return self._prefix + self._number.to_bytes(ONCE_BYTES - 8, "little")

    def request(
        self, verb: Verb, key: bytes = b"", value: bytes = b"", expected: bytes | None = None, once: bytes = b""
    ) -> asyncio.Future[Response]:
        """Send one request. The future fails with ``ConnectionError`` when the connection ends before the answer."""
        future: asyncio.Future[Response] = asyncio.get_running_loop().create_future()

        def answered(response: Response | None) -> None:
            if future.done():
                return
            if response is None:
                future.set_exception(ConnectionResetError("the node is gone"))
            else:
                future.set_result(response)

        self._send(answered, verb, key, value, expected, once)
        return future

    def _send(
        self, answered: Answered, verb: Verb, key: bytes, value: bytes, expected: bytes | None, once: bytes
    ) -> None:
        if self._transport.is_closing():
            return answered(None)
        self._number += 1
        self._open[self._number] = answered
        if not self._out and not self._reading:
            asyncio.get_running_loop().call_soon(self._flush)
        self._out.append(Request(self._number, verb, key, value, expected, once))
        return None

    def put(self, key: bytes, value: bytes) -> asyncio.Future[Response]:
        """Write under a new idempotency key."""
        return self.request(Verb.PUT, key, value, None, self.once())

    def put_and_call(self, key: bytes, value: bytes, answered: Answered) -> None:
        """The same without a future, for loads: it would cost as much as all the rest of a write here."""
        self._send(answered, Verb.PUT, key, value, None, self.once())

    async def status(self) -> dict[str, Any]:
        response = await self.request(Verb.STATUS)
        status: dict[str, Any] = json.loads(response.value or b"{}")
        return status

    def close(self) -> None:
        self._transport.close()

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        waiting, self._open = self._open, {}
        for answered in waiting.values():
            answered(None)

    def data_received(self, data: bytes) -> None:
        self._reading = not self._out  # what is waiting leaves by itself, and the rest with it
        try:
            self._frames.receive(data)
        finally:
            if self._reading and self._out:
                self._flush()
            self._reading = False

    def _on_frame(self, data: bytes) -> None:
        for response in _decoder.decode(data):
            answered = self._open.pop(response.number, None)
            if answered is not None:
                answered(response)

    def _flush(self) -> None:
        self._transport.write(frames(_encoder, self._out, REQUEST_BYTES_MAX))
        self._out.clear()


class Lane:
    """All nodes of a site. ``environment`` is added to that of their processes."""

    def __init__(self, site: LaneSite, environment: Mapping[str, str] | None = None) -> None:
        self.site = site
        self._environment = environment
        self.nodes: dict[int, NodeProcess] = {}

    def start(self, *indices: int) -> None:
        """Start these nodes, or all."""
        started = [
            NodeProcess(self.site, index, environment=self._environment)
            for index in indices or range(len(self.site.ports))
        ]
        self.nodes |= {node.index: node for node in started}
        for node in started:
            node.wait_ready()

    async def leader(self, among: tuple[int, ...] | None = None, timeout_s: float = START_S) -> int:
        """The one that leads and has committed an entry of its term. Raises ``RunFailure``."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            for index in among or tuple(self.nodes):
                status = await self._status_of(index)
                if status.get("role") == "leader" and status["commit_index"] and status["last_term"] == status["term"]:
                    return index
            await asyncio.sleep(0.02)
        raise RunFailure(f"no node of the lane led within {timeout_s:g} s")

    async def _status_of(self, index: int) -> dict[str, Any]:
        try:
            client = await LaneClient.connect(self.site, index)
        except OSError:
            return {}
        try:
            return await asyncio.wait_for(client.status(), 2)
        except (OSError, TimeoutError):
            return {}
        finally:
            client.close()

    def cpu_ns(self) -> int:
        return sum(node.cpu_ns() for node in self.nodes.values())

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()

    def __enter__(self) -> Lane:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
