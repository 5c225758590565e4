"""How a replica that missed decisions gets them: by certificate, from anybody."""

from __future__ import annotations

from typing import Final

from consensus.machine import BROADCAST
from consensus.pbft.catchup import PeerBudget
from consensus.pbft.certificate import Verify, verify_certificate
from consensus.pbft.safety import SafetyRules
from consensus.pbft.state import SpineState
from protocol.messages import CommittedSlot, SlotReply, SlotRequest

_REQUESTS_PER_RESEND: Final = 8


class Transfer:
    """SLOT-REQUEST and SLOT-REPLY. A request also tells its receiver how far the sender is."""

    def __init__(self, state: SpineState, safety: SafetyRules, verify: Verify) -> None:
        self._state = state
        self._safety = safety
        self._verify = verify
        self._request_budget = PeerBudget(_REQUESTS_PER_RESEND, state.config.resend_ns)
        self._late_budget = PeerBudget(state.config.window, state.config.resend_ns)

    def probe(self, now_ns: int) -> None:
        """Ask every peer for what follows our last executed slot."""
        self._state.catch_up.asked(now_ns)
        self._request(BROADCAST)

    def on_slot_request(self, sender: int, message: SlotRequest) -> None:
        state = self._state
        if message.replica != sender:
            return state.ignore("sender_mismatch")
        if message.from_sequence > state.executed:
            if message.from_sequence > state.executed + 1:
                state.catch_up.hurry()
            return None
        if not self._request_budget.spend(sender, state.seen_ns()):
            return state.ignore("request_too_often")
        first = max(1, message.from_sequence)
        slots = state.history.chunk(first, state.config.reply_slots_max, state.config.reply_bytes_max)
        if not slots:
            return state.ignore("request_below_history")
        return state.send_now(sender, SlotReply(slots))

    def on_slot_reply(self, sender: int, message: SlotReply) -> None:
        """Every slot is believed for its certificate alone; the first bad one condemns the rest of the reply."""
        state = self._state
        if len(message.slots) > state.config.reply_slots_max:
            return state.ignore("reply_too_long")
        executed_before = state.executed
        for slot in message.slots:
            if reason := self._unwanted(slot):
                state.ignore(reason)
                continue
            reason = verify_certificate(slot, state.cluster_id, state.voters, state.quorum_size, self._verify)
            if reason is not None:
                state.ignore(f"certificate_{reason}")
                break
            self._confront(slot)
            state.decide(slot)
        self._safety.settle(state.executed)
        if state.executed > executed_before:
            self._request(sender)
        return None

    def answer_late(self, sender: int, sequence: int) -> None:
        """``sender`` still works at a slot that is decided here: give it the decision."""
        state = self._state
        if not self._late_budget.spend(sender, state.seen_ns()):
            return state.ignore("late_too_often")
        slot = state.history.get(sequence)
        if slot is not None:
            state.send_now(sender, SlotReply((slot,)))
        return None

    def _confront(self, decided: CommittedSlot) -> None:
        """Who signed this decision after promising another digest here?"""
        slot = self._state.slots.get(decided.sequence)
        if slot is None:
            return
        for commit in decided.commits:
            if (first := slot.contradiction(commit.replica, commit.digest)) is not None:
                self._state.condemn("equivocation", commit.replica, first, commit)

    def _unwanted(self, slot: CommittedSlot) -> str | None:
        state = self._state
        if slot.view != state.view:
            return "other_view"
        if state.history.is_decided(slot.sequence):
            return "already_decided"
        if slot.sequence > state.high_mark:
            state.catch_up.hurry()
            return "outside_window"
        return None

    def _request(self, destination: int) -> None:
        self._state.send_now(destination, SlotRequest(self._state.own, self._state.executed + 1))
