"""A bug put in on purpose, and who notices it: the measure of a test is what it catches."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class SeededBug:
    """One entry of the catalogue. ``number`` is the catalogue's, and stays when others come."""

    number: int
    title: str
    where: str
    """"Raft" or "durability"."""
    caught_by: str
    """The oracle, or the test, that notices it."""
    found: Callable[[], str | None]
    """Runs the catcher with the bug switched on. How it was noticed, or None: it was missed."""
