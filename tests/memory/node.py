"""One agent's endpoint in a process of its own, that says as much as the others take.

Commands come as lines: ``reload`` reads the certificates again, ``reconnect`` ends a connection, ``stop`` ends it all.
It writes ``ready``, and at the end what it has done, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import random
import sys
import weakref
from collections import Counter
from pathlib import Path
from typing import Any, Final

import structlog
import uvloop

from protocol import messages as m
from protocol.batch import Channel
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.identity import load_identity
from protocol.peer import Peer
from protocol.quic import connection, qh3_connection
from protocol.roster import Agent
from tests.memory.cluster import read_roster

PACKETS_PER_KEY: Final = 500
"""So that keys are new every few seconds, not every hour."""
MESSAGES_PER_TURN: Final = 64
BODY_BYTES: Final = 2048
NICENESS: Final = 10


class Node:
    """Sends to everybody on two channels until ``send`` says no, and counts."""

    def __init__(self, directory: Path, agent_id: str, transport: str) -> None:
        self.roster = read_roster(directory)
        self.folder = directory / agent_id
        self.agent_id = agent_id
        self.counts = Counter[str]()
        self.rng = random.Random(agent_id)
        self._last: weakref.WeakKeyDictionary[Peer, dict[int, int]] = weakref.WeakKeyDictionary()
        self._sent = 0
        self._stopped = asyncio.Event()
        self.endpoint = Endpoint(
            load_identity(self.folder, self.roster, agent_id),
            self.roster,
            codec_for("capnp"),
            on_message=self._on_message,
            on_peer_change=self._on_peer_change,
            transport=transport,
        )

    def _on_message(self, peer: Peer, trace: int, message: m.Message) -> None:
        self.counts["delivered"] += 1
        last = self._last.setdefault(peer, {})
        if trace <= last.get(type(message) is m.Submit, 0):
            self.counts["out_of_order"] += 1
        last[type(message) is m.Submit] = trace

    def _on_peer_change(self, agent: Agent, connected: bool) -> None:
        self.counts["connects" if connected else "losses"] += 1

    async def live(self) -> None:
        """Until it is told to stop."""
        await self.endpoint.start()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        loop = asyncio.get_running_loop()
        loop.add_reader(sys.stdin.fileno(), self._on_command)
        body = m.SignedCommand(1, 0, bytes(BODY_BYTES), bytes(64))
        while not self._stopped.is_set():
            for index in self.endpoint.connected:
                self._speak(index, m.Commit(0, 1, bytes(32), 0, bytes(64)), Channel.CONSENSUS)
                self._speak(index, m.Submit(1, True, body), Channel.BULK)
            await asyncio.sleep(0 if self.endpoint.connected else 0.01)
        await self.endpoint.close()

    def _speak(self, index: int, message: m.Message, channel: Channel) -> None:
        for _ in range(MESSAGES_PER_TURN):
            self._sent += 1
            if not self.endpoint.send(index, message, channel=channel, trace=self._sent):
                return
            self.counts["taken"] += 1

    def _on_command(self) -> None:
        command = sys.stdin.readline().strip()
        for peer in self.endpoint._peers.values():
            self._count_keys(peer)  # it is about to end, whatever the command
        if command == "reload":
            self.endpoint.reload(load_identity(self.folder, self.roster, self.agent_id))
            self.counts["reloads"] += 1
        elif command == "reconnect":
            peers = list(self.endpoint._peers.values())
            if peers:
                self.rng.choice(peers).close("shutdown")
                self.counts["reconnects"] += 1
        else:  # stop, or nobody is there any more
            asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
            self._stopped.set()

    def _count_keys(self, peer: Peer) -> None:
        """Before a connection ends: how often its keys were renewed."""
        if peer._link is not None:
            self.counts["key_updates"] += peer._link.connection.key_updates

    def report(self) -> dict[str, Any]:
        """For JSON."""
        return dict(self.counts) | {"refused": dict(self.endpoint.refused)}


def main() -> None:
    """``node DIRECTORY AGENT TRANSPORT``"""
    directory, agent_id, transport = sys.argv[1:]
    os.nice(NICENESS)
    for module in (connection, qh3_connection):
        module.PACKETS_PER_KEY = PACKETS_PER_KEY  # type: ignore[misc]
    logging.getLogger("quic").setLevel(logging.ERROR)
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())

    async def live() -> dict[str, Any]:
        node = Node(Path(directory), agent_id, transport)
        asyncio.get_running_loop().set_exception_handler(_fail)
        await node.live()
        return node.report()

    sys.stdout.write(json.dumps(uvloop.run(live())) + "\n")


def _fail(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    sys.stderr.write(f"{context}\n")
    os._exit(3)


if __name__ == "__main__":
    main()
