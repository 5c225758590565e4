"""One voter of the swarm, pure: the lane (Raft), the spine (PBFT) and the risk votes that authorise what they order.

Order and authority are two things here. The lane or the spine gives a frame its place and makes it durable; what lets
an intent be released is its *certificate*, q signed votes of replicas that checked it themselves. On the lane the vote
is also the acknowledgement of the durable entry, so coordination costs no round of its own.

A frame passes through: ``submit`` -> signature and shape checked here -> ``effects.verify`` asks the shell for the
risk verdict -> ``verdict`` -> the vote leaves once it, and on the lane the entry, is durable -> votes of the others
arrive by ``step`` -> ``effects.settled``. The lane's leader then writes an OUTCOME entry with the votes, so that every
log carries the same decision with its evidence.

After a restart the log and the slots are read again, and ``effects.settled`` tells of every frame in them once more. A
replica that was away learns the lane's outcomes from the log. Votes that it misses it asks for, with the frame itself
in a ``Submit`` that proposes nothing; the others answer with the votes that they gave, however long ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from consensus.budget import BudgetBook
from consensus.certificate import VoteBook
from consensus.context import ReplicaContext
from consensus.decisions import DecisionLog
from consensus.effects import Bodies, Debit, Effects, FrameRecord, ReplicaKeys, Verdict, join, merge
from consensus.frames import FrameTable
from consensus.lane import Lane
from consensus.machine import LogAppend, VoteCast
from consensus.pbft.core import Pbft
from consensus.quorum import Quorum
from consensus.raft.admission import RAFT_MESSAGES
from consensus.raft.core import Raft
from consensus.voting import ASK_AFTER_NS, Voting
from protocol.codes import CommandKind, Path
from protocol.errors import PeerViolation
from protocol.messages import (
    Commit,
    CommittedSlot,
    Denial,
    Frame,
    FrameVote,
    Message,
    Prepare,
    PrePrepare,
    SignedCommand,
    SlotReply,
    SlotRequest,
    Submit,
)
from protocol.signing import command_digest

PBFT_MESSAGES: Final = (PrePrepare, Prepare, Commit, SlotRequest, SlotReply)

REPLICA_MESSAGES: Final = frozenset({*RAFT_MESSAGES, *PBFT_MESSAGES, FrameVote, Submit})
"""Everything that ``Replica.step`` takes."""

INTENTS_PER_FRAME_MAX: Final = 64
"""A frame is one signature over at most this many intents; more would let one author own the verifiers' time."""

LOG_PATIENCE_NS: Final = 4 * ASK_AFTER_NS
"""After a restart, a frame whose OUTCOME stands in the log gets so long to have it committed before we vote again."""


class Replica:
    """Combines both machines and the votes. Inputs: ``submit``, ``step``, ``verdict``, ``tick``, ``persisted``.

    ``slots`` are the executed slots from sequence 1 on, ``cast_before`` the verdicts in the order in which they were
    given. Call ``restored`` once before anything else. Raises ``RunFailure`` when debits exceed grants.
    """

    def __init__(
        self,
        own: int,
        voters: tuple[int, ...],
        quorum: Quorum,
        cluster_id: bytes,
        raft: Raft,
        pbft: Pbft,
        keys: ReplicaKeys,
        bodies: Bodies,
        budget: BudgetBook,
        slots: Sequence[CommittedSlot] = (),
        cast_before: Sequence[VoteCast] = (),
    ) -> None:
        self.own = own
        self.voters = voters
        self.quorum = quorum
        self.cluster_id = cluster_id
        self.raft = raft
        self.pbft = pbft
        self.budget = budget
        self.decisions = DecisionLog()
        self._context = ReplicaContext(own, voters, quorum, cluster_id, keys, bodies, budget)
        self._table = FrameTable()
        self._voting = Voting(self._context, self._table)
        self._lane = Lane(self._context, raft, self._table, self._voting, self.decisions, self._find)
        self._restore(slots, cast_before)

    @property
    def frames(self) -> dict[bytes, FrameRecord]:
        """By digest: every open frame, and the last few thousand closed ones."""
        return self._table.records

    @property
    def votes(self) -> VoteBook:
        return self._voting.book

    @property
    def unresolved(self) -> dict[int, bytes]:
        """Lane index -> digest of FRAME entries in our log whose OUTCOME is not committed."""
        return self._lane.unresolved

    @property
    def ignored(self) -> dict[str, int]:
        return dict(self._context.ignored)

    # --- restart -----------------------------------------------------------------------------------------------------

    def _restore(self, slots: Sequence[CommittedSlot], cast_before: Sequence[VoteCast]) -> None:
        """Grants first, then the debits that were signed under them, then the lane's frames."""
        for cast in cast_before:
            self._table.remember_verdict(cast.digest, cast.body)
        for slot in slots:
            self._apply_slot(slot)
        for cast in cast_before:
            for debit in msgspec.msgpack.decode(cast.body, type=Verdict).debits:
                self.budget.restore_debit(*msgspec.structs.astuple(debit))
        entries = self.raft.entries_from(1)
        self._lane.adopt(entries)
        self._lane.durable(entries)

    def restored(self, now_ns: int) -> None:
        """The clock runs. Frames that are still open are voted on in their order, a few with every tick."""
        self._context.now_ns = now_ns
        self._context.restoring = False
        seen = self._lane.outcomes_seen()
        for record in self.frames.values():
            record.opened_ns = record.submitted_ns = now_ns
            decided_soon = record.position is not None and record.position[1] in seen
            self._voting.schedule(record, LOG_PATIENCE_NS if decided_soon else 0)

    # --- inputs ------------------------------------------------------------------------------------------------------

    def submit(self, sender: int, submit: Submit, now_ns: int) -> None:
        """A command from its author: verify it, and put it in order if this replica is the one who does.

        With ``propose`` false, also any voter's question for our votes on a frame that we know.
        """
        self._context.now_ns = now_ns
        command = submit.command
        if command.kind == CommandKind.FRAME:
            return self._submit_frame(sender, submit)
        if command.kind == CommandKind.SLICE_GRANT and submit.path == Path.SPINE and submit.propose:
            return self.pbft.submit(command)
        return self._ignore("submit_kind_or_path")

    def _submit_frame(self, sender: int, submit: Submit) -> None:
        command = submit.command
        digest = command_digest(self.cluster_id, command)
        record = self.frames.get(digest)
        if record is None and digest in self._table.places:
            return self._submit_forgotten(sender, submit, digest)
        by_author = sender == command.author
        if not by_author and submit.path != Path.SPINE and (submit.propose or record is None):
            return self._ignore("submit_author_mismatch")  # backups relay to the primary, the lane knows none
        if record is None and not self._table.has_room(command.author):
            return self._ignore("frames_waiting_limit")
        record = record or self._find(digest, command)
        if record is None:
            return None
        if record.frame.path != submit.path:
            return self._ignore("submit_path_mismatch")
        if not submit.propose and sender != self.own:
            self._voting.answer(sender, record)
        if not record.closed:
            self._take_up(record, by_author, submit.propose)
        return None

    def _submit_forgotten(self, sender: int, submit: Submit, digest: bytes) -> None:
        if submit.propose:
            return self._ignore("frame_closed_long_ago")
        return self._voting.answer_forgotten(sender, submit.path, digest)

    def _take_up(self, record: FrameRecord, by_author: bool, propose: bool) -> None:
        on_spine = record.frame.path == Path.SPINE
        record.submitted_ns = self._context.now_ns
        if on_spine or (by_author and not propose):
            record.votes_nowhere = True
            self._voting.cast(record)
        if propose:
            self.pbft.submit(record.command) if on_spine else self._lane.propose(record)

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """Any consensus message of another voter."""
        self._context.now_ns = now_ns
        if isinstance(message, RAFT_MESSAGES):
            self.raft.step(sender, message, now_ns)
        elif isinstance(message, PBFT_MESSAGES):
            self.pbft.step(sender, message, now_ns)
        elif isinstance(message, FrameVote):
            self._voting.on_vote(sender, message)
        elif isinstance(message, Submit):
            self.submit(sender, message, now_ns)
        else:
            self._ignore("message_not_for_replica")

    def verdict(self, digest: bytes, denials: Sequence[Denial], debits: Sequence[Debit], now_ns: int) -> None:
        """The shell's answer to ``effects.verify``. Approved intents of a lane frame are debited here and now."""
        self._context.now_ns = now_ns
        record = self.frames.get(digest)
        if record is not None and record.verdict is None:
            self._voting.verdict(record, denials, debits)

    def peer_connected(self, peer: int, now_ns: int) -> None:
        """A new connection to another voter stands; what was under way on the old one is lost."""
        self._context.now_ns = now_ns
        self.raft.peer_connected(peer, now_ns)

    def hand_over(self, now_ns: int) -> int | None:
        """This replica is about to stop: if it leads the lane, ask the best of the others to lead. Who that is."""
        self._context.now_ns = now_ns
        return self.raft.hand_over(now_ns)

    def tick(self, now_ns: int) -> None:
        self._context.now_ns = now_ns
        self.raft.tick(now_ns)
        self.pbft.tick(now_ns)
        self._voting.tick()

    def persisted(self, effects: Effects) -> None:
        """The records of ``effects`` are durable and its ``send_after_sync`` has left."""
        if effects.raft is not None:
            self.raft.persisted(effects.raft)
            for record in effects.raft.records:
                if isinstance(record, LogAppend):
                    self._lane.durable(record.entries)
        if effects.pbft is not None:
            self.pbft.persisted(effects.pbft)
        for vote in effects.own_votes:
            self._voting.count(vote)

    # --- outputs -----------------------------------------------------------------------------------------------------

    def take_ready(self) -> Effects:
        """Everything there is to do now."""
        effects = self._context.take_effects()
        raft_ready = self.raft.take_ready()
        if not raft_ready.empty:
            effects.raft = raft_ready
            for item in raft_ready.records:
                if isinstance(item, LogAppend):
                    self._lane.adopt(item.entries)
            for entry in raft_ready.committed_entries:
                self._lane.apply(entry)
            merge(effects, raft_ready)
        pbft_ready = self.pbft.take_ready()
        if not pbft_ready.empty:
            effects.pbft = pbft_ready
            for slot in pbft_ready.committed_slots:
                self._apply_slot(slot)
            merge(effects, pbft_ready)
        self._lane.write_outcomes()
        join(effects, self._context.take_effects())
        return effects

    def next_deadline_ns(self) -> int | None:
        deadlines = [at for at in (self.raft.next_deadline_ns(), self.pbft.next_deadline_ns()) if at is not None]
        return min(deadlines, default=None)

    # --- frames ------------------------------------------------------------------------------------------------------

    def _find(self, digest: bytes, command: SignedCommand) -> FrameRecord | None:
        """The frame's record, made if need be: signature and shape, cheap first; nothing is parsed before it is
        signed. Depends on the bytes alone, so that all replicas refuse the same."""
        record = self.frames.get(digest)
        if record is not None:
            return record
        if command.kind != CommandKind.FRAME:
            return self._refuse("command_no_frame")
        if not self._context.keys.verify(command.author, digest, command.signature):
            return self._refuse("command_signature_invalid")
        try:
            frame = self._context.bodies.decode_frame(command.body)
        except PeerViolation as violation:
            return self._refuse(violation.reason)
        reason = self._misshapen(frame, command)
        if reason is not None:
            return self._refuse(reason)
        now_ns = self._context.now_ns
        record = FrameRecord(digest, command, frame, now_ns, now_ns)
        self._voting.admit(record)
        return record

    def _misshapen(self, frame: Frame, command: SignedCommand) -> str | None:
        if frame.cluster_id != self.cluster_id:
            return "frame_of_another_cluster"
        if frame.trader != command.author:
            return "frame_trader_mismatch"
        if frame.path not in (Path.LANE, Path.SPINE):
            return "frame_path_unknown"
        if not 0 < len(frame.intents) <= INTENTS_PER_FRAME_MAX:
            return "frame_intent_count"
        if len(set(frame.intents.array["sequence"].tolist())) != len(frame.intents):
            return "frame_intent_repeated"
        if len(frame.windows) != frame.window_length * len(frame.claims) and len(frame.windows):
            return "frame_window_shape"
        return None

    # --- the spine ---------------------------------------------------------------------------------------------------

    def _apply_slot(self, slot: CommittedSlot) -> None:
        self.decisions.append_spine(slot)
        for command in slot.commands:
            if command.kind == CommandKind.SLICE_GRANT:
                self._apply_grant(command)
            elif command.kind == CommandKind.FRAME:
                self._apply_spine_frame(slot, command)

    def _apply_grant(self, command: SignedCommand) -> None:
        try:
            grant = self._context.bodies.decode_grant(command.body)
        except PeerViolation as violation:
            return self._ignore(violation.reason)
        refusal = self.budget.grant(grant)
        if refusal is not None:
            return self._ignore(f"grant_{refusal}")
        self._context.effects.grants.append(grant)
        return None

    def _apply_spine_frame(self, slot: CommittedSlot, command: SignedCommand) -> None:
        digest = command_digest(self.cluster_id, command)
        record = self._find(digest, command)
        if record is None or record.frame.path != Path.SPINE:
            return self._ignore("slot_frame_refused")
        record.slot = slot
        record.votes_nowhere = True
        record.submitted_ns = self._context.now_ns
        self._table.ordered(record, slot.sequence)
        self._voting.cast(record)
        self._voting.settle(record)
        return None

    # --- introspection -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """A picture for people and tests; plain values only."""
        return {
            "lane": self.raft.status(),
            "spine": self.pbft.status(),
            "decisions": self.decisions.summary(),
            "frames_open": self._table.open_count,
            "frames_kept": len(self.frames),
            "outcomes_pending": len(self.unresolved),
            "ignored": self.ignored,
        }

    def check_invariants(self) -> None:
        """For tests and simulation: raises ``AssertionError`` when the replica contradicts itself."""
        self.raft.check_invariants()
        self.pbft.check_invariants()
        self._table.check_invariants()
        assert self._table.ripe.keys() <= self.unresolved.keys()
        for index, digest in self.unresolved.items():
            record = self.frames[digest]
            assert record.position is not None and record.position[1] == index and not record.decided

    def _ignore(self, reason: str) -> None:
        self._context.ignore(reason)

    def _refuse(self, reason: str) -> FrameRecord | None:
        self._context.ignore(reason)
        return None
