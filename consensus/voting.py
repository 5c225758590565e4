"""Risk votes of one replica: its own, given once and for ever, and those of the others, which settle frames."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

import msgspec

from consensus.certificate import Certificate, VoteBook, settle, sign_vote, vote_error
from consensus.context import ReplicaContext
from consensus.effects import Debit, FrameRecord, FrameSettled, Verdict
from consensus.frames import FRAME_PATIENCE_NS, FRAMES_KEPT_MAX, FrameTable
from consensus.machine import BROADCAST, Outgoing, VoteCast
from consensus.pbft.catchup import PeerBudget
from protocol.codes import DenyCode, Path
from protocol.messages import Denial, FrameVote, Outcome, Submit

Position = tuple[int, int]
"""(term, index)"""

Codes = tuple[int | None, ...]

NOWHERE: Final[Position] = (0, 0)
"""The position of a vote that is not bound to a lane entry: on the spine, and in a separate coordination round."""

ASK_AFTER_NS: Final = 250_000_000
"""Votes on a frame that stays open are asked for after this time, then after twice as long, and so on."""

ASK_BACKOFF_MAX: Final = 8

ASKS_PER_TICK: Final = 16
"""Frames whose votes one tick asks for. After a restart there may be thousands, and nobody waits for the oldest."""

ANSWERS_PER_PEER: Final = 512
"""Votes that one peer gets sent again within ``ASK_AFTER_NS``."""


class Voting:
    """``context.effects`` receives what there is to send, to record and to tell."""

    # Invariant: every open frame is in _due exactly once.

    def __init__(self, context: ReplicaContext, frames: FrameTable) -> None:
        self._context = context
        self._frames = frames
        quorum = context.quorum
        self.book = VoteBook(quorum.size, quorum.denial, context.voters, FRAMES_KEPT_MAX)
        self._answers = PeerBudget(ANSWERS_PER_PEER, ASK_AFTER_NS)
        self._due: list[tuple[int, int, FrameRecord]] = []
        self._scheduled_count = 0

    # --- our own -----------------------------------------------------------------------------------------------------

    def admit(self, record: FrameRecord) -> None:
        """A new frame: ask for the verdict, unless it was given in this life or another."""
        self._frames.add(record)
        record.verdict = self._frames.verdict(record.digest)
        if record.verdict is None:
            self._context.effects.verify.append(record)
        self.book.learn(record.frame.path, record.digest, len(record.frame.intents))
        if not self._context.restoring:
            self.schedule(record, ASK_AFTER_NS)

    def verdict(self, record: FrameRecord, denials: Sequence[Denial], debits: Sequence[Debit]) -> None:
        """What this replica says about the frame, for ever. What it approves on the lane is debited here and now."""
        codes = {denial.intent: denial.code for denial in denials}
        kept: list[Debit] = []
        sequences = record.frame.intents.array["sequence"].tolist()
        positions = {sequence: position for position, sequence in enumerate(sequences)}
        for debit in debits:
            position = positions[debit.intent]
            if position in codes:
                continue
            code = self._context.budget.debit(*msgspec.structs.astuple(debit))
            if code is DenyCode.APPROVED:
                kept.append(debit)
            else:
                codes[position] = code
        record.verdict = Verdict(tuple(sorted(codes.items())), tuple(kept))
        body = msgspec.msgpack.encode(record.verdict)
        self._frames.remember_verdict(record.digest, body)
        self._context.effects.records.append(VoteCast(record.frame.path, record.digest, body))
        self.cast(record)

    def cast(self, record: FrameRecord) -> None:
        """Vote wherever a vote is due and has not been given."""
        if record.verdict is None or self._context.restoring:
            return
        for position in _positions_due(record):
            if position not in record.cast:
                vote = self._signed(record.frame.path, record.digest, record.verdict, position)
                record.cast[position] = vote
                record.asked_count = 0
                self._send(BROADCAST, vote)
                self._context.effects.own_votes.append(vote)

    def _signed(self, path: int, digest: bytes, verdict: Verdict, position: Position) -> FrameVote:
        denials = tuple(Denial(intent, code) for intent, code in verdict.denials)
        unsigned = FrameVote(self._context.own, path, *position, digest, denials, b"")
        return sign_vote(self._context.cluster_id, unsigned, self._context.keys.sign)

    def _send(self, destination: int, vote: FrameVote) -> None:
        """Behind the record of its verdict, which stands in this drain or in an earlier one."""
        self._context.effects.send_after_sync.append(Outgoing(destination, vote))

    # --- what is missing ---------------------------------------------------------------------------------------------

    def schedule(self, record: FrameRecord, delay_ns: int) -> None:
        """Look at an open frame again after ``delay_ns``."""
        self._scheduled_count += 1
        heapq.heappush(self._due, (self._context.now_ns + delay_ns, self._scheduled_count, record))

    def tick(self) -> None:
        """Ask for the votes on open frames, and forget frames that their authors gave up."""
        asked = 0
        while asked < ASKS_PER_TICK and self._due and self._due[0][0] <= self._context.now_ns:
            _, _, record = heapq.heappop(self._due)
            if not self._frames.is_open(record):
                continue
            if not record.ordered and self._context.now_ns - record.submitted_ns >= FRAME_PATIENCE_NS:
                self._frames.abandon(record)
                self._context.ignore("frame_abandoned")
                continue
            asked += self._ask(record)
            self.schedule(record, ASK_AFTER_NS * min(1 << min(record.asked_count, 30), ASK_BACKOFF_MAX))

    def _ask(self, record: FrameRecord) -> bool:
        """Ask the peers for their votes, by the message that asks for a vote in the first place. True when it was done.

        A vote leaves unasked only once. Whoever misses one asks, so those who know everything may be silent, and no
        two replicas can answer each other for ever.
        """
        self.cast(record)
        coordinates = record.votes_nowhere and not record.coordinated_codes
        if not record.ordered and not (coordinates and record.command.author == self._context.own):
            return False
        record.asked_count += 1
        ask = Submit(record.frame.path, False, record.command)
        self._context.effects.send_now.append(Outgoing(BROADCAST, ask))
        for position in _positions_due(record):
            own = record.cast.get(position)
            if own is not None and not self.book.knows(own):  # the book may have forgotten an old frame
                self._context.effects.own_votes.append(own)
        return True

    def answer(self, peer: int, record: FrameRecord) -> None:
        """A peer asks for our votes on a frame."""
        for position in _positions_due(record):
            vote = record.cast.get(position)
            if vote is not None:
                self._send_again(peer, vote)

    def answer_forgotten(self, peer: int, path: int, digest: bytes) -> None:
        """A peer asks about a frame that was closed so long ago that only our verdict is left."""
        verdict = self._frames.verdict(digest)
        if verdict is not None and path == Path.SPINE:  # on the lane the log has told the outcome
            self._send_again(peer, self._signed(path, digest, verdict, NOWHERE))

    def _send_again(self, peer: int, vote: FrameVote) -> None:
        if self._answers.spend(peer, self._context.now_ns):
            self._send(peer, vote)
        else:
            self._context.ignore("answers_exhausted")

    # --- everybody's -------------------------------------------------------------------------------------------------

    def on_vote(self, sender: int, vote: FrameVote) -> None:
        context = self._context
        if vote.replica != sender:
            return context.ignore("vote_sender_mismatch")
        if self.book.knows(vote):
            return context.ignore("vote_repeated")
        reason = vote_error(context.cluster_id, vote, context.voters, context.keys.verify)
        if reason is not None:
            return context.ignore(reason)
        return self.count(vote)

    def count(self, vote: FrameVote) -> None:
        """A vote whose signature holds, or our own, which is durable."""
        record = self._frames.records.get(vote.digest)
        self.book.add(vote, len(record.frame.intents) if record is not None else None)
        if record is not None:
            self.settle(record)

    def settle(self, record: FrameRecord) -> None:
        """Look at the votes again; tell the shell of every intent whose outcome became known."""
        if record.votes_nowhere and not record.coordinated_codes:
            early, _ = self._counted(record, NOWHERE)
            if None not in early:
                record.coordinated_codes = early
                self._context.effects.coordinated.append(record)
        if not record.ordered or record.decided:
            return
        codes, certificate = self._counted(record, record.position or NOWHERE)
        if record.position is not None and None not in codes:
            self._frames.ripe[record.position[1]] = record.digest
        self._conclude(record, codes, certificate)

    def decide(self, record: FrameRecord, outcome: Outcome) -> None:
        """A valid OUTCOME is committed: it says what became of the frame, whichever votes have come here."""
        for vote in outcome.votes:
            self.book.add(vote, len(record.frame.intents))  # one that contradicts what we hold is evidence
        term = outcome.votes[0].term
        record.decided = True
        certificate = Certificate(Path.LANE, outcome.digest, term, outcome.index, outcome.votes)
        self._conclude(record, outcome.codes, certificate)

    def outcome(self, record: FrameRecord) -> Outcome:
        """The outcome of a ripe frame at its present position in the lane, with its evidence."""
        assert record.position is not None
        codes, certificate = self._counted(record, record.position)
        known = tuple(code for code in codes if code is not None)
        assert len(known) == len(codes), "ripe means settled at this position"
        return Outcome(record.position[1], record.digest, known, certificate.votes)

    def _counted(self, record: FrameRecord, position: Position) -> tuple[Codes, Certificate]:
        path, (term, index) = record.frame.path, position
        votes = self.book.votes(path, record.digest, term, index)
        codes = settle(votes, len(record.frame.intents), self._context.quorum.size, self._context.quorum.denial)
        return codes, Certificate(path, record.digest, term, index, votes)

    def _conclude(self, record: FrameRecord, codes: Codes, certificate: Certificate) -> None:
        known = _merged(record.codes, codes)
        if known != record.codes and any(code is not None for code in known):
            record.codes = known
            self._context.effects.settled.append(FrameSettled(record, codes, certificate))
        if record.closed:
            self._frames.close(record)


def _positions_due(record: FrameRecord) -> tuple[Position, ...]:
    nowhere = (NOWHERE,) if record.votes_nowhere else ()
    here = (record.position,) if record.position is not None and record.position_durable else ()
    return (*nowhere, *here)


def _merged(known: Codes, codes: Codes) -> Codes:
    """An approval is proven for ever, since its certificate exists; apart from that the latest word counts."""
    if not known:
        return codes
    return tuple(
        before if before == DenyCode.APPROVED or now is None else now for before, now in zip(known, codes, strict=True)
    )
