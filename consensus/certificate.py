"""Risk votes and what they prove: the settlement of a frame, and the certificate that a gate or an auditor re-checks.

A replica signs one ``FrameVote`` per frame and position. On the lane the position is the entry's (term, index), and a
vote is the append acknowledgement too; everywhere else it is (0, 0). An intent is approved by ``q`` votes for ONE
position that do not deny it, and denied by ``n - q + 1`` votes that do: from then on no honest count can approve it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from protocol.codes import DenyCode, Path
from protocol.messages import FrameVote, Outcome
from protocol.signing import vote_bytes

Sign = Callable[[bytes], bytes]
"""Our own key: bytes to signature."""
Verify = Callable[[int, bytes, bytes], bool]
"""(roster position, bytes, signature): does that agent stand for these bytes?"""
Position = tuple[int, int]
"""(term, index)"""

DIGEST_BYTES: Final = 32
INTENTS_MAX: Final = 64
"""No replica admits a larger frame, so no vote can deny an intent beyond it."""
POSITIONS_PER_REPLICA: Final = 8
"""Lane positions of one frame that one replica may vote for. Each costs a change of leader; a frame expires sooner."""
NOWHERE: Final[Position] = (0, 0)


# --- one vote --------------------------------------------------------------------------------------------------------


def sign_vote(cluster_id: bytes, vote: FrameVote, sign: Sign) -> FrameVote:
    """``vote`` with its signature filled in; whatever stood there is ignored."""
    return replace(vote, signature=sign(vote_bytes(cluster_id, vote)))


def vote_error(cluster_id: bytes, vote: FrameVote, voters: Sequence[int], verify: Verify) -> str | None:
    """Why this vote must not be counted, as a countable label, or None. The signature is looked at last."""
    if (reason := _shape_error(vote, voters)) is not None:
        return reason
    if not verify(vote.replica, vote_bytes(cluster_id, vote), vote.signature):
        return "vote_signature_invalid"
    return None


def _shape_error(vote: FrameVote, voters: Sequence[int]) -> str | None:
    if vote.replica not in voters:
        return "vote_of_a_stranger"
    if vote.path not in (Path.LANE, Path.SPINE):
        return "vote_path_unknown"
    if len(vote.digest) != DIGEST_BYTES:
        return "vote_digest_malformed"
    if (vote.term == 0) != (vote.index == 0) or (vote.path == Path.SPINE and vote.index != 0):
        return "vote_position_malformed"
    if any(denial.code == DenyCode.APPROVED or denial.intent >= INTENTS_MAX for denial in vote.denials):
        return "vote_denial_malformed"
    # One spelling of each verdict, or two equal verdicts would look like a contradiction.
    if any(first.intent >= second.intent for first, second in pairwise(vote.denials)):
        return "vote_denials_out_of_order"
    return None


def denies(vote: FrameVote, intent: int) -> int:
    """The code with which ``vote`` denies the intent at this position of the frame; 0 when it approves."""
    return next((denial.code for denial in vote.denials if denial.intent == intent), DenyCode.APPROVED)


# --- many votes ------------------------------------------------------------------------------------------------------


def settle(votes: Iterable[FrameVote], intent_count: int, quorum_size: int, denial_size: int) -> tuple[int | None, ...]:
    """Per intent: 0 approved, a ``DenyCode`` denied, None open. A pure function of one position's votes.

    The code is the one named most often, ties to the smallest. More votes may change which code that is; they never
    turn approved, denied and open round.
    """
    counted = tuple(votes)
    return tuple(_settle_intent(counted, intent, quorum_size, denial_size) for intent in range(intent_count))


def _settle_intent(votes: tuple[FrameVote, ...], intent: int, quorum_size: int, denial_size: int) -> int | None:
    codes = [code for vote in votes if (code := denies(vote, intent))]
    if len(votes) - len(codes) >= quorum_size:
        return DenyCode.APPROVED
    if len(codes) < denial_size:
        return None
    named = Counter(codes)
    return min(named, key=lambda code: (-named[code], code))


class Certificate(Struct, frozen=True):
    """Votes of distinct replicas for one frame at one position. It proves every intent that q of them approve."""

    path: int
    digest: bytes
    term: int
    index: int
    votes: tuple[FrameVote, ...]


@dataclass(frozen=True, slots=True)
class Settlement:
    """Where a frame stands at one position: at least one of its intents is settled."""

    path: int
    digest: bytes
    term: int
    index: int
    codes: tuple[int | None, ...]
    """See ``settle``."""
    votes: tuple[FrameVote, ...]
    """By replica. ``codes`` is their ``settle``, so that both together make an ``Outcome``."""

    @property
    def complete(self) -> bool:
        return None not in self.codes

    @property
    def approved(self) -> tuple[int, ...]:
        return tuple(intent for intent, code in enumerate(self.codes) if code == DenyCode.APPROVED)

    @property
    def certificate(self) -> Certificate | None:
        """The proof for every intent in ``approved``; None when there is none to prove."""
        if not self.approved:
            return None
        return Certificate(self.path, self.digest, self.term, self.index, self.votes)


def verify_certificate(
    certificate: Certificate,
    cluster_id: bytes,
    intent: int,
    quorum_size: int,
    voters: Sequence[int],
    verify: Verify,
) -> str | None:
    """Why the certificate does not prove that the intent at this position of the frame is approved, or None.

    Needs nothing but its arguments, so that an auditor may run it years later. A vote that does not belong makes the
    whole certificate malformed; a wrong signature merely does not count. Approving votes are verified until q hold.
    """
    if (reason := _certificate_shape_error(certificate, voters)) is not None:
        return reason
    approving = [vote for vote in certificate.votes if not denies(vote, intent)]
    if len(approving) < quorum_size:
        return f"{len(approving)} approvals, {quorum_size} needed"
    valid = 0
    for vote in approving:
        valid += verify(vote.replica, vote_bytes(cluster_id, vote), vote.signature)
        if valid == quorum_size:
            return None
    return f"{valid} approvals with a valid signature, {quorum_size} needed"


def _certificate_shape_error(certificate: Certificate, voters: Sequence[int]) -> str | None:
    what = (certificate.path, certificate.digest, certificate.term, certificate.index)
    for vote in certificate.votes:
        if (vote.path, vote.digest, vote.term, vote.index) != what:
            return "vote_for_another_frame_or_position"
        if (reason := _shape_error(vote, voters)) is not None:
            return reason
    if len({vote.replica for vote in certificate.votes}) != len(certificate.votes):
        return "vote_twice_by_one_replica"
    if certificate.path == Path.LANE and (certificate.term, certificate.index) == NOWHERE:
        return "lane_position_missing"
    return None


def outcome_error(
    outcome: Outcome,
    cluster_id: bytes,
    intent_count: int,
    quorum_size: int,
    denial_size: int,
    voters: Sequence[int],
    verify: Verify,
) -> str | None:
    """Why a lane OUTCOME does not follow from the votes it carries, or None: a leader may lie about the verdict."""
    terms = {vote.term for vote in outcome.votes}
    if len(terms) != 1:
        return "outcome_terms_differ"
    held = Certificate(Path.LANE, outcome.digest, terms.pop(), outcome.index, outcome.votes)
    if (reason := _certificate_shape_error(held, voters)) is not None:
        return reason
    if settle(outcome.votes, intent_count, quorum_size, denial_size) != outcome.codes:
        return "outcome_codes_not_from_votes"
    if any(not verify(vote.replica, vote_bytes(cluster_id, vote), vote.signature) for vote in outcome.votes):
        return "vote_signature_invalid"
    return None


# --- the book --------------------------------------------------------------------------------------------------------

FrameKey = tuple[int, bytes]
"""(path, digest)"""


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two signed votes of one replica on one frame at one position that say different things."""

    first: FrameVote
    second: FrameVote


@dataclass(slots=True)
class _FrameVotes:
    opener: int
    """The replica whose vote opened the frame: it pays for the memory while nobody has asked for a settlement."""
    positions: dict[Position, dict[int, FrameVote]] = field(default_factory=dict)
    complete: dict[Position, Settlement] = field(default_factory=dict)


class VoteBook:
    """Collects valid votes and tells which intents they settle.

    ``add`` takes only votes for which ``vote_error`` said None: evidence must rest on signatures. A settlement
    that is complete no longer changes: later votes at its position are held as possible evidence, not counted.

    Memory is bounded by ``max_frames``. The oldest settled frame goes first; then the oldest frame that nobody here
    asked about, of the replica that opened most of those (a liar who invents digests pushes out his own); then the
    oldest open one. Votes for a forgotten frame open it anew, so whoever acts on a settlement is idempotent by
    intent id.
    """

    # Invariant: every frame is in exactly one of _settled, _unasked[opener] and _open; together <= max_frames.

    def __init__(self, quorum_size: int, denial_size: int, voters: Sequence[int], max_frames: int = 4096) -> None:
        assert voters and max_frames > 0
        self._quorum_size = quorum_size
        self._denial_size = denial_size
        self._max_frames = max_frames
        self._settled: OrderedDict[FrameKey, _FrameVotes] = OrderedDict()
        self._open: OrderedDict[FrameKey, _FrameVotes] = OrderedDict()
        self._unasked: dict[int, OrderedDict[FrameKey, _FrameVotes]] = {voter: OrderedDict() for voter in voters}
        self.ignored: Counter[str] = Counter()
        """Votes not counted and frames forgotten unsettled, by reason."""
        self.contradictions: Counter[int] = Counter()
        """Contradictory votes by replica; the first pair of each is in ``evidence``."""
        self.evidence: dict[int, Evidence] = {}

    def __len__(self) -> int:
        """Frames held."""
        return len(self._settled) + len(self._open) + sum(len(frames) for frames in self._unasked.values())

    def knows(self, vote: FrameVote) -> bool:
        """Is this very verdict of this replica at this position held already? Then its signature need not be paid."""
        held = self._held(vote.path, vote.digest, (vote.term, vote.index)).get(vote.replica)
        return held is not None and held.denials == vote.denials

    def add(self, vote: FrameVote, intent_count: int | None = None) -> Settlement | None:
        """Count a vote. Returns the position's settlement when this vote settled at least one more intent.

        ``intent_count`` is None while the frame itself is not known; ``settlement`` catches up.
        """
        if vote.replica not in self._unasked:
            self.ignored["vote_of_a_stranger"] += 1
            return None
        position = (vote.term, vote.index)
        before = None if intent_count is None else self.settlement(vote.path, vote.digest, position, intent_count)
        frame = self._find((vote.path, vote.digest)) or self._open_frame((vote.path, vote.digest), vote.replica)
        if not self._count(frame, position, vote) or intent_count is None:
            return None
        after = self.settlement(vote.path, vote.digest, position, intent_count)
        if after is None or (before is not None and before.codes.count(None) == after.codes.count(None)):
            return None
        return after

    def settlement(self, path: int, digest: bytes, position: Position, intent_count: int) -> Settlement | None:
        """Where the frame stands at this position; None while no intent is settled."""
        key = (path, digest)
        frame = self._find(key)
        if frame is None:
            return None
        if key in self._unasked[frame.opener]:
            self._open[key] = self._unasked[frame.opener].pop(key)
        if (complete := frame.complete.get(position)) is not None:
            return complete
        votes = self.votes(path, digest, *position)
        codes = settle(votes, intent_count, self._quorum_size, self._denial_size)
        if all(code is None for code in codes):
            return None
        settlement = Settlement(path, digest, *position, codes, votes)
        if settlement.complete:
            frame.complete[position] = settlement
            self._settled[key] = frame
            self._open.pop(key, None)
        return settlement

    def learn(self, path: int, digest: bytes, intent_count: int) -> tuple[Settlement, ...]:
        """The frame has arrived, perhaps after votes on it: what they settle, at most one settlement per position."""
        frame = self._find((path, digest))
        positions = tuple(frame.positions) if frame is not None else ()
        found = [self.settlement(path, digest, position, intent_count) for position in positions]
        return tuple(settlement for settlement in found if settlement is not None)

    def votes(self, path: int, digest: bytes, term: int, index: int) -> tuple[FrameVote, ...]:
        """The counted votes for one position, by replica: those of its settlement, if that is complete."""
        position = (term, index)
        frame = self._find((path, digest))
        if frame is not None and (complete := frame.complete.get(position)) is not None:
            return complete.votes
        held = self._held(path, digest, position)
        return tuple(held[replica] for replica in sorted(held))

    def _held(self, path: int, digest: bytes, position: Position) -> dict[int, FrameVote]:
        frame = self._find((path, digest))
        return frame.positions.get(position, {}) if frame is not None else {}

    def _find(self, key: FrameKey) -> _FrameVotes | None:
        shelves = (self._open, self._settled, *self._unasked.values())
        return next((frame for shelf in shelves if (frame := shelf.get(key)) is not None), None)

    def _open_frame(self, key: FrameKey, opener: int) -> _FrameVotes:
        if len(self) >= self._max_frames:
            shelf = self._settled or max(self._unasked.values(), key=len) or self._open
            shelf.popitem(last=False)
            if shelf is not self._settled:
                self.ignored["frame_forgotten_unsettled"] += 1
        frame = _FrameVotes(opener)
        self._unasked[opener][key] = frame
        return frame

    def _count(self, frame: _FrameVotes, position: Position, vote: FrameVote) -> bool:
        held = frame.positions.get(position, {})
        first = held.get(vote.replica)
        if first is not None and first.denials == vote.denials:
            self.ignored["vote_repeated"] += 1
        elif first is not None:
            self.contradictions[vote.replica] += 1
            self.evidence.setdefault(vote.replica, Evidence(first, vote))
        elif sum(vote.replica in other for other in frame.positions.values()) >= POSITIONS_PER_REPLICA:
            self.ignored["vote_positions_exhausted"] += 1
        else:
            frame.positions.setdefault(position, held)[vote.replica] = vote
            return True
        return False
