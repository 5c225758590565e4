"""Ports for processes that come and go."""

from __future__ import annotations

import os
import random
import socket
from contextlib import ExitStack, suppress
from typing import Final

from profiling.bench.transport.site import HOST
from protocol.errors import RunFailure

RANGE: Final = range(12_000, 32_000)
"""Below those that outgoing connections get. A client that calls a node that is down could else be given the node's own
port, and would then talk to itself and keep the node from coming back."""


def lasting_ports(count: int) -> tuple[int, ...]:
    """Ports that are free now, for UDP and for TCP. Raises ``RunFailure``."""
    candidates = random.Random(os.getpid()).sample(RANGE, 1000)
    free: list[int] = []
    with ExitStack() as stack:
        for port in candidates:
            with suppress(OSError):
                for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                    stack.enter_context(socket.socket(socket.AF_INET, kind)).bind((HOST, port))
                free.append(port)
            if len(free) == count:
                return tuple(free)
    raise RunFailure(f"no {count} free ports from {RANGE[0]} to {RANGE[-1]}; stop what uses them")
