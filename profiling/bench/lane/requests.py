"""What the clients of a lane's store say on the wire, and what its entries hold."""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final

import msgspec

from consensus.raft.proposals import Remembered

ONCE_BYTES: Final = 16
"""A write begins with its idempotency key (paper, section 8): the same one again is the same write."""
REQUEST_BYTES_MAX: Final = 2**20
"""Of a frame to a node, and so of any request."""
RESPONSE_BYTES_MAX: Final = 64 * 2**20
"""Of a frame to a client."""


class Verb(IntEnum):
    """What a client may ask of a node."""

    GET = 0
    PUT = 1
    CAS = 2
    """Put, if the key still has the value that the client expects."""
    STATUS = 3
    TRANSFER = 4
    """Hand the leadership to the node that ``key`` names."""
    CUT = 5
    """Send nothing to the nodes whose positions are the bytes of ``key``. Only a breakable node does that."""
    CLOCK = 7
    """Let the node's clock run and jump as ``value`` says in JSON. Only a breakable node does that."""
    MEMBERS = 8
    """Change to the voters and learners that ``value`` names in JSON. Only a breakable node does that."""
    LOAD = 6
    """The leader itself writes, as ``value`` says in JSON, and tells what it measured."""


class Standing(IntEnum):
    """How a request ended."""

    DONE = 0
    REFUSED = 1
    """Nothing happened, and nothing will."""
    UNKNOWN = 2
    """It may have happened, or may yet happen."""


class Request(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What a client sends."""

    number: int
    verb: int
    key: bytes = b""
    value: bytes = b""
    expected: bytes | None = None
    once: bytes = b""
    """The idempotency key of a write."""


class Load(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of a LOAD, as JSON: so many writes of ``size`` bytes, so many of them at a time."""

    in_flight: Annotated[int, msgspec.Meta(ge=1)]
    count: Annotated[int, msgspec.Meta(ge=1)]
    size: Annotated[int, msgspec.Meta(ge=0, le=REQUEST_BYTES_MAX)]


class ClockSetting(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of a CLOCK, as JSON: so many millionths too fast from now on, after a jump forward."""

    rate_ppm: Annotated[int, msgspec.Meta(gt=-1_000_000, le=100_000_000)] = 0
    step_ms: Annotated[int, msgspec.Meta(ge=0, le=10**9)] = 0


class Members(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The value of a MEMBERS, as JSON."""

    voters: list[int]
    learners: list[int] = []


class Response(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """What it is answered, in any order."""

    number: int
    standing: int
    value: bytes | None = None
    """Of a GET: what the key has. Of a CAS: empty if it was swapped, None if not."""
    reason: str = ""
    leader: int = -1
    """Who leads as far as this node knows."""


class Write(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The body of a lane entry, behind its idempotency key."""

    key: bytes
    value: bytes
    expected: bytes | None = None


class Dump(msgspec.Struct, array_like=True, frozen=True):
    """A snapshot of the store."""

    index: int
    values: dict[bytes, bytes]
    results: dict[bytes, bool]
    results_before: dict[bytes, bool]
    keys: Remembered
    """That the lane remembers."""
