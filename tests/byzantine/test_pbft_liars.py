"""Liars on the spine: one of four replicas lies with its own key, and the honest three are judged from outside.

A lying primary may stop the spine, for there is no view change. It may never split it, and the honest replicas must
notice: by evidence where two signatures contradict each other, by suspicion where nothing moves.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
import pytest

from consensus.machine import Outgoing
from consensus.pbft.certificate import verify_certificate
from consensus.pbft.evidence import Promise
from consensus.pbft.safety import COMMIT, PRE_PREPARE, PREPARE
from protocol.codes import Path
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
from protocol.signing import batch_digest, phase_bytes
from tests.oracles.pbft_cluster import (
    CLUSTER,
    CONFIG,
    MS,
    Cluster,
    Liar,
    Weather,
    heal,
    make_command,
    make_slot,
    storm,
    verify,
)

ROUGH = Weather(loss=0.05, duplication=0.1, delay_ns_max=20 * MS)


def signed(liar: Liar, message: Promise, **changes: object) -> Promise:
    """The message with changes, properly signed by the liar."""
    changed = msgspec.structs.replace(message, **changes)
    phase = {PrePrepare: PRE_PREPARE, Prepare: PREPARE, Commit: COMMIT}[type(changed)]
    payload = phase_bytes(CLUSTER, phase, changed.view, changed.sequence, changed.digest, liar.own)
    return msgspec.structs.replace(changed, signature=liar.sign(payload))


class SplitProposals(Liar):
    """Primary: one half gets the proposal, the other half a different one."""

    def __init__(self, own: int, half: tuple[int, ...]) -> None:
        super().__init__(own)
        self.half = half

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if isinstance(message, PrePrepare) and peer in self.half:
            commands = (make_command(900 + message.sequence),)
            message = signed(self, message, commands=commands, digest=batch_digest(CLUSTER, commands))
        yield peer, message


class BothProposals(Liar):
    """Primary: everybody gets two proposals for each sequence number."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        yield peer, message
        if isinstance(message, PrePrepare):
            commands = (make_command(900 + message.sequence),)
            yield peer, signed(self, message, commands=commands, digest=batch_digest(CLUSTER, commands))


class WrongCommands(Liar):
    """Primary: signs a digest and sends other commands with it."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if isinstance(message, PrePrepare):
            message = msgspec.structs.replace(message, commands=(make_command(900),))
        yield peer, message


class ForgedCommands(Liar):
    """Primary: proposes a command that its author never signed."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if isinstance(message, PrePrepare):
            commands = (SignedCommand(1, 7, b"transfer everything", bytes(32)),)
            message = signed(self, message, commands=commands, digest=batch_digest(CLUSTER, commands))
        yield peer, message


class SilentPrimary(Liar):
    """Primary: proposes nothing, otherwise takes part."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if not isinstance(message, PrePrepare):
            yield peer, message


class ForgedSenders(Liar):
    """Backup: adds votes in everybody's name, signed with its own key."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        yield peer, message
        if isinstance(message, Prepare | Commit):
            for other in range(4):
                yield peer, signed(self, message, replica=other)


class OtherDigest(Liar):
    """Backup: votes for a digest that nobody proposed, and then for the proposed one as well."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if isinstance(message, Prepare | Commit):
            yield peer, signed(self, message, digest=bytes([peer]) * 32)
        yield peer, message


class Repeater(Liar):
    """Backup: sends every vote five times and all its old messages again."""

    def __init__(self, own: int) -> None:
        super().__init__(own)
        self.old: list[Message] = []

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        self.old = [*self.old[-20:], message]
        for _ in range(5):
            yield peer, message
        for old in self.old:
            yield peer, old


class EarlyCommitter(Liar):
    """Backup: commits to whatever it prepares, at once, without a quorum, and claims slots far ahead."""

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        yield peer, message
        if isinstance(message, Prepare):
            early = Commit(message.view, message.sequence, message.digest, self.own, b"")
            yield peer, signed(self, early)
            yield peer, signed(self, early, sequence=message.sequence + 10**9)
            yield peer, signed(self, early, view=1)


class SmallCertificates(Liar):
    """Any: invents decisions with a certificate of one, and thins out the real ones."""

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        yield from super().outgoing(peers, sent)
        if isinstance(sent.message, Prepare | Commit):
            for peer in peers:
                for signers in ((self.own,), (self.own,) * 3):
                    commands = (make_command(900),)
                    slot = make_slot(sent.message.sequence, *commands, signers=signers)
                    yield peer, SlotReply((slot,))

    def to(self, peer: int, message: Message) -> Iterable[tuple[int, Message]]:
        if isinstance(message, SlotReply):
            thin = [msgspec.structs.replace(slot, commits=slot.commits[:2]) for slot in message.slots]
            message = SlotReply(tuple(thin))
        yield peer, message


BACKUP_LIARS = [ForgedSenders, OtherDigest, Repeater, EarlyCommitter, SmallCertificates]
PRIMARY_LIARS = [BothProposals, WrongCommands, ForgedCommands, SilentPrimary, SmallCertificates, OtherDigest]


def counted(cluster: Cluster, reason: str) -> int:
    return sum(replica.machine.ignored[reason] for replica in cluster.honest)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("liar", BACKUP_LIARS)
def test_lying_backup_neither_splits_nor_stops_the_spine(liar: type[Liar], seed: int) -> None:
    own = 1 + seed % 3
    cluster = Cluster(seed, liars=[liar(own)], weather=ROUGH)
    commands = storm(cluster, command_count=10, rounds=4)
    live = cluster.run(5_000 * MS, until=lambda: cluster.executed_everywhere(commands))
    assert live, f"seed {seed}: {[replica.machine.status() for replica in cluster.replicas]}"


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("liar", PRIMARY_LIARS)
def test_lying_primary_never_splits_the_spine(liar: type[Liar], seed: int) -> None:
    cluster = Cluster(seed, liars=[liar(0)], weather=ROUGH)
    storm(cluster, command_count=10, rounds=4)
    cluster.run(1_500 * MS)


@pytest.mark.parametrize("half", [(1,), (1, 2), (3,)])
def test_split_proposals_are_judged_and_noticed(half: tuple[int, ...]) -> None:
    cluster = Cluster(11, liars=[SplitProposals(0, half)])
    cluster.submit(make_command(1))
    cluster.run(3_000 * MS)
    decided = len(half) == 1
    assert len(cluster.oracle.history) == decided, "only a digest that three replicas support can be decided"
    if not decided:
        assert all(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.honest)


def test_both_proposals_leave_evidence_everywhere() -> None:
    cluster = Cluster(12, liars=[BothProposals(0)], weather=Weather(delay_ns_max=4 * MS))
    cluster.submit(make_command(1))
    cluster.run(300 * MS)
    for replica in cluster.honest:
        (item,) = replica.machine.evidence
        assert (item.kind, item.sender) == ("equivocation", 0)
        assert item.first is not None and item.first.digest != item.second.digest
        for message in (item.first, item.second):
            payload = phase_bytes(CLUSTER, PRE_PREPARE, message.view, message.sequence, message.digest, 0)
            assert verify(0, payload, message.signature), "evidence stands on its own"


@pytest.mark.parametrize(("liar", "reason"), [(WrongCommands, "digest_mismatch"), (ForgedCommands, "command_invalid")])
def test_unsupportable_proposals_stop_the_spine_and_are_counted(liar: type[Liar], reason: str) -> None:
    cluster = Cluster(13, liars=[liar(0)])
    cluster.submit(make_command(1))
    cluster.run(2_000 * MS)
    assert not cluster.oracle.history and counted(cluster, reason) == 3
    assert all(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.honest)
    assert all(item.kind == reason for replica in cluster.honest for item in replica.machine.evidence)


def test_silent_primary_becomes_suspect() -> None:
    cluster = Cluster(14, liars=[SilentPrimary(0)])
    cluster.submit(make_command(1))
    cluster.run(CONFIG.suspect_ns + 100 * MS)
    assert all(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.honest)


@pytest.mark.parametrize(
    ("liar", "reason"),
    [
        (ForgedSenders, "sender_mismatch"),
        (OtherDigest, "equivocation"),
        (Repeater, "duplicate"),
        (EarlyCommitter, "other_view"),
        (SmallCertificates, "certificate_too_few_commits"),
        (SmallCertificates, "certificate_signer_repeated"),
    ],
)
def test_every_lie_is_counted(liar: type[Liar], reason: str) -> None:
    cluster = Cluster(15, liars=[liar(3)])
    commands = [make_command(number) for number in range(3)]
    cluster.submit(commands[0])
    cluster.submit(commands[1])
    cluster.submit(commands[2])
    assert cluster.run(1_000 * MS, until=lambda: cluster.executed_everywhere(commands))
    assert counted(cluster, reason) > 0


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("twin", [0, 2])
def test_twins_never_split_the_spine(twin: int, seed: int) -> None:
    """Two copies with one key, often in different partitions, each with half of the submissions."""
    cluster = Cluster(seed, twins=[twin], weather=ROUGH)
    commands = [make_command(number) for number in range(8)]
    copies = (twin, 4)
    others = [own for own in range(4) if own != twin]
    for number, command in enumerate(commands):
        side = cluster.random.sample(others, 1 + number % 2)
        cluster.partition([copies[0], *side], [copies[1], *(own for own in others if own not in side)])
        cluster.submit(command, copies[number % 2], *others)
        cluster.run(cluster.random.randint(5, 60) * MS)
        if cluster.random.random() < 0.3:
            cluster.partition()
            cluster.run(30 * MS)
    heal(cluster)
    for command in commands:
        cluster.submit(command, 0, 1, 2, 3)
    live = cluster.run(2_000 * MS, until=lambda: cluster.executed_everywhere(commands))
    assert live or twin == 0, f"seed {seed}: twins of a backup must not stop the spine"


def test_twin_primaries_leave_evidence() -> None:
    cluster = Cluster(21, twins=[0])
    cluster.partition([0, 1], [4, 2, 3])
    cluster.submit(make_command(1), 0)
    cluster.submit(make_command(2), 4)
    cluster.run(50 * MS)
    heal(cluster)
    cluster.run(1_000 * MS)
    kinds = {(item.kind, item.sender) for replica in cluster.honest for item in replica.machine.evidence}
    assert kinds == {("equivocation", 0)}


def test_replayed_traffic_of_a_whole_run_changes_nothing() -> None:
    cluster = Cluster(22)
    commands = [make_command(number) for number in range(4)]
    for command in commands:
        cluster.submit(command)
        cluster.run(30 * MS)
    history = dict(cluster.oracle.history)
    for sender, receiver, message in list(cluster.delivered):
        cluster.inject(sender, receiver, message)
    cluster.run(1_000 * MS)
    assert cluster.oracle.history == history and cluster.executed_everywhere(commands)
    assert counted(cluster, "already_decided") > 0


def test_votes_of_one_cluster_phase_or_place_are_worth_nothing_elsewhere() -> None:
    cluster = Cluster(23)
    cluster.submit(make_command(1))
    cluster.run(100 * MS)
    commits = [message for _, to, message in cluster.delivered if isinstance(message, Commit) and to == 1]
    for commit in commits:
        cluster.inject(commit.replica, 1, msgspec.structs.replace(commit, sequence=2))
        if commit.replica != 0:
            cluster.inject(commit.replica, 1, Prepare(0, 2, commit.digest, commit.replica, commit.signature))
    assert cluster.replicas[1].machine.ignored["signature_invalid"] == len(commits) + 2


def test_no_minority_can_make_a_certificate() -> None:
    """With one key of its own and all that honest replicas ever signed, a liar proves no other decision."""
    cluster = Cluster(24)
    for number in range(3):
        cluster.submit(make_command(number))
        cluster.run(30 * MS)
    seen = [message for _, _, message in cluster.delivered if isinstance(message, Commit)]
    for sequence, digest in cluster.oracle.history.items():
        commands = (make_command(900),)
        forged = batch_digest(CLUSTER, commands)
        assert forged != digest
        moved = tuple(
            {
                commit.replica: msgspec.structs.replace(commit, digest=forged)
                for commit in seen
                if commit.sequence == sequence
            }.values()
        )
        slot = CommittedSlot(0, sequence, forged, commands, moved)
        assert verify_certificate(slot, CLUSTER, range(4), 3, verify) == "signature_invalid"


def test_flood_of_requests_and_relays_stays_bounded() -> None:
    cluster = Cluster(25)
    cluster.submit(make_command(1))
    cluster.run(100 * MS)
    cluster.delivered.clear()
    for number in range(200):
        cluster.inject(3, 1, SlotRequest(3, 1))
        cluster.inject(3, 1, Submit(Path.SPINE, True, SignedCommand(1, 7, b"%d" % number, b"")))
    cluster.run(30 * MS)
    replies = [message for sender, _, message in cluster.delivered if sender == 1 and isinstance(message, SlotReply)]
    assert len(replies) <= 16
    assert cluster.replicas[1].machine.status()["pending"] == 0
