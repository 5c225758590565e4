"""Whole replicas beside one that lies: it may cost time, never a second history or a forged approval."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import pytest
from msgspec.structs import replace

from consensus import voting
from consensus.certificate import sign_vote
from consensus.effects import Bodies
from consensus.machine import Outgoing
from protocol.codes import DenyCode, Path
from protocol.messages import Denial, FrameVote, Message, Outcome, Submit
from tests.oracles.replica_cluster import (
    CLUSTER,
    MS,
    VOTERS,
    Liar,
    ReplicaCluster,
    digest_of,
    honest_bodies,
    sign_frame,
    sign_grant,
    signer,
)
from tests.oracles.replica_storm import Oracle, outcomes_in_log, simulate


class VotesBothWays(Liar):
    """Approves to some what it denies to others, with good signatures."""

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        for peer, message in super().outgoing(peers, sent):
            if isinstance(message, FrameVote) and peer % 2:
                denials = () if message.denials else (Denial(0, DenyCode.PRICE_COLLAR),)
                message = sign_vote(CLUSTER, replace(message, denials=denials), signer(self.own))
            yield peer, message


class WritesFalseOutcomes(Liar):
    """As leader, turns every verdict round, on the votes that say otherwise."""

    def bodies(self) -> Bodies:
        honest = honest_bodies()

        def lie(outcome: Outcome) -> bytes:
            return honest.encode_outcome(replace(outcome, codes=tuple(21 - code for code in outcome.codes)))

        return replace_encoder(honest, lie)


class WritesUnsignedOutcomes(Liar):
    """As leader, denies everything with votes that nobody has given."""

    def bodies(self) -> Bodies:
        honest = honest_bodies()

        def lie(outcome: Outcome) -> bytes:
            votes = tuple(replace(vote, denials=(Denial(0, 30),), signature=bytes(64)) for vote in outcome.votes)
            return honest.encode_outcome(replace(outcome, codes=(30, *outcome.codes[1:]), votes=votes))

        return replace_encoder(honest, lie)


def replace_encoder(bodies: Bodies, encode: object) -> Bodies:
    return Bodies(encode, bodies.decode_outcome, bodies.decode_frame, bodies.decode_grant)  # type: ignore[arg-type]


class ForgesVotes(Liar):
    """Adds votes in the names of others, with its own key and with theirs from elsewhere."""

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        for peer, message in super().outgoing(peers, sent):
            yield peer, message
            if isinstance(message, FrameVote):
                for victim in VOTERS:
                    yield peer, replace(message, replica=victim, denials=(Denial(0, 30),))
                yield peer, replace(message, denials=(Denial(0, 30),))
                yield peer, replace(message, term=message.term + 1, index=message.index + 1)


class FloodsUnknownVotes(Liar):
    """Ten well signed votes about nothing beside every message."""

    count = 0

    def outgoing(self, peers: tuple[int, ...], sent: Outgoing) -> Iterable[tuple[int, Message]]:
        for peer, message in super().outgoing(peers, sent):
            yield peer, message
            for _ in range(10):
                self.count += 1
                digest = hashlib.sha256(b"nothing %d" % self.count).digest()
                vote = FrameVote(self.own, Path.SPINE, 0, 0, digest, (), b"")
                yield peer, sign_vote(CLUSTER, vote, signer(self.own))


@pytest.mark.parametrize("liar", [VotesBothWays, ForgesVotes])
@pytest.mark.parametrize("seed", range(3))
def test_storms_beside_a_liar(liar: type[Liar], seed: int) -> None:
    simulate(seed, [liar(2)], count=8, rounds=4, some_vote_both_ways=liar is VotesBothWays)


@pytest.mark.parametrize("seed", range(2))
def test_a_trader_that_uses_ids_twice_is_settled_one_way(seed: int) -> None:
    simulate(seed, count=10, rounds=4, equivocate=1.0)


def test_who_votes_both_ways_is_found_out() -> None:
    cluster = ReplicaCluster(5, [VotesBothWays(2)], denial_chance=0.0, witness=Oracle(some_vote_both_ways=True))
    cluster.submit(sign_grant(), Path.SPINE)
    for sequence in range(1, 8):
        cluster.submit(sign_frame(sequence))
        cluster.run(300 * MS)
    assert any(2 in host.replica.votes.evidence for host in cluster.honest)
    assert all(set(host.replica.votes.evidence) <= {2} for host in cluster.honest)


def elected(liar: Liar) -> tuple[ReplicaCluster, Oracle]:
    """A cluster whose leader is the liar, with a granted slice."""
    for seed in range(40):
        oracle = Oracle()
        cluster = ReplicaCluster(seed, [liar], denial_chance=0.0, witness=oracle)
        cluster.submit(sign_grant(), Path.SPINE)
        cluster.run(1_000 * MS)
        if cluster.leader is not None and cluster.leader.own == liar.own and all(h.granted for h in cluster.hosts):
            return cluster, oracle
    raise AssertionError("the liar was never elected")


@pytest.mark.parametrize("liar", [WritesFalseOutcomes(2), WritesUnsignedOutcomes(2)], ids=["codes", "votes"])
def test_a_false_outcome_decides_nothing_and_the_next_leader_writes_the_true_one(liar: Liar) -> None:
    cluster, oracle = elected(liar)
    command = sign_frame(1)
    cluster.submit(command)
    cluster.run(500 * MS)
    for host in cluster.honest:
        assert host.settled[digest_of(command)].codes == (0,), "the votes approve, whatever the leader writes"
        assert host.replica.decisions.lane_length == 0 and len(host.replica.unresolved) == 1
    cluster.crash(liar.own)
    assert cluster.run(3_000 * MS, until=lambda: all(not host.replica.unresolved for host in cluster.honest))
    assert outcomes_in_log(oracle) == {digest_of(command)}
    assert {host.replica.decisions.lane_length for host in cluster.honest} == {1}


def test_a_flood_of_votes_about_nothing_is_bounded_and_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voting, "FRAMES_KEPT_MAX", 64)
    cluster = ReplicaCluster(3, [FloodsUnknownVotes(2)], denial_chance=0.0, witness=Oracle())
    cluster.submit(sign_grant(), Path.SPINE)
    cluster.run(500 * MS)
    commands = [sign_frame(sequence) for sequence in range(1, 4)]
    for command in commands:
        cluster.submit(command)
        cluster.run(200 * MS)
    for host in cluster.honest:
        assert len(host.replica.votes) <= 64
        assert set(host.replica.frames) == {digest_of(command) for command in commands}
        assert all(digest_of(command) in host.settled for command in commands)


def test_questions_are_answered_within_a_budget() -> None:
    cluster = ReplicaCluster(4, denial_chance=0.0, witness=Oracle())
    cluster.submit(sign_grant(), Path.SPINE)
    command = sign_frame(1, path=Path.SPINE)
    cluster.submit(command, Path.SPINE)
    assert cluster.run(1_000 * MS, until=lambda: all(host.settled for host in cluster.hosts))
    question = Submit(Path.SPINE, False, command)
    for _ in range(2 * voting.ANSWERS_PER_PEER):
        cluster.inject(2, 1, question)
    assert cluster.hosts[1].replica.ignored["answers_exhausted"] == voting.ANSWERS_PER_PEER
