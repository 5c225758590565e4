"""``swarm up``: every agent of the roster as a process of its own on this host, watched until the run is over.

Signals only set a flag; everything happens at the supervisor's own pace. Whatever goes wrong, all processes are gone
within five seconds.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from agents.child import Child, append_line
from agents.config import ClusterConfig
from agents.process import EXIT_USAGE
from agents.setup import RunOptions
from protocol.errors import RunFailure, UsageError
from protocol.roster import Agent, Role

START_TIMEOUT_S: Final = 90.0
POLL_S: Final = 0.1
RESTARTS_MAX: Final = 5
"""Restarts of one agent within ``RESTART_WINDOW_S``; one more ends the run."""
RESTART_WINDOW_S: Final = 60.0
RESTART_DELAY_S: Final = 0.2
DRAIN_TIMEOUT_S: Final = 15.0
"""How long orders may take to end after the traders have finished."""
SETTLE_TIMEOUT_S: Final = 15.0
"""How long the replicas may take after the last cycle to come to the same log."""
SILENT_S_MAX: Final = 20.0
"""An agent whose loop does not answer for so long is killed and restarted."""
TAIL_LINES: Final = 40

Progress = Callable[[dict[str, dict[str, Any]]], None]
"""Called with the latest status of each agent by id."""
Line = Callable[[str, str, dict[str, Any] | None], None]


@dataclass(slots=True)
class _Watched:
    agent: Agent
    child: Child
    restarts: list[float] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    answered_at: float = 0.0
    restart_count: int = 0


@dataclass(frozen=True, slots=True)
class RunResult:
    """Final, detailed statuses by agent id, restarts by agent id, and what the supervisor measured."""

    statuses: dict[str, dict[str, Any]]
    restarts: dict[str, int]
    seconds_to_first_cycle: float
    seconds_total: float
    logs_identical: bool


class Supervisor:
    """``await run()`` starts the roster, waits for the end of the run, and stops everything."""

    def __init__(
        self, config: ClusterConfig, options: RunOptions, arguments: list[str], on_line: Line, progress: Progress
    ) -> None:
        if options.run_dir is None:
            raise ValueError("a supervised run needs a directory")
        self._options = options
        self._run_dir: Path = options.run_dir
        self._progress = progress
        self._on_line = on_line
        self._stop = asyncio.Event()
        self._stop_reason = ""
        self._started = time.monotonic()
        self._first_cycle_s = 0.0
        self._tails: dict[str, list[str]] = {}
        self._watched = [
            _Watched(agent, Child(agent.id, [agent.role.value, "--id", agent.id, *arguments], self._line))
            for agent in config.roster.agents
            if agent.role is not Role.OPERATOR
        ]

    async def run(self) -> RunResult:
        """Raises ``UsageError`` or ``RunFailure`` with the first cause; ``KeyboardInterrupt`` after Ctrl-C."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._on_signal, number)
        try:
            await asyncio.gather(*(watched.child.start() for watched in self._watched))
            await self._until(self._all_up, START_TIMEOUT_S, "the agents did not come up")
            while (account := await self._account()) is None:
                await self._poll()  # somebody died at the very end: it comes back and catches up first
            identical, statuses = account
        finally:
            await asyncio.gather(*(watched.child.stop() for watched in self._watched))
        return RunResult(
            statuses,
            {watched.agent.id: watched.restart_count for watched in self._watched},
            self._first_cycle_s,
            time.monotonic() - self._started,
            identical,
        )

    # --- watching ----------------------------------------------------------------------------------------------------

    async def _until(self, reached: Callable[[], bool], timeout_s: float | None, what: str) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while not reached():
            if self._stop.is_set():
                raise KeyboardInterrupt(self._stop_reason)
            if deadline is not None and time.monotonic() > deadline:
                missing = [w.agent.id for w in self._watched if w.status.get("state") in (None, "starting")]
                raise RunFailure(f"{what} within {timeout_s:.0f} s: {', '.join(missing) or 'no quorum'}; see the log")
            await self._poll()

    async def _poll(self) -> None:
        """One round: restart what died, ask everybody."""
        for watched in self._watched:
            if watched.child.returncode is not None:
                await self._restart(watched)
        statuses = await asyncio.gather(*(watched.child.status() for watched in self._watched))
        now = time.monotonic()
        for watched, status in zip(self._watched, statuses, strict=True):
            if status is not None:
                watched.status, watched.answered_at = status, now
            elif watched.answered_at and now - watched.answered_at > SILENT_S_MAX:
                watched.child.signal(signal.SIGKILL)
        if not self._first_cycle_s and any(watched.status.get("cycle", 0) > 0 for watched in self._watched):
            self._first_cycle_s = now - self._started
        self._progress({watched.agent.id: watched.status for watched in self._watched})
        try:
            await asyncio.wait_for(self._stop.wait(), POLL_S)
        except TimeoutError:
            return

    async def _restart(self, watched: _Watched) -> None:
        code = await watched.child.wait()
        reason = self._why(watched, code)
        now = time.monotonic()
        watched.restarts = [at for at in watched.restarts if now - at < RESTART_WINDOW_S]
        if code == EXIT_USAGE:
            raise UsageError(reason)
        if watched.agent.role is Role.VENUE or len(watched.restarts) >= RESTARTS_MAX or not watched.answered_at:
            raise RunFailure(reason)
        watched.restarts.append(now)
        watched.restart_count += 1
        self._line(watched.agent.id, f"restarting {watched.agent.id}: {reason}", None)
        await asyncio.sleep(RESTART_DELAY_S * len(watched.restarts))
        watched.status = {}
        watched.answered_at = now
        await watched.child.start()

    def _why(self, watched: _Watched, code: int) -> str:
        if watched.child.fatal is not None:
            return str(watched.child.fatal.get("error", "no reason given"))
        if code < 0:
            return f"{watched.agent.id} was ended by signal {signal.Signals(-code).name}"
        tail = self._tails.get(watched.agent.id, [])
        last = tail[-1] if tail else "no output"
        log = self._run_dir / watched.agent.id / "log.jsonl"
        return f"{watched.agent.id} exited with {code}: {last}; see {log}"

    # --- conditions --------------------------------------------------------------------------------------------------

    def _all_up(self) -> bool:
        return all(watched.status.get("state") not in (None, "starting") for watched in self._watched)

    def _with_role(self, role: Role) -> list[dict[str, Any]]:
        return [watched.status for watched in self._watched if watched.agent.role is role]

    def _traded(self) -> bool:
        return all(status.get("state") == "finished" for status in self._with_role(Role.TRADER))

    def _drained(self) -> bool:
        return all(status.get("orders_outstanding") == 0 for status in self._with_role(Role.EXECUTOR))

    def _logs_identical(self) -> bool:
        voters = [watched.status for watched in self._watched if watched.agent.votes]
        logs = [status.get("decision_log") for status in voters]
        open_outcomes = [status.get("decision_log_open") for status in voters]
        return logs[0] is not None and all(log == logs[0] for log in logs) and not any(open_outcomes)

    async def _wait(self, reached: Callable[[], bool], timeout_s: float) -> bool:
        """Whether it came true in time; if not, the report will say what is wrong."""
        deadline = time.monotonic() + timeout_s
        while not reached() and time.monotonic() < deadline and not self._stop.is_set():
            await self._poll()
        return reached()

    async def _account(self) -> tuple[bool, dict[str, dict[str, Any]]] | None:
        """Once all is traded and settled: whether the decision logs are identical, and everybody's detailed status by
        id. None when one of them does not answer any more."""
        await self._until(self._traded, None, "")
        await self._wait(self._drained, DRAIN_TIMEOUT_S)
        identical = await self._wait(self._logs_identical, SETTLE_TIMEOUT_S)
        statuses = await asyncio.gather(*(watched.child.status(True, 10.0) for watched in self._watched))
        answered = {
            watched.agent.id: status
            for watched, status in zip(self._watched, statuses, strict=True)
            if status is not None
        }
        return (identical, answered) if len(answered) == len(self._watched) else None

    # --- events ------------------------------------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        self._stop_reason = signal.Signals(number).name
        self._stop.set()

    def _line(self, agent_id: str, text: str, fields: dict[str, Any] | None) -> None:
        append_line(self._run_dir / agent_id / "log.jsonl", text)
        tail = self._tails.setdefault(agent_id, [])
        tail.append(text)
        del tail[:-TAIL_LINES]
        self._on_line(agent_id, text, fields)
