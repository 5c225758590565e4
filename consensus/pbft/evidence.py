"""Proof that a replica broke the protocol, kept once for each (sender, kind)."""

from __future__ import annotations

from dataclasses import dataclass

from protocol.messages import Commit, Prepare, PrePrepare

Promise = PrePrepare | Prepare | Commit


@dataclass(frozen=True, slots=True)
class Evidence:
    """``second`` is properly signed by ``sender``. It contradicts ``first``; where that is None it condemns itself, or
    contradicts a proposal of which only our own PREPARE has survived a restart."""

    kind: str
    sender: int
    sequence: int
    first: Promise | None
    second: Promise


class EvidenceBook:
    """Bounded by the number of voters times the number of kinds."""

    def __init__(self) -> None:
        self._held: dict[tuple[int, str], Evidence] = {}

    def add(self, evidence: Evidence) -> None:
        self._held.setdefault((evidence.sender, evidence.kind), evidence)

    def all(self) -> list[Evidence]:
        return list(self._held.values())
