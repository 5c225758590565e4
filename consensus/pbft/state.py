"""What the parts of one PBFT replica share: its place, its slots, its clock and the effects it has collected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from consensus.machine import Outgoing, Ready, SlotCommit
from consensus.pbft.catchup import CatchUp
from consensus.pbft.config import PbftConfig
from consensus.pbft.evidence import Evidence, EvidenceBook, Promise
from consensus.pbft.history import History
from consensus.pbft.pending import PendingCommands
from consensus.pbft.slot import Slot
from protocol.messages import CommittedSlot, Message, PrePrepare, SignedCommand
from protocol.signing import command_digest


class SpineState:
    """Plain state with the few moves that keep it consistent; the rules live in ``phases`` and ``transfer``."""

    # Invariant: every slot in ``slots`` lies in (executed, executed + window] and is not decided.
    # Invariant: in_flight maps each command of a proposed, undecided slot to that slot's sequence number.

    def __init__(
        self,
        own: int,
        voters: Sequence[int],
        quorum_size: int,
        cluster_id: bytes,
        config: PbftConfig,
        history: History,
    ) -> None:
        self.own = own
        self.view = 0
        self.voters = tuple(voters)
        self.quorum_size = quorum_size
        self.cluster_id = cluster_id
        self.config = config
        self.history = history
        self.slots: dict[int, Slot] = {}
        self.in_flight: dict[bytes, int] = {}
        self.committed_commands: set[bytes] = set()
        self.pending = PendingCommands(config.pending_max)
        self.catch_up = CatchUp(config.resend_ns, config.probe_ns)
        self.evidence = EvidenceBook()
        self.ignored: Counter[str] = Counter()
        self.ready = Ready()
        self.now_ns: int | None = None
        self._unstamped: list[Slot] = []

    @property
    def primary(self) -> int:
        return self.voters[self.view % len(self.voters)]

    @property
    def is_primary(self) -> bool:
        return self.own == self.primary

    @property
    def executed(self) -> int:
        return self.history.executed

    @property
    def high_mark(self) -> int:
        return self.executed + self.config.window

    # --- slots -------------------------------------------------------------------------------------------------------

    def open(self, sequence: int) -> Slot:
        """The slot of an undecided sequence number inside the window, made if need be."""
        slot = self.slots.get(sequence)
        if slot is None:
            slot = self.slots[sequence] = Slot(self.view, sequence, self.primary, self.quorum_size)
            self._unstamped.append(slot)
        return slot

    def reserve(self, slot: Slot, command_digests: tuple[bytes, ...]) -> None:
        """These commands are on their way to a decision in ``slot``."""
        slot.command_digests = command_digests
        for digest in command_digests:
            self.in_flight[digest] = slot.sequence
            self.pending.mark_proposed(digest)

    def accept(
        self, slot: Slot, digest: bytes, commands: tuple[SignedCommand, ...], message: PrePrepare | None
    ) -> None:
        """Take a checked proposal into its slot; its age and its retransmission count from now."""
        slot.accept(digest, commands, message)
        self._unstamped.append(slot)
        if not slot.command_digests:
            self.reserve(slot, self.digests(commands))

    def decide(self, decided: CommittedSlot) -> None:
        """A certificate is there. What it leaves of another proposal waits to be proposed again."""
        slot = self.slots.pop(decided.sequence, None)
        proposed = slot.command_digests if slot is not None else ()
        is_ours = slot is not None and slot.digest == decided.digest
        ordered = proposed if is_ours else self.digests(decided.commands)
        self.committed_commands.update(ordered)
        for digest in ordered:
            self.pending.mark_proposed(digest)
        for digest in proposed:
            self.in_flight.pop(digest, None)
            if digest not in self.committed_commands:
                self.pending.mark_unproposed(digest)
        self.history.decide(decided)
        released = self.history.release()
        self.ready.records.extend(SlotCommit(item) for item in released)
        self.hand_out(released)

    def hand_out(self, released: Iterable[CommittedSlot]) -> None:
        for slot in released:
            self.ready.committed_slots.append(slot)
            for digest in self.digests(slot.commands):
                self.pending.discard(digest)

    def is_ordered(self, command_digest: bytes) -> bool:
        return command_digest in self.committed_commands or command_digest in self.in_flight

    # --- time --------------------------------------------------------------------------------------------------------

    def observe(self, now_ns: int) -> None:
        """See the clock, and stamp what came to be since it was last seen."""
        self.now_ns = now_ns if self.now_ns is None else max(self.now_ns, now_ns)
        self.pending.stamp(self.now_ns)
        for slot in self._unstamped:
            if slot.since_ns is None:
                slot.since_ns = self.now_ns
            if slot.resend_at_ns is None:
                slot.resend_at_ns = self.now_ns + self.config.resend_ns
        self._unstamped.clear()

    @property
    def unstamped(self) -> bool:
        return self.now_ns is None or bool(self._unstamped) or self.pending.unstamped

    def seen_ns(self) -> int:
        assert self.now_ns is not None, "step and tick see the clock first"
        return self.now_ns

    # --- effects -----------------------------------------------------------------------------------------------------

    def ignore(self, reason: str) -> None:
        self.ignored[reason] += 1

    def condemn(self, kind: str, sender: int, first: Promise | None, second: Promise) -> None:
        """``sender`` provably broke the protocol: count it, keep the proof."""
        self.ignore(kind)
        self.evidence.add(Evidence(kind, sender, second.sequence, first, second))

    def send_now(self, destination: int, message: Message) -> None:
        self.ready.send_now.append(Outgoing(destination, message))

    def digests(self, commands: Iterable[SignedCommand]) -> tuple[bytes, ...]:
        return tuple(command_digest(self.cluster_id, command) for command in commands)

    def check_invariants(self) -> None:
        for sequence, slot in self.slots.items():
            assert slot.sequence == sequence and not self.history.is_decided(sequence)
            assert self.executed < sequence <= self.high_mark
            assert all(len(ballots) <= len(self.voters) for ballots in slot.ballots.values())
        assert not self.history.is_decided(self.executed + 1)
        assert all(sequence in self.slots for sequence in self.in_flight.values())
        assert len(self.pending) <= self.config.pending_max
