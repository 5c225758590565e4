"""The nodes of a lane as processes that can be hurt, each by the means that the operating system has."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from consensus.storage_file import FILE_NAME
from profiling.bench.lane.client import START_S, LaneClient, NodeProcess
from profiling.bench.lane.requests import ClockSetting, Members, Response, Standing, Verb
from profiling.bench.lane.site import LaneSite
from protocol.native import VARIABLE
from tests.nemesis.disks import Disks
from tests.oracles.source_tree import ROOT
from tests.oracles.write_ahead import log_end

ANSWER_S: Final = 0.5
WATCH_S: Final = 0.05
"""How often it is looked whether a node is late."""
LAST_LINES_BYTES: Final = 16_384


class NodeFailed(AssertionError):
    """A node ended that nobody had killed, or ended in another way than it should."""


class Node(NodeProcess):
    """One life of one node. What it writes to standard error is kept, the end of it."""

    def __init__(self, site: LaneSite, index: int, disks: Disks, broken: str) -> None:
        # With the fault handler a node that hangs says where when it is aborted.
        # One that is broken runs from source: in compiled classes methods cannot be replaced.
        environment = ["env", f"PYTHONPATH={ROOT}", f"NEMESIS_BROKEN={broken}", "PYTHONFAULTHANDLER=1"]
        if broken:
            environment.append(f"{VARIABLE}=0")
        super().__init__(site, index, "tests.nemesis.node", (*disks.before, *environment), subprocess.PIPE)
        self.words = ""
        self.paused = False
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.words = (self.words + line)[-LAST_LINES_BYTES:]

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def finish(self, in_order: bool) -> None:
        """End it, if it has not ended, and take everything back."""
        self.close() if in_order else self.kill()
        self._listener.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


class Cluster:
    """All nodes of a site. ``broken`` names the way in which they are broken on purpose, if they are."""

    def __init__(self, site: LaneSite, disks: Disks, broken: str = "") -> None:
        self.site = site
        self.indices = range(len(site.ports))
        self._disks = disks
        self._broken = broken
        self._nodes: dict[int, Node] = {}

    async def start(self, *indices: int) -> None:
        """Raises ``NodeFailed`` when one does not come up."""
        for index in indices:
            self._nodes[index] = Node(self.site, index, self._disks, self._broken)
        await asyncio.gather(*(self._ready(self._nodes[index]) for index in indices))

    async def _ready(self, node: Node) -> None:
        """One that hangs is aborted, and says where it was."""
        watchdog = asyncio.create_task(self._abort_late(node))
        try:
            await asyncio.to_thread(self._wait_ready, node)
        finally:
            watchdog.cancel()

    async def _abort_late(self, node: Node) -> None:
        """Counts the time in which this process runs: while the whole machine stands still nobody can get on."""
        for _ in range(int(START_S / WATCH_S)):
            await asyncio.sleep(WATCH_S)
        node.signal(signal.SIGABRT)

    def _wait_ready(self, node: Node) -> None:
        assert node.process.stdout is not None
        if node.process.stdout.readline() != "ready\n":
            node.process.wait()
            node.finish(in_order=False)
            raise NodeFailed(f"node {node.index} did not start, it ended with {node.process.returncode}: {node.words}")

    def kill(self, *indices: int) -> None:
        """As a power failure does: no goodbye."""
        for index in indices:
            self._nodes[index].process.kill()
        for index in indices:
            self._nodes.pop(index).finish(in_order=False)

    def pause(self, index: int) -> None:
        """It stands still, and its clock does not."""
        self._nodes[index].signal(signal.SIGSTOP)
        self._nodes[index].paused = True

    def resume(self, index: int) -> None:
        self._nodes[index].signal(signal.SIGCONT)
        self._nodes[index].paused = False

    def check_alive(self) -> None:
        """Raises ``NodeFailed`` when one has ended by itself."""
        for node in self._nodes.values():
            if not node.alive:
                raise NodeFailed(f"node {node.index} ended with {node.process.returncode}: {node.words}")

    # --- the disk ----------------------------------------------------------------------------------------------------

    def data_dir(self, index: int) -> Path:
        """As this process sees it."""
        return self._disks.seen(self.site.data_dir(index))

    def fill_disk(self, index: int) -> None:
        """From now on its store cannot grow."""
        self._disks.fill(self.data_dir(index), self._nodes[index].process.pid)

    async def ended_by_disk(self, index: int, within_s: float) -> bool:
        """Free the disk again after this time, or when the node has ended, and say whether it has. Raises
        ``NodeFailed`` unless it ended loudly, in one line and not with 0."""
        node = self._nodes[index]
        for _ in range(int(within_s / 0.02)):
            if not node.alive:
                break
            await asyncio.sleep(0.02)
        self._disks.free(self.data_dir(index), None if not node.alive else node.process.pid)
        if node.alive:
            return False
        self._nodes.pop(index).finish(in_order=True)
        if node.process.returncode != 1 or "Traceback" in node.words or "cannot write" not in last_line(node.words):
            raise NodeFailed(f"node {index}, its disk full, ended with {node.process.returncode}: {node.words}")
        return True

    def slow_disk(self, index: int, milliseconds: int) -> None:
        """Every commit takes so much longer; 0 for a disk as it is."""
        (self.site.directory / f"slow-{index}").write_text(str(milliseconds))

    def tear_log(self, index: int, garbage: bytes) -> None:
        """What a write leaves behind that had begun when the power failed. Only while the node is down."""
        path = self.data_dir(index) / (FILE_NAME + "-wal")
        path.touch()
        with path.open("r+b") as file:
            file.seek(log_end(path))
            file.write(garbage)

    # --- over the wire -----------------------------------------------------------------------------------------------

    async def request(self, index: int, verb: Verb, key: bytes = b"", value: bytes = b"") -> Response | None:
        """One request of a running node; None when it does not answer."""
        client = None
        try:
            async with asyncio.timeout(ANSWER_S):
                client = await LaneClient.connect(self.site, index)
                return await client.request(verb, key, value)
        except (OSError, TimeoutError):
            return None
        finally:
            if client is not None:
                client.close()

    async def cut(self, index: int, others: tuple[int, ...]) -> bool:
        """``index`` sends nothing to the others from now on; to everybody again, if there are none."""
        return await self.request(index, Verb.CUT, bytes(others)) is not None

    async def set_clock(self, index: int, rate_ppm: int = 0, step_ms: int = 0) -> bool:
        """Its clock runs so many millionths too fast from now on, after a jump forward."""
        value = msgspec.json.encode(ClockSetting(rate_ppm, step_ms))
        response = await self.request(index, Verb.CLOCK, value=value)
        return response is not None and response.standing == Standing.DONE

    async def change_members(self, leader: int, voters: Sequence[int], learners: Sequence[int]) -> bool:
        """Whether the leader began the change."""
        value = msgspec.json.encode(Members(sorted(voters), sorted(learners)))
        response = await self.request(leader, Verb.MEMBERS, value=value)
        return response is not None and response.standing == Standing.DONE

    async def status(self, index: int) -> dict[str, Any]:
        """What it says of itself; nothing when it does not answer."""
        response = await self.request(index, Verb.STATUS)
        status: dict[str, Any] = json.loads(response.value or b"{}") if response is not None else {}
        return status

    async def leader(self) -> int | None:
        """Who leads in the latest term that anybody leads in."""
        statuses = await asyncio.gather(*(self.status(index) for index in self.indices))
        leads = [(each["term"], index) for index, each in enumerate(statuses) if each.get("role") == "leader"]
        return max(leads)[1] if leads else None

    # --- the end -----------------------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """Everything runs, clocks go right, everybody hears everybody. Raises ``NodeFailed`` for a node that ended by
        itself."""
        self.check_alive()
        for index, node in self._nodes.items():
            self.slow_disk(index, 0)
            if node.paused:
                self.resume(index)
        await self.start(*(index for index in self.indices if index not in self._nodes))
        for index in self.indices:
            for _ in range(20):
                if await self.cut(index, ()) and await self.set_clock(index):
                    break
            else:
                raise NodeFailed(f"node {index} does not answer: {self._nodes[index].words}")

    def close(self, in_order: bool = True) -> None:
        """End all nodes. Raises ``NodeFailed`` when one did not end well."""
        nodes, self._nodes = self._nodes, {}
        for node in nodes.values():
            node.finish(in_order and not node.paused)
        for node in nodes.values():
            if in_order and (node.process.returncode or "Traceback" in node.words):
                raise NodeFailed(f"node {node.index} ended with {node.process.returncode}: {node.words}")


def last_line(words: str) -> str:
    return words.rstrip().rpartition("\n")[2]
