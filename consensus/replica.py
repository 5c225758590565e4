"""One voter of the swarm, pure: the lane (Raft), the spine (PBFT) and the risk votes that authorise what they order.

Order and authority are two things here. The lane or the spine gives a frame its place and makes it durable; what lets
an intent be released is its *certificate*, q signed votes of replicas that checked it themselves. On the lane the vote
is also the acknowledgement of the durable entry, so coordination costs no round of its own.

A frame passes through: ``submit`` -> signature and shape checked here -> ``effects.verify`` asks the shell for the
risk verdict -> ``verdict`` -> the vote leaves once it, and on the lane the entry, is durable -> votes of the others
arrive by ``step`` -> ``effects.settled``. The lane's leader then writes an OUTCOME entry with the votes, so that every
log carries the same decision with its evidence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import msgspec

from consensus.budget import BudgetBook
from consensus.certificate import Certificate, VoteBook, outcome_error, settle, sign_vote, vote_error
from consensus.decisions import DecisionLog
from consensus.effects import Bodies, Debit, Effects, FrameRecord, FrameSettled, ReplicaKeys, Verdict, join, merge
from consensus.machine import BROADCAST, LogAppend, Outgoing, Ready, VoteCast
from consensus.pbft.core import Pbft
from consensus.quorum import Quorum
from consensus.raft.config import Role
from consensus.raft.core import Raft
from protocol.codes import CommandKind, DenyCode, EntryKind, Path
from protocol.errors import PeerViolation
from protocol.messages import (
    AppendEntries,
    AppendEntriesResponse,
    Commit,
    CommittedSlot,
    Denial,
    Entry,
    Frame,
    FrameVote,
    Message,
    Outcome,
    Prepare,
    PrePrepare,
    RequestVote,
    RequestVoteResponse,
    SignedCommand,
    SlotReply,
    SlotRequest,
    Submit,
)
from protocol.signing import command_digest

RAFT_MESSAGES: Final = (RequestVote, RequestVoteResponse, AppendEntries, AppendEntriesResponse)
PBFT_MESSAGES: Final = (PrePrepare, Prepare, Commit, SlotRequest, SlotReply)

REPLICA_MESSAGES: Final = frozenset({*RAFT_MESSAGES, *PBFT_MESSAGES, FrameVote, Submit})
"""Everything that ``Replica.step`` takes."""

INTENTS_PER_FRAME_MAX: Final = 64
"""A frame is one signature over at most this many intents; more would let one author own the verifiers' time."""

FRAMES_OPEN_MAX: Final = 1024
"""Frames that may await their outcome; beyond it a new submission is refused, not queued."""

FRAMES_KEPT_MAX: Final = 4096
"""Settled frames kept for late votes and repeated submissions."""

VOTE_RESEND_NS: Final = 250_000_000
"""Votes on frames that stay unsettled are repeated this often; receivers know them by their content."""

NOWHERE: Final = (0, 0)
"""The position of a vote that is not bound to a lane entry: on the spine, and in a separate coordination round."""


class Replica:
    """Combines both machines and the votes. Inputs: ``submit``, ``step``, ``verdict``, ``tick``, ``persisted``."""

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
        self.votes = VoteBook(quorum.size, quorum.denial, voters, FRAMES_KEPT_MAX)
        self.frames: dict[bytes, FrameRecord] = {}
        self.unresolved: dict[int, bytes] = {}
        """Lane index -> digest of FRAME entries in our log that have no OUTCOME entry yet."""
        self.ignored: Counter[str] = Counter()
        self._keys = keys
        self._bodies = bodies
        self._restored = {
            (cast.path, cast.digest): msgspec.msgpack.decode(cast.body, type=Verdict) for cast in cast_before
        }
        self._effects = Effects(Ready())
        self._committed_index = 0
        self._proposed_outcomes: dict[int, int] = {}
        """Lane index -> term in which we, as leader, proposed its outcome."""
        self._now_ns = 0
        self._restore(slots)

    # --- inputs ------------------------------------------------------------------------------------------------------

    def submit(self, sender: int, submit: Submit, now_ns: int) -> None:
        """A command from its author: verify it, and put it in order if this replica is the one who does."""
        self._now_ns = now_ns
        command = submit.command
        if sender != command.author and submit.path != Path.SPINE:  # backups relay to the primary, the lane knows none
            return self._ignore("submit_author_mismatch")
        digest = command_digest(self.cluster_id, command)
        if command.kind == CommandKind.SLICE_GRANT:
            if submit.path == Path.SPINE and submit.propose:
                self.pbft.submit(command)
            return None
        record = self.frames.get(digest) or self._admit_submission(digest, command)
        if record is None:
            return None
        if record.frame.path != submit.path:
            return self._ignore("submit_path_mismatch")
        if submit.path == Path.SPINE or not submit.propose:
            record.votes_nowhere = True
            self._cast(record)
        if submit.propose:
            self._propose(record)
        return None

    def step(self, sender: int, message: Message, now_ns: int) -> None:
        """Any consensus message of another voter."""
        self._now_ns = now_ns
        if isinstance(message, RAFT_MESSAGES):
            self.raft.step(sender, message, now_ns)
        elif isinstance(message, PBFT_MESSAGES):
            self.pbft.step(sender, message, now_ns)
        elif isinstance(message, FrameVote):
            self._on_vote(sender, message)
        elif isinstance(message, Submit):
            self.submit(sender, message, now_ns)
        else:
            self._ignore("message_not_for_replica")

    def verdict(self, digest: bytes, denials: Sequence[Denial], debits: Sequence[Debit], now_ns: int) -> None:
        """The shell's answer to ``effects.verify``. Approved intents of a lane frame are debited here and now."""
        self._now_ns = now_ns
        record = self.frames.get(digest)
        if record is None or record.verdict is not None:
            return
        codes = {denial.intent: denial.code for denial in denials}
        kept: list[Debit] = []
        positions = {intent.sequence: position for position, intent in enumerate(record.frame.intents)}
        for debit in debits:
            position = positions[debit.intent]
            if position in codes:
                continue
            code = self.budget.debit(*msgspec.structs.astuple(debit))
            if code is DenyCode.APPROVED:
                kept.append(debit)
            else:
                codes[position] = code
        record.verdict = Verdict(tuple(sorted(codes.items())), tuple(kept))
        self._cast(record)

    def tick(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self.raft.tick(now_ns)
        self.pbft.tick(now_ns)
        self._repeat_votes()
        self._write_outcomes()

    def persisted(self, effects: Effects) -> None:
        """The records of ``effects`` are durable and its ``send_after_sync`` has left."""
        if effects.raft is not None:
            self.raft.persisted(effects.raft)
            for record in effects.raft.records:
                if isinstance(record, LogAppend):
                    self._entries_durable(record.entries)
        if effects.pbft is not None:
            self.pbft.persisted(effects.pbft)
        for vote in effects.own_votes:
            self._count(vote)

    def take_ready(self) -> Effects:
        """Everything there is to do now."""
        effects, self._effects = self._effects, Effects(Ready())
        raft_ready = self.raft.take_ready()
        if not raft_ready.empty:
            effects.raft = raft_ready
            for item in raft_ready.records:
                if isinstance(item, LogAppend):
                    self._adopt_log(item.entries)
            for entry in raft_ready.committed_entries:
                self._apply_entry(entry)
            merge(effects.ready, raft_ready)
        pbft_ready = self.pbft.take_ready()
        if not pbft_ready.empty:
            effects.pbft = pbft_ready
            for slot in pbft_ready.committed_slots:
                self._apply_slot(slot)
            merge(effects.ready, pbft_ready)
        self._write_outcomes()
        join(effects, self._effects)
        self._effects = Effects(Ready())
        return effects

    def next_deadline_ns(self) -> int | None:
        deadlines = [at for at in (self.raft.next_deadline_ns(), self.pbft.next_deadline_ns()) if at is not None]
        return min(deadlines, default=None)

    def _restore(self, slots: Sequence[CommittedSlot]) -> None:
        """Grants first, then the debits that were signed under them, then the lane's frames."""
        for slot in slots:
            self._apply_slot(slot)
        for verdict in self._restored.values():
            for debit in verdict.debits:
                self.budget.restore_debit(*msgspec.structs.astuple(debit))
        self._adopt_log(self.raft.entries_from(1))

    # --- frames ------------------------------------------------------------------------------------------------------

    def _admit_submission(self, digest: bytes, command: SignedCommand) -> FrameRecord | None:
        """What is in the log must be admitted; what an author sends only as far as there is room."""
        if sum(not record.settled for record in self.frames.values()) >= FRAMES_OPEN_MAX:
            return self._refuse("frames_open_limit")
        return self._admit(digest, command)

    def _admit(self, digest: bytes, command: SignedCommand) -> FrameRecord | None:
        """Check signature and shape, cheap first, and ask for the verdict. Nothing is parsed before it is signed."""
        if not self._keys.verify(command.author, digest, command.signature):
            return self._refuse("command_signature_invalid")
        try:
            frame = self._bodies.decode_frame(command.body)
        except PeerViolation as violation:
            return self._refuse(violation.reason)
        reason = self._misshapen(frame, command)
        if reason is not None:
            return self._refuse(reason)
        record = FrameRecord(digest, command, frame, self._now_ns)
        self._evict()
        self.frames[digest] = record
        record.verdict = self._restored.get((frame.path, digest))
        if record.verdict is None:
            self._effects.verify.append(record)
        else:
            record.verdict_durable = True
        self.votes.learn(frame.path, digest, len(frame.intents))
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
        if len({intent.sequence for intent in frame.intents}) != len(frame.intents):
            return "frame_intent_repeated"
        return None

    def _propose(self, record: FrameRecord) -> None:
        if record.frame.path == Path.SPINE:
            self.pbft.submit(record.command)
        elif record.position is None:
            self.raft.propose(EntryKind.FRAME, msgspec.msgpack.encode(record.command))

    def _evict(self) -> None:
        if len(self.frames) < FRAMES_KEPT_MAX:
            return
        oldest = next((digest for digest, record in self.frames.items() if record.settled), None)
        if oldest is not None:
            del self.frames[oldest]

    # --- votes -------------------------------------------------------------------------------------------------------

    def _cast(self, record: FrameRecord) -> None:
        """Vote wherever a vote is due and has not been given."""
        if record.verdict is None:
            return
        if record.votes_nowhere and NOWHERE not in record.cast:
            self._vote(record, NOWHERE)
        if record.position is not None and record.position_durable and record.position not in record.cast:
            self._vote(record, record.position)

    def _vote(self, record: FrameRecord, position: tuple[int, int]) -> None:
        assert record.verdict is not None
        record.cast.add(position)
        record.last_vote_ns = self._now_ns
        vote = self._signed_vote(record, position)
        if not record.verdict_durable:
            body = msgspec.msgpack.encode(record.verdict)
            self._effects.ready.records.append(VoteCast(record.frame.path, record.digest, body))
            record.verdict_durable = True
        self._effects.ready.send_after_sync.append(Outgoing(BROADCAST, vote))
        self._effects.own_votes.append(vote)

    def _signed_vote(self, record: FrameRecord, position: tuple[int, int]) -> FrameVote:
        assert record.verdict is not None
        denials = tuple(Denial(intent, code) for intent, code in record.verdict.denials)
        term, index = position
        unsigned = FrameVote(self.own, record.frame.path, term, index, record.digest, denials, b"")
        return sign_vote(self.cluster_id, unsigned, self._keys.sign)

    def _on_vote(self, sender: int, vote: FrameVote) -> None:
        if vote.replica != sender:
            return self._ignore("vote_sender_mismatch")
        if self.votes.knows(vote):
            return None
        reason = vote_error(self.cluster_id, vote, self.voters, self._keys.verify)
        if reason is not None:
            return self._ignore(reason)
        self._count(vote)
        return None

    def _count(self, vote: FrameVote) -> None:
        record = self.frames.get(vote.digest)
        self.votes.add(vote, len(record.frame.intents) if record is not None else None)
        if record is not None:
            self._settle(record)

    def _settle(self, record: FrameRecord) -> None:
        """Look at the votes again; tell the shell of every intent whose outcome became known."""
        if record.votes_nowhere and not record.coordinated_codes:
            early, _ = self._codes(record, NOWHERE)
            if None not in early:
                record.coordinated_codes = early
                self._effects.coordinated.append(record)
        if record.frame.path == Path.SPINE and record.slot is None:
            return
        position = NOWHERE if record.frame.path == Path.SPINE else record.position
        if position is None:
            return
        codes, certificate = self._codes(record, position)
        if codes == record.codes or all(code is None for code in codes):
            return
        record.codes = codes
        self._effects.settled.append(FrameSettled(record, codes, certificate))

    def _codes(self, record: FrameRecord, position: tuple[int, int]) -> tuple[tuple[int | None, ...], Certificate]:
        path, (term, index) = record.frame.path, position
        votes = self.votes.votes(path, record.digest, term, index)
        codes = settle(votes, len(record.frame.intents), self.quorum.size, self.quorum.denial)
        return codes, Certificate(path, record.digest, term, index, votes)

    def _repeat_votes(self) -> None:
        for record in self.frames.values():
            if record.settled or not record.cast or self._now_ns - record.last_vote_ns < VOTE_RESEND_NS:
                continue
            record.last_vote_ns = self._now_ns
            for position in record.cast:
                vote = self._signed_vote(record, position)
                self._effects.ready.send_after_sync.append(Outgoing(BROADCAST, vote))

    # --- the lane ----------------------------------------------------------------------------------------------------

    def _adopt_log(self, entries: Sequence[Entry]) -> None:
        """Entries that entered our log, possibly over others that are gone."""
        if not entries:
            return
        first = entries[0].index
        for index in [index for index in self.unresolved if index >= first]:
            lost = self.frames.get(self.unresolved.pop(index))
            if lost is not None:
                lost.position, lost.position_durable = None, False
        for entry in entries:
            if entry.kind == EntryKind.FRAME:
                self._adopt_frame(entry)
            elif entry.kind == EntryKind.OUTCOME:
                self._adopt_outcome(entry)

    def _adopt_frame(self, entry: Entry) -> None:
        try:
            command = msgspec.msgpack.decode(entry.payload, type=SignedCommand)
        except msgspec.DecodeError:
            return self._ignore("entry_malformed")
        digest = command_digest(self.cluster_id, command)
        record = self.frames.get(digest) or self._admit(digest, command)
        if record is None or record.frame.path != Path.LANE:
            return self._ignore("entry_frame_refused")
        record.position, record.position_durable = (entry.term, entry.index), False
        self.unresolved[entry.index] = digest
        return None

    def _adopt_outcome(self, entry: Entry) -> None:
        try:
            outcome = self._bodies.decode_outcome(entry.payload)
        except PeerViolation:
            return self._ignore("entry_malformed")
        self.unresolved.pop(outcome.index, None)
        return None

    def _entries_durable(self, entries: Sequence[Entry]) -> None:
        for entry in entries:
            digest = self.unresolved.get(entry.index)
            record = self.frames.get(digest) if digest is not None else None
            if record is not None and record.position == (entry.term, entry.index):
                record.position_durable = True
                self._cast(record)
                self._settle(record)

    def restored(self) -> None:
        """The log given at construction is durable already: vote on what is still open in it."""
        self._entries_durable(self.raft.entries_from(1))

    def _apply_entry(self, entry: Entry) -> None:
        self._committed_index = entry.index
        if entry.kind != EntryKind.OUTCOME:
            return None
        try:
            outcome = self._bodies.decode_outcome(entry.payload)
        except PeerViolation:
            return self._ignore("entry_malformed")
        record = self.frames.get(outcome.digest)
        if record is None:
            return self._ignore("outcome_of_unknown_frame")
        reason = outcome_error(
            outcome,
            self.cluster_id,
            len(record.frame.intents),
            self.quorum.size,
            self.quorum.denial,
            self.voters,
            self._keys.verify,
        )
        if reason is not None:
            return self._ignore(reason)
        self.decisions.append_lane(outcome)
        for vote in outcome.votes:
            if not self.votes.knows(vote):
                self._count(vote)
        return None

    def _write_outcomes(self) -> None:
        """As leader, put the outcome of every settled and committed frame into the log."""
        if self.raft.role is not Role.LEADER:
            return
        for index, digest in list(self.unresolved.items()):
            record = self.frames.get(digest)
            if record is None or not record.settled or index > self._committed_index:
                continue
            if self._proposed_outcomes.get(index) == self.raft.term:
                continue
            assert record.position is not None
            votes = self.votes.votes(record.frame.path, digest, *record.position)
            codes = tuple(int(code or 0) for code in record.codes)
            payload = self._bodies.encode_outcome(Outcome(index, digest, codes, votes))
            if self.raft.propose(EntryKind.OUTCOME, payload) is not None:
                self._proposed_outcomes[index] = self.raft.term

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
            grant = self._bodies.decode_grant(command.body)
        except PeerViolation as violation:
            return self._ignore(violation.reason)
        refusal = self.budget.grant(grant)
        if refusal is not None:
            return self._ignore(f"grant_{refusal}")
        self._effects.grants.append(grant)
        return None

    def _apply_spine_frame(self, slot: CommittedSlot, command: SignedCommand) -> None:
        digest = command_digest(self.cluster_id, command)
        record = self.frames.get(digest) or self._admit(digest, command)
        if record is None or record.frame.path != Path.SPINE:
            return self._ignore("slot_frame_refused")
        record.slot = slot
        record.votes_nowhere = True
        self._cast(record)
        self._settle(record)
        return None

    # --- introspection -----------------------------------------------------------------------------------------------

    def status(self) -> dict[str, object]:
        """A picture for people and tests; plain values only."""
        return {
            "lane": self.raft.status(),
            "spine": self.pbft.status(),
            "decisions": self.decisions.summary(),
            "frames_open": sum(not record.settled for record in self.frames.values()),
            "outcomes_pending": len(self.unresolved),
            "ignored": dict(self.ignored),
        }

    def _ignore(self, reason: str) -> None:
        self.ignored[reason] += 1

    def _refuse(self, reason: str) -> FrameRecord | None:
        self.ignored[reason] += 1
        return None
