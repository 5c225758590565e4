"""What the lane's log means: FRAME entries give frames their place, OUTCOME entries say what became of them.

Everything that ends up in the decision log is decided by the committed log alone, with the votes that stand in it, so
that every replica that has the log has the same decisions, whatever else it has seen or missed. A lying leader can
write nonsense into the log; it is counted, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from consensus.certificate import outcome_error
from consensus.context import ReplicaContext
from consensus.decisions import DecisionLog
from consensus.effects import FrameRecord
from consensus.frames import FrameTable
from consensus.raft.config import Role
from consensus.raft.core import Raft
from consensus.voting import Voting
from protocol.codes import EntryKind, Path
from protocol.errors import PeerViolation
from protocol.messages import Entry, Outcome, SignedCommand
from protocol.signing import command_digest

Find = Callable[[bytes, SignedCommand], FrameRecord | None]
"""The record of a frame, admitted if need be; None when the frame is refused, for reasons in its bytes alone."""


class Lane:
    def __init__(
        self,
        context: ReplicaContext,
        raft: Raft,
        frames: FrameTable,
        voting: Voting,
        decisions: DecisionLog,
        find: Find,
    ) -> None:
        self._context = context
        self._raft = raft
        self._frames = frames
        self._voting = voting
        self._decisions = decisions
        self._find = find
        self.unresolved: dict[int, bytes] = {}
        """Lane index -> digest of FRAME entries in our log whose OUTCOME is not committed."""
        self._adopted_index = 0
        self._applied_index = 0
        self._applied_term = 0
        self._outcomes_term = 0
        self._outcomes_proposed: set[int] = set()

    # --- the log as it is --------------------------------------------------------------------------------------------

    def propose(self, record: FrameRecord) -> None:
        """As leader, append the frame, once in a term however often it is asked for."""
        if record.position is not None or record.proposed_term == self._raft.term:
            return
        if self._raft.propose(EntryKind.FRAME, msgspec.msgpack.encode(record.command)) is not None:
            record.proposed_term = self._raft.term

    def adopt(self, entries: Sequence[Entry]) -> None:
        """Entries that entered our log, possibly over others that are gone."""
        if not entries:
            return
        if entries[0].index <= self._adopted_index:
            self._forget_from(entries[0].index)
        self._adopted_index = entries[-1].index
        for entry in entries:
            if entry.kind == EntryKind.FRAME:
                self._adopt_frame(entry)

    def _forget_from(self, first: int) -> None:
        for index in [index for index in self.unresolved if index >= first]:
            self._frames.ripe.pop(index, None)
            record = self._frames.records[self.unresolved.pop(index)]
            record.position, record.position_durable = None, False
            self._frames.unordered(record)

    def _adopt_frame(self, entry: Entry) -> None:
        try:
            command = msgspec.msgpack.decode(entry.payload, type=SignedCommand)
        except msgspec.MsgspecError:
            return self._context.ignore("entry_malformed")
        digest = command_digest(self._context.cluster_id, command)
        if digest in self._frames.places:
            return self._context.ignore("entry_frame_repeated")
        record = self._find(digest, command)
        if record is None or record.frame.path != Path.LANE:
            return self._context.ignore("entry_frame_refused")
        record.position, record.position_durable = (entry.term, entry.index), False
        record.submitted_ns = self._context.now_ns
        self._frames.ordered(record, entry.index)
        self.unresolved[entry.index] = digest
        return None

    def durable(self, entries: Sequence[Entry]) -> None:
        """These entries are on our disk: their frames may be voted on."""
        for entry in entries:
            digest = self.unresolved.get(entry.index)
            if digest is None:
                continue
            record = self._frames.records[digest]
            if record.position == (entry.term, entry.index):
                record.position_durable = True
                self._voting.cast(record)
                self._voting.settle(record)

    def outcomes_seen(self) -> set[int]:
        """Lane indices that some OUTCOME entry of our log, committed or not, is about."""
        seen: set[int] = set()
        for entry in self._raft.entries_from(1):
            if entry.kind == EntryKind.OUTCOME and (outcome := self._decode(entry)) is not None:
                seen.add(outcome.index)
        return seen

    # --- the log as it is committed ----------------------------------------------------------------------------------

    def apply(self, entry: Entry) -> None:
        """The next committed entry."""
        self._applied_index, self._applied_term = entry.index, entry.term
        if entry.kind != EntryKind.OUTCOME:
            return None
        outcome = self._decode(entry)
        if outcome is None:
            return self._context.ignore("entry_malformed")
        reason = self._objection(entry, outcome)
        if reason is not None:
            return self._context.ignore(reason)
        record = self._frames.records[self.unresolved.pop(outcome.index)]
        self._frames.ripe.pop(outcome.index, None)
        self._outcomes_proposed.discard(outcome.index)
        self._decisions.append_lane(outcome)
        self._voting.decide(record, outcome)
        return None

    def _decode(self, entry: Entry) -> Outcome | None:
        try:
            return self._context.bodies.decode_outcome(entry.payload)
        except PeerViolation:
            return None

    def _objection(self, entry: Entry, outcome: Outcome) -> str | None:
        """Why the OUTCOME decides nothing. Depends on the committed log alone, as does all below ``entry``."""
        if outcome.index >= entry.index or self.unresolved.get(outcome.index) != outcome.digest:
            return "outcome_of_no_open_frame"
        term = self._raft.log.term_at(outcome.index)
        if any(vote.term != term for vote in outcome.votes):
            return "outcome_of_another_term"
        context = self._context
        return outcome_error(
            outcome,
            context.cluster_id,
            len(self._frames.records[outcome.digest].frame.intents),
            context.quorum.size,
            context.quorum.denial,
            context.voters,
            context.keys.verify,
        )

    def write_outcomes(self) -> None:
        """As leader, put the outcome of every settled and committed frame into the log, once in a term.

        Not before an entry of our own term is applied: until then outcomes of older leaders may be on their way.
        """
        if self._raft.role is not Role.LEADER or self._applied_term != self._raft.term:
            return
        if self._outcomes_term != self._raft.term:
            self._outcomes_term = self._raft.term
            self._outcomes_proposed.clear()
        for index, digest in self._frames.ripe.items():
            if index <= self._applied_index and index not in self._outcomes_proposed:
                outcome = self._voting.outcome(self._frames.records[digest])
                if self._raft.propose(EntryKind.OUTCOME, self._context.bodies.encode_outcome(outcome)) is not None:
                    self._outcomes_proposed.add(index)
