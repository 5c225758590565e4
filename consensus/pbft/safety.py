"""What a replica may sign. This file alone holds the signing function; everything else asks it.

The rules, for one replica, over all its restarts:

1. one digest for each (view, sequence, phase), and asked again for the same digest the same signature again;
2. PRE-PREPARE and PREPARE are one promise: the same digest in both, if ever both are asked for;
3. COMMIT only for the digest that was promised by PREPARE, or by PRE-PREPARE as primary;
4. nothing at or below the settled mark, where the decision is durable and the promises are forgotten.

A signature must not leave before the returned ``SignedPhase`` is durable. One that is lost together with its record
in a crash has never left, so signing something else in its place is no contradiction.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from consensus.machine import SignedPhase
from protocol.errors import LocalMisuse
from protocol.messages import SignedCommand
from protocol.signing import phase_bytes

PRE_PREPARE: Final = "pre-prepare"
PREPARE: Final = "prepare"
COMMIT: Final = "commit"
PHASES: Final = (PRE_PREPARE, PREPARE, COMMIT)


class SafetyRefusal(Exception):
    """A signature was asked for that would break a promise. ``signed`` is the digest in its way, None if none is."""

    def __init__(self, rule: str, view: int, sequence: int, phase: str, asked: bytes, signed: bytes | None) -> None:
        standing = signed.hex() if signed is not None else "nothing"
        super().__init__(
            f"{rule}: {phase} of view {view}, sequence {sequence}: asked for {asked.hex()}, {standing} is signed"
        )
        self.rule = rule
        self.view = view
        self.sequence = sequence
        self.phase = phase
        self.asked = asked
        self.signed = signed


class SafetyRules:
    """The promises of replica ``own`` (roster position) in cluster ``cluster_id``.

    ``sign`` maps the bytes of ``protocol.signing.phase_bytes`` to a signature. ``restored`` holds every ``SignedPhase``
    that the storage kept, in any order; two that contradict each other raise ``LocalMisuse``.
    """

    def __init__(
        self, own: int, cluster_id: bytes, sign: Callable[[bytes], bytes], restored: Iterable[SignedPhase] = ()
    ) -> None:
        self.own = own
        self._cluster_id = cluster_id
        self._sign = sign
        self._settled = 0
        self._promises: dict[int, dict[tuple[int, str], SignedPhase]] = {}
        for record in restored:
            self._restore(record)

    @property
    def settled(self) -> int:
        """Highest sequence number whose promises are forgotten; nothing is signed there any more."""
        return self._settled

    def sign_pre_prepare(
        self, view: int, sequence: int, digest: bytes, commands: tuple[SignedCommand, ...]
    ) -> SignedPhase:
        """Propose ``commands`` as primary. Raises ``SafetyRefusal``."""
        return self._promise(view, sequence, PRE_PREPARE, digest, commands)

    def sign_prepare(self, view: int, sequence: int, digest: bytes, commands: tuple[SignedCommand, ...]) -> SignedPhase:
        """Accept the primary's proposal. Raises ``SafetyRefusal``."""
        return self._promise(view, sequence, PREPARE, digest, commands)

    def sign_commit(self, view: int, sequence: int, digest: bytes) -> SignedPhase:
        """Declare the slot prepared. Raises ``SafetyRefusal``."""
        return self._promise(view, sequence, COMMIT, digest, ())

    def settle(self, sequence: int) -> None:
        """Everything up to ``sequence`` is decided: forget its promises and never sign there again."""
        for settled in [promised for promised in self._promises if promised <= sequence]:
            del self._promises[settled]
        self._settled = max(self._settled, sequence)

    def _promise(
        self, view: int, sequence: int, phase: str, digest: bytes, commands: tuple[SignedCommand, ...]
    ) -> SignedPhase:
        given = self._given(view, sequence, phase)
        if given is not None and given.digest == digest:
            return given
        self._check_settled(view, sequence, phase, digest)
        self._check_one_digest(view, sequence, phase, digest)
        self._check_commit_is_prepared(view, sequence, phase, digest)
        signature = self._sign(phase_bytes(self._cluster_id, phase, view, sequence, digest, self.own))
        record = SignedPhase(view, sequence, phase, digest, commands, signature)
        self._promises.setdefault(sequence, {})[view, phase] = record
        return record

    def _check_settled(self, view: int, sequence: int, phase: str, digest: bytes) -> None:
        if sequence <= self._settled:
            raise SafetyRefusal("settled", view, sequence, phase, digest, None)

    def _check_one_digest(self, view: int, sequence: int, phase: str, digest: bytes) -> None:
        """Rules 1 and 2. A standing COMMIT binds the earlier phases too, should their records ever be missing."""
        for other in PHASES:
            given = self._given(view, sequence, other)
            if given is not None and given.digest != digest:
                raise SafetyRefusal("other_digest_signed", view, sequence, phase, digest, given.digest)

    def _check_commit_is_prepared(self, view: int, sequence: int, phase: str, digest: bytes) -> None:
        """Rule 3. That the standing promise is for this very digest, rule 2 has just checked."""
        if phase != COMMIT:
            return
        if self._given(view, sequence, PREPARE) is None and self._given(view, sequence, PRE_PREPARE) is None:
            raise SafetyRefusal("commit_unprepared", view, sequence, phase, digest, None)

    def _given(self, view: int, sequence: int, phase: str) -> SignedPhase | None:
        return self._promises.get(sequence, {}).get((view, phase))

    def _restore(self, record: SignedPhase) -> None:
        if record.phase not in PHASES:
            raise LocalMisuse(f"unknown phase {record.phase!r} in a restored record")
        for phase in PHASES:
            given = self._given(record.view, record.sequence, phase)
            if given is not None and given.digest != record.digest:
                raise LocalMisuse(
                    f"storage holds two digests for view {record.view}, sequence {record.sequence}: "
                    f"{given.digest.hex()} and {record.digest.hex()}"
                )
        self._promises.setdefault(record.sequence, {})[record.view, record.phase] = record
