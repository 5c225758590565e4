"""The gate: the only code that decides whether an order may leave for the venue.

The rule (design 5.4), clause by clause, in the order in which the gate looks; the first that fails refuses.

| clause                                   | checked against                                  | refusal           |
|------------------------------------------|--------------------------------------------------|-------------------|
| frame, digest, command belong together   | our own hash and decoding of the signed bytes    | FRAME_MALFORMED   |
| it has not expired                       | `expires_at_ns`                                  | GATE_EXPIRED      |
| its id was never used                    | every release, the journal's too                 | INTENT_REPEATED   |
| it is an order at all                    | side, quantity, prices                           | INVALID_*         |
| the spine granted slice, version, epoch  | the grant, which names this trader and this gate | SLICE_UNKNOWN     |
| it fits what is left of the slice (lane) | our own debits of this version                   | SLICE_EXHAUSTED   |
| the trader's signature is valid          | Ed25519 over the command digest                  | SIGNATURE_INVALID |
| q replicas signed it                     | the votes, on the lane all for one position      | QUORUM_MISSING    |
| the spine committed it (spine)           | the slot's commit certificate                    | QUORUM_MISSING    |
| the executor's lease is fresh            | not enforced yet                                 |                   |
| no kill is in force                      | not enforced yet                                 |                   |

A debit and a used id are for ever. A refusal changes nothing, so the same intent may come again with better proof.
Closed slice versions stay known here: a certificate signed under one is honoured within that version's own limit, so
what is released never exceeds the sum of what was granted. Spine frames carry their own escrow: they take nothing from
the slice, which only says whose they are and where they may go; their size is what q replicas approved.

The caller must make a ``Release`` durable before the order leaves, and give its ``spent`` back after a restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import Struct

from consensus.budget import SequenceSet
from consensus.certificate import Certificate, Verify, verify_certificate
from consensus.route import DEFAULT_COLLAR_BPS, effective_price, intent_notional
from protocol.codes import CommandKind, DenyCode, Path, Side
from protocol.errors import PeerViolation
from protocol.messages import CommittedSlot, Frame, Intent, SignedCommand, SliceGrant
from protocol.signing import command_digest


class GrantView(Protocol):
    """What the gate reads of the budget book: grants that the spine committed, closed versions included."""

    def grant_of(self, slice_id: int, version: int) -> SliceGrant | None: ...


class Spent(Struct, frozen=True):
    """What a release used up. Journal it; the gate is rebuilt from these."""

    trader: int
    intent: int
    slice_id: int
    slice_version: int
    notional: int
    """Taken from the slice version; 0 on the spine."""


@dataclass(frozen=True, slots=True)
class Release:
    """Permission for one order. ``limit_price`` is what may go to the venue, never 0."""

    frame: Frame
    intent: Intent
    limit_price: int
    rewritten: bool
    """A market order became a marketable limit at the collar."""
    spent: Spent


@dataclass(frozen=True, slots=True)
class Refusal:
    code: DenyCode
    reason: str


class _RefusalError(Exception):
    def __init__(self, code: DenyCode, reason: str) -> None:
        super().__init__(code, reason)
        self.refusal = Refusal(code, reason)


class Gate:
    """Release decisions for one executor.

    ``verify`` should remember good signatures, as ``protocol.identity.Verifier`` does: every intent asks again.
    ``verify_slot`` must recompute the slot's digest from its commands and check q signed COMMITs over it.
    ``released`` is every ``Spent`` that the journal knows.
    """

    # Invariant: for every slice version, _spent <= notional_limit of its grant.

    def __init__(
        self,
        cluster_id: bytes,
        own: int,
        quorum_size: int,
        voters: Sequence[int],
        verify: Verify,
        verify_slot: Callable[[CommittedSlot], str | None],
        decode_frame: Callable[[bytes], Frame],
        grants: GrantView,
        released: Iterable[Spent] = (),
        collar_bps: int = DEFAULT_COLLAR_BPS,
    ) -> None:
        self._cluster_id = cluster_id
        self._own = own
        self._quorum_size = quorum_size
        self._voters = voters
        self._verify = verify
        self._verify_slot = verify_slot
        self._decode_frame = decode_frame
        self._grants = grants
        self._collar_bps = collar_bps
        self._used: dict[int, SequenceSet] = {}
        self._spent: dict[tuple[int, int], int] = {}
        self._decoded: tuple[SignedCommand, Frame] | None = None
        self._committed: CommittedSlot | None = None
        self.refusals: Counter[DenyCode] = Counter()
        self.release_count = 0
        self.rewrite_count = 0
        for spent in released:
            self._use(spent)

    def check(
        self,
        frame: Frame,
        digest: bytes,
        command: SignedCommand,
        position: int,
        certificate: Certificate,
        slot: CommittedSlot | None,
        now_wall_ns: int,
    ) -> Release | Refusal:
        """Decide on the intent at ``position`` of the frame. A ``Release`` uses up its id and its part of the slice."""
        try:
            intent = self._belongs(frame, digest, command, position)
            self._in_time(frame, now_wall_ns)
            self._unused(frame, intent)
            self._is_order(intent)
            grant = self._granted(frame)
            notional = self._fits(frame, intent, grant)
            self._signed_by_trader(command, digest)
            self._approved(frame, digest, position, certificate)
            self._committed_by_spine(frame, command, slot)
        except _RefusalError as refused:
            self.refusals[refused.refusal.code] += 1
            return refused.refusal
        return self._release(frame, intent, notional)

    def remaining(self, slice_id: int, version: int) -> int:
        """What this gate may still release under a slice version; 0 when it was never granted."""
        grant = self._grants.grant_of(slice_id, version)
        return grant.notional_limit - self._spent.get((slice_id, version), 0) if grant is not None else 0

    def status(self) -> dict[str, object]:
        """Counts since the start, for people and tests."""
        return {
            "released": self.release_count,
            "market_orders_rewritten": self.rewrite_count,
            "refused": {code.name: count for code, count in sorted(self.refusals.items())},
        }

    # --- the clauses, each silent when it holds ---

    def _belongs(self, frame: Frame, digest: bytes, command: SignedCommand, position: int) -> Intent:
        if command.kind != CommandKind.FRAME or command.author != frame.trader or frame.cluster_id != self._cluster_id:
            raise _RefusalError(DenyCode.FRAME_MALFORMED, "command and frame differ in kind, author or cluster")
        if frame.path not in (Path.LANE, Path.SPINE) or not 0 <= position < len(frame.intents):
            raise _RefusalError(DenyCode.FRAME_MALFORMED, "unknown path or no such intent")
        if digest != command_digest(self._cluster_id, command):
            raise _RefusalError(DenyCode.FRAME_MALFORMED, "digest is not the command's")
        if self._decoded is None or self._decoded[0] is not command:
            self._decoded = (command, self._decode(command.body))
        if frame != self._decoded[1]:
            raise _RefusalError(DenyCode.FRAME_MALFORMED, "frame is not what the trader signed")
        return frame.intents[position]

    def _decode(self, body: bytes) -> Frame:
        try:
            return self._decode_frame(body)
        except PeerViolation as violation:
            raise _RefusalError(DenyCode.FRAME_MALFORMED, violation.reason) from None

    def _in_time(self, frame: Frame, now_wall_ns: int) -> None:
        if now_wall_ns >= frame.expires_at_ns:
            raise _RefusalError(DenyCode.GATE_EXPIRED, f"expired {now_wall_ns - frame.expires_at_ns} ns ago")

    def _unused(self, frame: Frame, intent: Intent) -> None:
        if intent.sequence in self._used.get(frame.trader, ()):
            raise _RefusalError(
                DenyCode.INTENT_REPEATED, f"intent {intent.sequence} of trader {frame.trader} was released"
            )

    def _is_order(self, intent: Intent) -> None:
        if intent.side not in (Side.BUY, Side.SELL):
            raise _RefusalError(DenyCode.INVALID_SIDE, f"side {intent.side}")
        if intent.quantity <= 0:
            raise _RefusalError(DenyCode.INVALID_QUANTITY, f"quantity {intent.quantity}")
        if intent.limit_price < 0 or intent.reference_price <= 0 or effective_price(intent, self._collar_bps) <= 0:
            raise _RefusalError(
                DenyCode.INVALID_PRICE, f"limit {intent.limit_price}, reference {intent.reference_price}"
            )

    def _granted(self, frame: Frame) -> SliceGrant:
        grant = self._grants.grant_of(frame.slice_id, frame.slice_version)
        if grant is None:
            raise _RefusalError(
                DenyCode.SLICE_UNKNOWN, f"slice {frame.slice_id} version {frame.slice_version} not granted"
            )
        named, bound = (frame.epoch, frame.trader, self._own), (grant.epoch, grant.trader, grant.gate)
        if named != bound:
            raise _RefusalError(DenyCode.SLICE_UNKNOWN, f"(epoch, trader, gate) is {named}, granted to {bound}")
        return grant

    def _fits(self, frame: Frame, intent: Intent, grant: SliceGrant) -> int:
        if frame.path == Path.SPINE:
            return 0
        notional = intent_notional(intent, self._collar_bps)
        left = self.remaining(grant.slice_id, grant.version)
        if notional > left:
            raise _RefusalError(DenyCode.SLICE_EXHAUSTED, f"notional {notional}, {left} left of the slice")
        return notional

    def _signed_by_trader(self, command: SignedCommand, digest: bytes) -> None:
        if not self._verify(command.author, digest, command.signature):
            raise _RefusalError(DenyCode.SIGNATURE_INVALID, f"trader {command.author} did not sign the command")

    def _approved(self, frame: Frame, digest: bytes, position: int, certificate: Certificate) -> None:
        if (certificate.path, certificate.digest) != (frame.path, digest):
            raise _RefusalError(DenyCode.QUORUM_MISSING, "certificate of another frame or path")
        reason = verify_certificate(
            certificate, self._cluster_id, position, self._quorum_size, self._voters, self._verify
        )
        if reason is not None:
            raise _RefusalError(DenyCode.QUORUM_MISSING, reason)

    def _committed_by_spine(self, frame: Frame, command: SignedCommand, slot: CommittedSlot | None) -> None:
        if frame.path != Path.SPINE:
            return
        if slot is None or command not in slot.commands:
            raise _RefusalError(DenyCode.QUORUM_MISSING, "no spine slot holds the command")
        if slot is self._committed:
            return
        if (reason := self._verify_slot(slot)) is not None:
            raise _RefusalError(DenyCode.QUORUM_MISSING, f"spine slot: {reason}")
        self._committed = slot

    # --- the effect ---

    def _release(self, frame: Frame, intent: Intent, notional: int) -> Release:
        spent = Spent(frame.trader, intent.sequence, frame.slice_id, frame.slice_version, notional)
        self._use(spent)
        rewritten = intent.limit_price == 0
        self.release_count += 1
        self.rewrite_count += rewritten
        return Release(frame, intent, effective_price(intent, self._collar_bps), rewritten, spent)

    def _use(self, spent: Spent) -> None:
        self._used.setdefault(spent.trader, SequenceSet()).add(spent.intent)
        version = (spent.slice_id, spent.slice_version)
        self._spent[version] = self._spent.get(version, 0) + spent.notional
