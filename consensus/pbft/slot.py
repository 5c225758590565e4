"""One sequence number on its way to a decision (Castro and Liskov 1999, section 4.2).

Arithmetic. q replicas must promise a digest, and any two sets of q share an honest replica. The primary's PRE-PREPARE
is its promise, so a slot is *prepared* with the PRE-PREPARE and q-1 matching PREPAREs of distinct backups, the own one
included: q distinct replicas. It is *committed* with q matching COMMITs of distinct replicas. For n=4: q=3, two
PREPAREs, three COMMITs.

Memory is bounded: one message for each (sender, phase). What a slot holds has been verified by its caller.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.pbft.safety import COMMIT, PREPARE
from protocol.messages import Commit, CommittedSlot, Prepare, PrePrepare, SignedCommand

Ballot = Prepare | Commit


@dataclass(slots=True)
class Slot:
    """State of one (view, sequence). ``digest`` is None until a PRE-PREPARE was accepted."""

    view: int
    sequence: int
    primary: int
    quorum_size: int
    digest: bytes | None = None
    commands: tuple[SignedCommand, ...] = ()
    command_digests: tuple[bytes, ...] = ()
    """At the primary known before the slot's commands are: reserved until its PRE-PREPARE is durable."""
    pre_prepare: PrePrepare | None = None
    """None also when the slot was rebuilt from the own PREPARE, whose record proves that a valid one was seen."""
    refused: bytes | None = None
    """Digest of a properly signed PRE-PREPARE that we do not support."""
    ballots: dict[str, dict[int, Ballot]] = field(default_factory=lambda: {PREPARE: {}, COMMIT: {}})
    commit_signed: bool = False
    since_ns: int | None = None
    """When it was opened, or when the PRE-PREPARE was accepted; None until the clock was seen after that."""
    resend_at_ns: int | None = None
    """None until the clock was seen."""
    resend_count: int = 0

    def accept(self, digest: bytes, commands: tuple[SignedCommand, ...], pre_prepare: PrePrepare | None) -> None:
        """Take the proposal; the caller has checked the signature, the digest and every command."""
        assert self.digest in (None, digest), "one slot accepts one proposal"
        self.digest = digest
        self.commands = commands
        self.pre_prepare = pre_prepare or self.pre_prepare
        self.since_ns = self.resend_at_ns = None
        self.resend_count = 0

    def kept(self, phase: str, sender: int) -> Ballot | None:
        return self.ballots[phase].get(sender)

    def add(self, phase: str, sender: int, ballot: Ballot) -> None:
        """Keep the first message of ``sender`` in this phase. The own one comes here once it is durable."""
        self.ballots[phase].setdefault(sender, ballot)

    @property
    def prepared(self) -> bool:
        return self.digest is not None and 1 + self._matching(PREPARE, self.primary) >= self.quorum_size

    @property
    def committed(self) -> bool:
        return self.digest is not None and self._matching(COMMIT, None) >= self.quorum_size

    def certificate(self) -> CommittedSlot:
        """The decision with its q COMMITs, by replica. Only for a committed slot."""
        assert self.committed and self.digest is not None, "no certificate before the quorum"
        commits = sorted(
            (ballot for ballot in self.ballots[COMMIT].values() if isinstance(ballot, Commit)),
            key=lambda commit: commit.replica,
        )
        matching = tuple(commit for commit in commits if commit.digest == self.digest)
        return CommittedSlot(self.view, self.sequence, self.digest, self.commands, matching[: self.quorum_size])

    def messages_of(self, sender: int) -> list[PrePrepare | Ballot]:
        """The promises of ``sender`` held here, in phase order; of our own those that are durable."""
        messages: list[PrePrepare | Ballot] = []
        if sender == self.primary and self.pre_prepare is not None:
            messages.append(self.pre_prepare)
        messages.extend(ballots[sender] for ballots in self.ballots.values() if sender in ballots)
        return messages

    def contradiction(self, sender: int, digest: bytes) -> PrePrepare | Ballot | None:
        """A promise of ``sender``, in whatever phase, for another digest than this. No honest replica gives two."""
        return next((message for message in self.messages_of(sender) if message.digest != digest), None)

    def _matching(self, phase: str, excluded: int | None) -> int:
        return sum(
            1 for sender, ballot in self.ballots[phase].items() if sender != excluded and ballot.digest == self.digest
        )
