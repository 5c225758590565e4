"""What the runner needs of a machine, and what it asks of the agent around it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from consensus.machine import Outgoing, Ready, Record
from consensus.storage import KeyValue
from protocol.messages import Message

Drained = TypeVar("Drained", bound=Ready)


class Drives(Protocol[Drained]):
    """What the runner needs of a machine; ``Drained`` is what it hands out."""

    def step(self, sender: int, message: Message, now_ns: int) -> None: ...
    def tick(self, now_ns: int) -> None: ...
    def take_ready(self) -> Drained: ...
    def persisted(self, ready: Drained, /) -> None: ...
    def peer_connected(self, peer: int, now_ns: int) -> None: ...


@dataclass(frozen=True, slots=True)
class Callbacks(Generic[Drained]):
    """What the agent does with a machine's effects. None of them may block."""

    send: Callable[[Outgoing, int], None]
    """Hand a message to the transport, with the trace it belongs to."""
    perform: Callable[[Drained], None]
    """Everything in a drain that is neither sent nor written: what is committed, what is to be verified."""
    failed: Callable[[BaseException], None]
    """The disk refused, or our own code broke: the process must stop, loudly. Called once; nothing is sent after."""


@dataclass(slots=True)
class Pending(Generic[Drained]):
    """Work for the disk: a drain of the machine, or values of the agent's own with somebody waiting."""

    records: Sequence[Record | KeyValue]
    effects: Drained | None
    trace: int
    done: asyncio.Future[None] | None = None
