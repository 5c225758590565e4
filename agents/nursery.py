"""Where supervised agents are born: a server process that has imported everything once, and forks.

Five interpreters that each import a compiler and a QUIC stack take most of a start; one and five forks do not, and an
agent that was killed is back at once. A child is a process of its own from then on: own process group, own standard
streams, own event loop, own command line in ``ps``.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from typing import Final

from setproctitle import setproctitle

PRELOAD: Final = "agents.preload"

_context: Final = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([PRELOAD])


class Born:
    """A started process and the parent's ends of its standard streams, as file descriptors that the caller owns."""

    def __init__(self, name: str, arguments: list[str]) -> None:
        questions, self._asking = _context.Pipe(duplex=False)
        self._answers, answering = _context.Pipe(duplex=False)
        self._errors, complaining = _context.Pipe(duplex=False)
        streams = (questions, answering, complaining)
        self.process: ForkServerProcess = _context.Process(target=live, args=(name, arguments, *streams), name=name)
        self.process.start()
        for stream in streams:
            stream.close()

    def take_streams(self) -> tuple[int, int, int]:
        """(write to its standard input, read its standard output, read its standard error)."""
        ends = tuple(os.dup(end.fileno()) for end in (self._asking, self._answers, self._errors))
        for end in (self._asking, self._answers, self._errors):
            end.close()
        return ends[0], ends[1], ends[2]


def live(name: str, arguments: list[str], questions: Connection, answers: Connection, errors: Connection) -> None:
    """The child's whole life: become independent, then run the command line as if it had been typed."""
    os.setsid()  # Ctrl-C in the terminal reaches the supervisor alone, which then stops all in order
    for target, stream in enumerate((questions, answers, errors)):
        os.dup2(stream.fileno(), target)
        stream.close()
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - multiprocessing had put the null device in its place
    setproctitle(f"swarm {' '.join(arguments)}")
    from agents.cli import main

    main(arguments)
