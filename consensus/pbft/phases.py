"""The three signed phases of one view (Castro and Liskov 1999, section 4.2): propose, prepare, commit, decide.

Promises are asked of ``SafetyRules``, leave after their record is durable, and only then count for ourselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from consensus.machine import BROADCAST, Outgoing, Ready, SignedPhase
from consensus.pbft.certificate import DIGEST_BYTES, Verify
from consensus.pbft.evidence import Promise
from consensus.pbft.pending import command_bytes
from consensus.pbft.safety import COMMIT, PRE_PREPARE, PREPARE, SafetyRefusal, SafetyRules
from consensus.pbft.slot import Ballot, Slot
from consensus.pbft.state import SpineState
from protocol.errors import LocalMisuse
from protocol.messages import Commit, Prepare, PrePrepare, SignedCommand
from protocol.signing import batch_digest, phase_bytes

Validate = Callable[[SignedCommand], str | None]
"""Why a command must not be ordered, or None. A pure function of the command's bytes and the roster."""

AnswerLate = Callable[[int, int], None]
"""(sender, sequence): the sender still works at a slot that is decided here."""


class Phases:
    def __init__(
        self, state: SpineState, safety: SafetyRules, verify: Verify, validate: Validate, answer_late: AnswerLate
    ) -> None:
        self._state = state
        self._safety = safety
        self._verify = verify
        self._validate = validate
        self._answer_late = answer_late
        self._next_sequence = 1

    # --- own promises ------------------------------------------------------------------------------------------------

    def propose(self) -> None:
        """As primary: everything pending goes into the next slot, and into further ones as far as size makes it so."""
        state = self._state
        while state.is_primary and (sequence := self._free_sequence()) <= state.high_mark:
            batch = state.pending.take_batch(state.config.commands_per_slot_max, state.config.slot_bytes_max)
            if not batch:
                return
            self._pre_prepare(sequence, batch)
            self._next_sequence = sequence + 1

    def persisted(self, ready: Ready) -> None:
        """The records of ``ready`` are durable: enter the promises among them as if they had come from a peer."""
        for record in ready.records:
            if isinstance(record, SignedPhase) and not self._state.history.is_decided(record.sequence):
                slot = self._state.slots[record.sequence]
                self._count_own(slot, record)
                self._advance(slot)

    def restore(self, signed_phases: Iterable[SignedPhase]) -> None:
        """Rebuild the unfinished slots from our own promises; the first tick sends them again, unchanged."""
        state = self._state
        for record in signed_phases:
            if record.view != state.view:
                raise LocalMisuse(f"storage holds a promise of view {record.view}; only view {state.view} is known")
            if state.history.is_decided(record.sequence):
                continue
            if record.sequence > state.high_mark:
                raise LocalMisuse(f"storage holds a promise for {record.sequence} but not the decisions before it")
            self._restore_promise(state.open(record.sequence), record)
        self._next_sequence = max([state.executed, *state.slots]) + 1
        for slot in list(state.slots.values()):
            slot.resend_at_ns = 0
            self._advance(slot)

    def _free_sequence(self) -> int:
        """The lowest number that is neither proposed nor decided; another primary with our key may have used some."""
        sequence = max(self._next_sequence, self._state.executed + 1)
        while self._state.history.is_decided(sequence):
            sequence += 1
        return sequence

    def _pre_prepare(self, sequence: int, batch: tuple[tuple[bytes, SignedCommand], ...]) -> None:
        state = self._state
        commands = tuple(command for _, command in batch)
        digest = batch_digest(state.cluster_id, commands)
        try:
            record = self._safety.sign_pre_prepare(state.view, sequence, digest, commands)
        except SafetyRefusal as refusal:
            raise LocalMisuse("the safety rules remember promises that were not restored with the slots") from refusal
        state.reserve(state.open(sequence), tuple(command_digest for command_digest, _ in batch))
        self._promise(record)

    def _prepare(self, message: PrePrepare, command_digests: tuple[bytes, ...]) -> None:
        state = self._state
        try:
            record = self._safety.sign_prepare(state.view, message.sequence, message.digest, message.commands)
        except SafetyRefusal as refusal:
            return state.ignore(f"safety_{refusal.rule}")
        slot = state.open(message.sequence)
        state.reserve(slot, command_digests)
        state.accept(slot, message.digest, message.commands, message)
        self._promise(record)
        return self._advance(slot)

    def _commit(self, slot: Slot) -> None:
        state = self._state
        assert slot.digest is not None, "prepared means accepted"
        try:
            record = self._safety.sign_commit(state.view, slot.sequence, slot.digest)
        except SafetyRefusal as refusal:
            return state.ignore(f"safety_{refusal.rule}")
        slot.commit_signed = True
        return self._promise(record)

    def _promise(self, record: SignedPhase) -> None:
        self._state.ready.records.append(record)
        self._state.ready.send_after_sync.append(Outgoing(BROADCAST, self._message(record)))

    def _message(self, record: SignedPhase) -> Promise:
        place = (record.view, record.sequence, record.digest, self._state.own)
        if record.phase == PRE_PREPARE:
            return PrePrepare(*place, record.commands, record.signature)
        return (Prepare if record.phase == PREPARE else Commit)(*place, record.signature)

    def _count_own(self, slot: Slot, record: SignedPhase) -> None:
        message = self._message(record)
        if isinstance(message, PrePrepare):
            self._state.accept(slot, record.digest, record.commands, message)
        else:
            slot.add(record.phase, self._state.own, message)

    def _restore_promise(self, slot: Slot, record: SignedPhase) -> None:
        if record.phase == PREPARE:
            self._state.accept(slot, record.digest, record.commands, None)
        slot.commit_signed |= record.phase == COMMIT
        self._count_own(slot, record)

    def _advance(self, slot: Slot) -> None:
        """Go as far as the promises held allow: sign COMMIT once prepared, decide once committed."""
        if slot.prepared and not slot.commit_signed:
            self._commit(slot)
        if slot.committed:
            self._state.decide(slot.certificate())
            self._safety.settle(self._state.executed)

    # --- peers' promises ---------------------------------------------------------------------------------------------

    def on_pre_prepare(self, sender: int, message: PrePrepare) -> None:
        state = self._state
        if reason := self._misplaced(sender, message.primary, message):
            return state.ignore(reason)
        if sender != state.primary:
            return state.ignore("not_the_primary")
        slot = state.slots.get(message.sequence)
        if slot is not None and message.digest in (slot.digest, slot.refused):
            return state.ignore("duplicate")
        if reason := self._misshapen(message):
            return state.ignore(reason)
        if not self._is_signed(PRE_PREPARE, message, sender):
            return state.ignore("signature_invalid")
        first = slot.contradiction(sender, message.digest) if slot is not None else None
        if first is not None or (slot is not None and slot.digest is not None):
            return state.condemn("equivocation", sender, first, message)
        command_digests = state.digests(message.commands)
        if objection := self._objection(message, command_digests):
            state.open(message.sequence).refused = message.digest
            return state.condemn(objection, sender, None, message)
        return self._prepare(message, command_digests)

    def on_ballot(self, sender: int, message: Ballot, phase: str) -> None:
        """A PREPARE or a COMMIT; which of the two, ``phase`` says."""
        state = self._state
        if reason := self._misplaced(sender, message.replica, message):
            return state.ignore(reason)
        if phase == PREPARE and sender == state.primary:
            return state.ignore("prepare_by_primary")
        slot = state.slots.get(message.sequence)
        kept = slot.kept(phase, sender) if slot is not None else None
        if kept is not None and kept.digest == message.digest:
            return state.ignore("duplicate")
        if slot is not None and kept is None and phase == PREPARE and slot.prepared and slot.digest == message.digest:
            return state.ignore("surplus")  # it proves nothing new, so its signature is not worth the time
        if not self._is_signed(phase, message, sender):
            return state.ignore("signature_invalid")
        slot = state.open(message.sequence)
        if (first := slot.contradiction(sender, message.digest)) is not None:
            return state.condemn("equivocation", sender, first, message)
        slot.add(phase, sender, message)
        return self._advance(slot)

    def _misplaced(self, sender: int, claimed: int, message: Promise) -> str | None:
        """The cheap checks that every phase has in common."""
        state = self._state
        if claimed != sender:
            return "sender_mismatch"
        if message.view != state.view:
            return "other_view"
        if len(message.digest) != DIGEST_BYTES:
            return "digest_length"
        if state.history.is_decided(message.sequence):
            if not isinstance(message, Commit):  # in every ordinary slot the last COMMIT is late, and harmless
                self._answer_late(sender, message.sequence)
            return "already_decided"
        if message.sequence > state.high_mark:
            state.catch_up.hurry()
            return "outside_window"
        return None

    def _misshapen(self, message: PrePrepare) -> str | None:
        config = self._state.config
        if not 1 <= len(message.commands) <= config.commands_per_slot_max:
            return "command_count"
        if sum(map(command_bytes, message.commands)) > config.slot_bytes_max:
            return "slot_too_large"
        return None

    def _is_signed(self, phase: str, message: Promise, sender: int) -> bool:
        place = (message.view, message.sequence, message.digest, sender)
        return self._verify(sender, phase_bytes(self._state.cluster_id, phase, *place), message.signature)

    def _objection(self, message: PrePrepare, digests: tuple[bytes, ...]) -> str | None:
        """What is wrong with a proposal that its primary did sign."""
        state = self._state
        if batch_digest(state.cluster_id, message.commands) != message.digest:
            return "digest_mismatch"
        if len(set(digests)) != len(digests) or any(map(state.is_ordered, digests)):
            return "command_repeated"
        for digest, command in zip(digests, message.commands, strict=True):
            if not state.pending.holds(digest, command) and self._validate(command) is not None:
                return "command_invalid"
        return None
