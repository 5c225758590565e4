"""The spine: PBFT's three signed phases as a pure machine (Castro and Liskov 1999, section 4), in one fixed view.

View change and checkpoints are absent. While the primary of view 0 is dead or lies, nothing new is decided; safety
holds, ``primary_suspect`` turns true in bounded time, and the shell refuses critical decisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from consensus.machine import BROADCAST, Ready, SignedPhase
from consensus.pbft.certificate import Verify
from consensus.pbft.config import PbftConfig
from consensus.pbft.evidence import Evidence
from consensus.pbft.history import Archive, History
from consensus.pbft.pending import command_bytes
from consensus.pbft.phases import Phases, Validate
from consensus.pbft.safety import COMMIT, PREPARE, SafetyRules
from consensus.pbft.slot import Slot
from consensus.pbft.state import SpineState
from consensus.pbft.transfer import Transfer
from protocol.codes import Path
from protocol.errors import LocalMisuse
from protocol.messages import (
    Commit,
    CommittedSlot,
    Message,
    Prepare,
    PrePrepare,
    SignedCommand,
    SlotReply,
    SlotRequest,
    Submit,
)
from protocol.signing import command_digest


class Pbft:
    """One replica of the spine; implements ``consensus.machine.Machine``.

    ``own`` and ``voters`` are roster positions, in roster order. ``slots`` and ``signed_phases`` are what the storage
    holds after a restart; decisions above ``executed_upto`` are handed out again, in order, in the first Ready.
    ``slots`` must reach back as far as an old command may be submitted again. ``archive`` reads executed slots that are
    no longer in memory, for peers that lag far behind.

    ``validate`` must depend on nothing but the command's bytes and the roster, never on a clock or on progress: honest
    replicas that judge one proposal differently would block its sequence number for ever.

    Every bad message is ignored and counted in ``ignored``; ``LocalMisuse`` means wrong construction or storage.
    """

    def __init__(
        self,
        own: int,
        voters: Sequence[int],
        quorum_size: int,
        cluster_id: bytes,
        safety: SafetyRules,
        verify: Verify,
        config: PbftConfig,
        validate: Validate,
        slots: Sequence[CommittedSlot] = (),
        signed_phases: Sequence[SignedPhase] = (),
        executed_upto: int = 0,
        archive: Archive | None = None,
    ) -> None:
        if own not in voters or len(set(voters)) != len(voters) or safety.own != own:
            raise LocalMisuse("own must be one of distinct voters, and the owner of the safety rules")
        if not len(voters) < 2 * quorum_size <= 2 * len(voters):
            raise LocalMisuse(f"{quorum_size} of {len(voters)} voters is no majority or cannot be reached")
        history = History(executed_upto, slots, config.history_slots_max, archive)
        self._state = SpineState(own, voters, quorum_size, cluster_id, config, history)
        self._transfer = Transfer(self._state, safety, verify)
        self._phases = Phases(self._state, safety, verify, validate, self._transfer.answer_late)
        self._validate = validate
        self._relay_count = 0
        self._relay_at_ns = 0
        for slot in slots:
            self._state.committed_commands.update(self._state.digests(slot.commands))
        self._state.hand_out(history.release())
        safety.settle(history.executed)
        self._phases.restore(signed_phases)

    # --- inputs ------------------------------------------------------------------------------------------------------

    def submit(self, command: SignedCommand) -> None:
        """Ask for ``command`` to be ordered, at any replica. Repeated, invalid or surplus commands are counted."""
        state = self._state
        digest = command_digest(state.cluster_id, command)
        if digest in state.committed_commands:
            return state.ignore("command_committed")
        if digest in state.pending or digest in state.in_flight:
            return state.ignore("command_pending")
        if command_bytes(command) > state.config.slot_bytes_max:
            return state.ignore("command_too_large")
        if self._validate(command) is not None:
            return state.ignore("command_invalid")
        if not state.pending.add(digest, command):
            state.ignore("pending_full")
        return None

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """Take a message from the voter ``sender``, as the transport has authenticated it."""
        state = self._state
        state.observe(now_ns)
        if sender == state.own or sender not in state.voters:
            return state.ignore("sender_unknown")
        match message:
            case PrePrepare():
                self._phases.on_pre_prepare(sender, message)
            case Prepare():
                self._phases.on_ballot(sender, message, PREPARE)
            case Commit():
                self._phases.on_ballot(sender, message, COMMIT)
            case SlotRequest():
                self._transfer.on_slot_request(sender, message)
            case SlotReply():
                self._transfer.on_slot_reply(sender, message)
            case Submit(path=Path.SPINE, propose=True):
                self.submit(message.command)
            case _:
                state.ignore("not_for_the_spine")
        return state.observe(now_ns)

    def tick(self, now_ns: int) -> None:
        """Retransmit, relay and ask, as far as it is time."""
        self._state.observe(now_ns)
        for slot in self._state.slots.values():
            if slot.resend_at_ns is not None and slot.resend_at_ns <= now_ns:
                self._resend(slot, now_ns)
        relay_at_ns = self._relay_deadline_ns()
        if relay_at_ns is not None and relay_at_ns <= now_ns:
            self._relay(now_ns)
        if self._state.catch_up.deadline_ns <= now_ns:
            self._transfer.probe(now_ns)

    def take_ready(self) -> Ready:
        """The effects since the last call. At the primary, whatever is pending by now is proposed first."""
        self._phases.propose()
        ready, self._state.ready = self._state.ready, Ready()
        return ready

    def persisted(self, ready: Ready) -> None:
        """``ready.records`` are durable. Calls come in the order in which the Readys were taken."""
        self._phases.persisted(ready)

    def next_deadline_ns(self) -> int:
        """When ``tick`` has something to do, if nothing happens before. In the past: at once."""
        state = self._state
        if state.unstamped:
            return state.now_ns or 0
        deadlines = [slot.resend_at_ns for slot in state.slots.values()]
        deadlines += [state.catch_up.deadline_ns, self._relay_deadline_ns()]
        return min(deadline for deadline in deadlines if deadline is not None)

    # --- questions ---------------------------------------------------------------------------------------------------

    @property
    def own(self) -> int:
        return self._state.own

    @property
    def view(self) -> int:
        return self._state.view

    @property
    def primary(self) -> int:
        """Roster position of the replica that proposes in this view."""
        return self._state.primary

    @property
    def is_primary(self) -> bool:
        return self._state.is_primary

    @property
    def executed(self) -> int:
        """Highest sequence number handed out in ``Ready.committed_slots``, without gaps; the low watermark."""
        return self._state.executed

    @property
    def ignored(self) -> Counter[str]:
        """How often a message or command was refused, by reason."""
        return self._state.ignored

    @property
    def evidence(self) -> list[Evidence]:
        return self._state.evidence.all()

    def oldest_pending_age_ns(self, now_ns: int) -> int:
        """How long the oldest submitted command or accepted proposal has waited for its execution; 0 if none does."""
        state = self._state
        stamps = [slot.since_ns for slot in state.slots.values() if slot.digest is not None]
        known = [stamp for stamp in (*stamps, state.pending.oldest_ns) if stamp is not None]
        return max(0, now_ns - min(known)) if known else 0

    def primary_suspect(self, now_ns: int) -> bool:
        """Whether something has waited longer than ``suspect_ns``: the primary, or our way to a quorum, is at fault."""
        return self.oldest_pending_age_ns(now_ns) > self._state.config.suspect_ns

    def status(self) -> dict[str, object]:
        """A picture for people and health checks; plain JSON values."""
        state = self._state
        return {
            "view": state.view,
            "primary": state.primary,
            "is_primary": state.is_primary,
            "executed": state.executed,
            "decided_above_gap": state.history.waiting_count,
            "in_flight": len(state.slots),
            "pending": len(state.pending),
            "ignored": dict(sorted(state.ignored.items())),
            "evidence": [
                {"kind": item.kind, "sender": item.sender, "sequence": item.sequence} for item in self.evidence
            ],
        }

    def check_invariants(self) -> None:
        """For tests and simulation: raises ``AssertionError`` when the machine contradicts itself."""
        self._state.check_invariants()

    # --- timers ------------------------------------------------------------------------------------------------------

    def _resend(self, slot: Slot, now_ns: int) -> None:
        for message in slot.messages_of(self._state.own):
            self._state.send_now(BROADCAST, message)
        slot.resend_count += 1
        slot.resend_at_ns = now_ns + self._back_off_ns(slot.resend_count)
        self._state.catch_up.hurry()

    def _back_off_ns(self, count: int) -> int:
        config = self._state.config
        return config.resend_ns * min(1 << min(count, 30), config.resend_backoff_max)

    def _relay_deadline_ns(self) -> int | None:
        state = self._state
        oldest_ns = state.pending.oldest_ns
        if state.is_primary or oldest_ns is None or not state.pending.unproposed_count:
            return None
        return max(self._relay_at_ns, oldest_ns + state.config.resend_ns)

    def _relay(self, now_ns: int) -> None:
        """Hand overdue commands to the primary, which may never have had them (section 4.1)."""
        state, config = self._state, self._state.config
        before_ns = now_ns - config.resend_ns
        overdue = state.pending.overdue(before_ns, config.commands_per_slot_max, config.slot_bytes_max)
        for command in overdue:
            state.send_now(state.primary, Submit(Path.SPINE, True, command))
        self._relay_count = self._relay_count + 1 if overdue else 0
        self._relay_at_ns = now_ns + self._back_off_ns(self._relay_count)
        state.catch_up.hurry()
