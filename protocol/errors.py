"""Errors that name the guilty party.

``LocalMisuse`` is our own bug and may crash the process; ``PeerViolation`` is a peer's fault, counted and refused;
``Unavailable`` is the world's, to be tried again; ``UsageError`` is the user's, one line with the mend. A risk refusal
is none of these: it is an event with a ``DenyCode``.
"""

from __future__ import annotations


class LocalMisuse(Exception):
    """We called something wrongly. Never caught except at the top."""


class PeerViolation(Exception):
    """A peer sent what the protocol does not allow. ``reason`` is a stable, countable label."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


class Unavailable(Exception):
    """The world failed us: no connection, no quorum, a time-out. Trying again may help."""


class UsageError(Exception):
    """The user's input is wrong. The text says what, where and the mend; the command exits with 2."""


class RunFailure(Exception):
    """The command could not do its work for a reason outside the input. One line; the command exits with 1."""
