"""Who is cut off from whom in a run that started with ``--network``: a small file in the run's directory.

``swarm network cut`` writes it, every agent looks at it ten times a second and drops what it sends to those it is cut
off from. A file, because it works for agents that are stopped, hang or are not there yet.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec

from protocol.errors import RunFailure
from protocol.quic.backend import Address
from protocol.roster import Agent, Roster

CUTS_NAME: Final = "network-cuts.json"


class Cuts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """``pairs``: nothing gets through from the first agent to the second."""

    pairs: tuple[tuple[str, str], ...] = ()


def read_cuts(run_dir: Path) -> Cuts:
    """Who is cut off now; nobody when there is no file. Raises ``RunFailure`` for one that is not ours."""
    path = run_dir / CUTS_NAME
    try:
        return msgspec.json.decode(path.read_bytes(), type=Cuts)
    except FileNotFoundError:
        return Cuts()
    except (OSError, msgspec.DecodeError) as error:
        raise RunFailure(f"{path} cannot be read ({error}); remove it to heal the network") from None


def write_cuts(run_dir: Path, pairs: Iterable[tuple[str, str]]) -> Cuts:
    """Replace the file whole, so that no agent sees half of it."""
    cuts = Cuts(tuple(sorted(set(pairs))))
    partial = run_dir / f".{CUTS_NAME}"
    partial.write_bytes(msgspec.json.encode(cuts) + b"\n")
    partial.replace(run_dir / CUTS_NAME)
    return cuts


class CutsOf:
    """The addresses from which one agent is cut off; called often, reads the file only when it has changed. A file that
    cannot be read changes nothing: the agent says so once and goes on."""

    def __init__(self, run_dir: Path, roster: Roster, agent: Agent, logger: Any) -> None:
        self._run_dir = run_dir
        self._roster = roster
        self._agent = agent
        self._logger = logger
        self._seen: tuple[int, ...] = ()
        self._addresses: frozenset[Address] = frozenset()

    def __call__(self) -> Collection[Address]:
        try:
            file = (self._run_dir / CUTS_NAME).stat()
            changed: tuple[int, ...] = (file.st_mtime_ns, file.st_ino, file.st_size)  # the clock of files is coarse
        except OSError:
            changed = ()
        if changed != self._seen:
            self._seen = changed
            try:
                cuts = read_cuts(self._run_dir)
            except RunFailure as failure:
                self._logger.warning("network_cuts_unreadable", reason=str(failure))
                return self._addresses
            named = {to for sender, to in cuts.pairs if sender == self._agent.id}
            self._addresses = frozenset(map(_address, (agent for agent in self._roster.agents if agent.id in named)))
        return self._addresses


def _address(agent: Agent) -> Address:
    """Where an agent listens. A name is looked up when the cut begins, which may take a moment."""
    try:
        return socket.gethostbyname(agent.host), agent.port
    except OSError:
        return agent.host, agent.port
