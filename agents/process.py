"""An agent's process: event loop, signals, the supervisor's questions, and an exit code that can be trusted."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any, Final, Protocol

import click
import structlog
import uvloop

from agents import logs
from consensus.runner import SWITCH_INTERVAL_S
from protocol.errors import RunFailure, Unavailable, UsageError

EXIT_OK: Final = 0
EXIT_FAILURE: Final = 1
EXIT_USAGE: Final = 2


class Serving(Protocol):
    """What an agent's process runs."""

    async def run(self) -> None: ...
    def stop(self) -> None: ...
    def reload(self) -> None: ...
    def fail(self, error: BaseException) -> None: ...
    def status(self, detail: bool) -> dict[str, Any]: ...


def serve(build: Callable[[], Serving], *, supervised: bool, log_json: bool, level: str) -> int:
    """Build and run an agent until it is stopped; returns the exit code.

    Supervised, it answers questions on standard input from its own event loop and stops when that closes, so that no
    agent outlives its supervisor. A user's mistake is one line; a traceback means that the mistake is ours.
    """
    logs.configure(as_json=supervised or log_json, level=level)
    if not __debug__:
        click.echo("error: assertions are part of the program; run python without -O", err=True)
        return EXIT_USAGE
    try:
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        uvloop.run(_serve(build, supervised))
    except UsageError as error:
        return _fatal(error, EXIT_USAGE, supervised)
    except (RunFailure, Unavailable) as error:
        return _fatal(error, EXIT_FAILURE, supervised)
    return EXIT_OK


def _fatal(error: Exception, code: int, supervised: bool) -> int:
    if supervised:
        structlog.get_logger().error("fatal", error=str(error), exit_code=code)
    else:
        click.echo(f"error: {error}", err=True)
    return code


async def _serve(build: Callable[[], Serving], supervised: bool) -> None:
    loop = asyncio.get_running_loop()
    agent = build()
    loop.set_exception_handler(lambda _, context: _unhandled(agent, context))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, agent.stop)
    loop.add_signal_handler(signal.SIGHUP, agent.reload)
    if supervised:
        await loop.connect_read_pipe(lambda: _Questions(agent), sys.stdin)
    await agent.run()


def _unhandled(agent: Serving, context: dict[str, Any]) -> None:
    """An exception in a callback is a defect of ours: the agent ends with it, it does not limp on."""
    error = context.get("exception")
    if isinstance(error, BaseException):
        agent.fail(error)
    else:
        structlog.get_logger().warning("event_loop", text=str(context.get("message")))


class _Questions(asyncio.Protocol):
    """One JSON object a line in, one out. The end of the stream means that the supervisor is gone."""

    def __init__(self, agent: Serving) -> None:
        self._agent = agent
        self._rest = b""

    def data_received(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            question = json.loads(line)
            answer = self._agent.status(detail=bool(question.get("detail")))
            os.write(sys.stdout.fileno(), json.dumps({"nonce": question["nonce"], "status": answer}).encode() + b"\n")

    def eof_received(self) -> None:
        self._agent.stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._agent.stop()
