"""Storms over four whole replicas, and the oracle that judges them from outside.

Everything follows from one seed. This replays a storm without liars:
``python -m tests.oracles.replica_storm SEED [COUNT ROUNDS EQUIVOCATE]``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from consensus.certificate import NOWHERE, verify_certificate
from consensus.effects import Effects, FrameSettled, Verdict
from protocol.codes import DenyCode, EntryKind, Path
from protocol.messages import Denial, Entry, FrameVote, Message, Outcome, SignedCommand
from tests.oracles.replica_cluster import (
    CODEC,
    LIMIT,
    MS,
    QUORUM,
    SLICE,
    TRADER,
    VOTERS,
    Host,
    Liar,
    ReplicaCluster,
    Weather,
    Witness,
    digest_of,
    sign_frame,
    sign_grant,
    verify,
)
from tests.oracles.signed_frames import CLUSTER, make_intent


class Oracle(Witness):
    """Judges honest replicas only, from what leaves them and what they tell."""

    def __init__(self, some_vote_both_ways: bool = False) -> None:
        self.some_vote_both_ways = some_vote_both_ways
        self.entries: list[Entry] = []
        self.heads: dict[tuple[str, int], bytes] = {}
        self.spoken: dict[tuple[int, bytes], tuple[Denial, ...]] = {}
        self.outcome: dict[tuple[bytes, int, int, int], bool] = {}
        self.approved: set[tuple[bytes, int]] = set()

    def takes(self, host: Host, effects: Effects) -> None:
        for entry in effects.committed_entries:
            if entry.index > len(self.entries):
                assert entry.index == len(self.entries) + 1
                self.entries.append(entry)
            assert self.entries[entry.index - 1] == entry, f"two lane histories at {entry.index}"
        log = host.replica.decisions
        for name, length, head in (
            ("lane", log.lane_length, log.lane_head),
            ("spine", log.spine_length, log.spine_head),
        ):
            assert self.heads.setdefault((name, length), head) == head, f"two {name} decision logs of length {length}"
        budget = host.replica.budget
        grant = budget.current(SLICE)
        assert grant is None or budget.used(SLICE) <= grant.notional_limit, f"{host.own} overspent its slice"

    def settles(self, host: Host, settled: FrameSettled) -> None:
        certificate = settled.certificate
        for intent, code in enumerate(settled.codes):
            if code is None:
                continue
            approved = code == DenyCode.APPROVED
            key = (certificate.digest, certificate.term, certificate.index, intent)
            if not self.some_vote_both_ways:
                assert self.outcome.setdefault(key, approved) == approved, f"{key} both approved and denied"
            if approved:
                self.approved.add((certificate.digest, intent))
                reason = verify_certificate(certificate, CLUSTER, intent, QUORUM.size, VOTERS, verify)
                assert reason is None, f"{host.own} settled with a bad certificate: {reason}"

    def leaves(self, host: Host, message: Message) -> None:
        """One verdict for ever, durable before it leaves, and on the lane the entry as well."""
        if not isinstance(message, FrameVote):
            return
        assert message.replica == host.own
        said = self.spoken.setdefault((host.own, message.digest), message.denials)
        assert said == message.denials, f"{host.own} voted twice, differently"
        cast = host.disk.votes.get(message.digest)
        assert cast is not None, f"{host.own} voted before its verdict was durable"
        durable = msgspec.msgpack.decode(cast.body, type=Verdict)
        assert tuple(Denial(*denial) for denial in durable.denials) == message.denials
        if (message.term, message.index) != NOWHERE:
            held = host.disk.entries[message.index - 1 : message.index]
            if held and held[0].term == message.term:
                command = msgspec.msgpack.decode(held[0].payload, type=SignedCommand)
                assert digest_of(command) == message.digest, f"{host.own} acknowledged another frame"

    def restarts(self, host: Host) -> None:
        spent: dict[int, dict[int, int]] = {}
        for cast in host.disk.votes.values():
            for debit in msgspec.msgpack.decode(cast.body, type=Verdict).debits:
                spent.setdefault(debit.version, {})[debit.intent] = debit.notional
        for version, by_intent in spent.items():
            assert sum(by_intent.values()) <= LIMIT, f"{host.own} signed for more than version {version} grants"


@dataclass(slots=True)
class Wish:
    """A frame that the trader wants decided, asked for again until it knows."""

    command: SignedCommand
    path: Path
    separate: bool
    """A coordination round of its own comes first."""

    @property
    def digest(self) -> bytes:
        return digest_of(self.command)

    def ask(self, cluster: ReplicaCluster) -> None:
        trader = cluster.hosts[TRADER]
        settled = trader.settled.get(self.digest)
        if settled is None or None in settled.record.codes:
            propose = not self.separate or self.digest in trader.coordinated
            cluster.submit(self.command, self.path, propose)


def make_wishes(cluster: ReplicaCluster, count: int, equivocate: float = 0.0) -> list[Wish]:
    """Frames of one to three intents, most of them for the lane; an equivocating trader uses ids twice."""
    chance = cluster.random
    wishes: list[Wish] = []
    used = 1
    for sequence in range(1, count + 1):
        size = chance.randint(1, 3)
        first = max(1, used - 2) if chance.random() < equivocate else used
        intents = [make_intent(first + offset, quantity=10 + sequence % 7) for offset in range(size)]
        used = max(used, first + size)
        path = Path.SPINE if chance.random() < 0.3 else Path.LANE
        wishes.append(Wish(sign_frame(sequence, *intents, path=path), path, chance.random() < 0.2))
    return wishes


def storm(cluster: ReplicaCluster, wishes: list[Wish], rounds: int) -> None:
    """Submissions, partitions, crashes and restarts. At most one replica is down at a time, liars never."""
    chance = cluster.random
    grant = sign_grant()
    crashable = [host.own for host in cluster.honest]
    for number in range(rounds):
        cluster.submit(grant, Path.SPINE)
        for wish in wishes[number::rounds]:
            wish.ask(cluster)
            if chance.random() < 0.5:
                chance.choice(wishes[: number + 1]).ask(cluster)
            cluster.run(chance.randint(0, 15) * MS)
        if chance.random() < 0.3:
            mixed, cut = chance.sample(VOTERS, 4), chance.randint(1, 3)
            cluster.partition(mixed[:cut], mixed[cut:])
        if chance.random() < 0.4:
            down = chance.choice(crashable) if cluster.leader is None else cluster.leader.own
            cluster.crash(down if down in crashable else chance.choice(crashable))
        if chance.random() < 0.4:
            cluster.weather = Weather(chance.uniform(0, 0.2), chance.uniform(0, 0.2), chance.choice((4, 30)) * MS)
        cluster.run(chance.randint(1, 150) * MS)
        if chance.random() < 0.6:
            cluster.partition()
        for own in VOTERS:
            if chance.random() < 0.7:
                cluster.restart(own)


def settle(cluster: ReplicaCluster, wishes: list[Wish], limit_ns: int = 12_000 * MS) -> None:
    """Heal; the trader asks again; then everything that it wanted is decided, and known to all, in time."""
    cluster.heal()
    deadline_ns = cluster.now_ns + limit_ns
    while cluster.now_ns < deadline_ns:
        if not cluster.hosts[TRADER].granted:
            cluster.submit(sign_grant(), Path.SPINE)
        for wish in wishes:
            wish.ask(cluster)
        if cluster.run(200 * MS, until=lambda: all_known(cluster, wishes)):
            return
    raise AssertionError(f"not live after healing: {explain(cluster, wishes)}")


def all_known(cluster: ReplicaCluster, wishes: list[Wish]) -> bool:
    """Every honest replica has told the outcome of every wish in its present life, and the decision logs are equal.

    A wish that its coordination round refused wholly is never ordered, so it has an outcome only there.
    """
    return not any(_unknown(cluster, host, wishes) for host in cluster.honest) and len(_summaries(cluster)) == 1


def _unknown(cluster: ReplicaCluster, host: Host, wishes: list[Wish]) -> bool:
    if host.replica.unresolved:
        return True
    return any((settled := host.settled.get(wish.digest)) is None or not settled.record.closed for wish in wishes)


def _summaries(cluster: ReplicaCluster) -> set[tuple[tuple[str, object], ...]]:
    return {tuple(host.replica.decisions.summary().items()) for host in cluster.honest}


def explain(cluster: ReplicaCluster, wishes: list[Wish]) -> dict[str, Any]:
    missing = {
        host.own: [(wish.path, wish.digest.hex()[:8]) for wish in wishes if wish.digest not in host.settled]
        for host in cluster.honest
    }
    return {"missing": missing, "status": [host.replica.status() for host in cluster.hosts]}


def outcomes_in_log(oracle: Oracle) -> set[bytes]:
    """Digests with an OUTCOME entry in the canonical lane."""
    entries = [entry for entry in oracle.entries if entry.kind == EntryKind.OUTCOME]
    return {CODEC.decode_body(Outcome, entry.payload).digest for entry in entries}


def simulate(
    seed: int,
    liars: Iterable[Liar] = (),
    count: int = 14,
    rounds: int = 6,
    equivocate: float = 0.0,
    some_vote_both_ways: bool = False,
) -> ReplicaCluster:
    """One storm from start to settled, then replicas restart and must tell everything once more."""
    oracle = Oracle(some_vote_both_ways)
    cluster = ReplicaCluster(seed, liars, witness=oracle)
    try:
        wishes = make_wishes(cluster, count, equivocate)
        storm(cluster, wishes, rounds)
        settle(cluster, wishes)
        restartable = [host.own for host in cluster.honest]
        for own in restartable if seed % 2 else [cluster.random.choice(restartable)]:
            cluster.crash(own)
        settle(cluster, wishes)
        lane = {wish.digest for wish in wishes if wish.path == Path.LANE}
        assert lane <= outcomes_in_log(oracle), "a lane frame has no OUTCOME"
    except Exception as error:
        error.add_note(
            f"seed {seed}; rerun: python -m tests.oracles.replica_storm {seed} {count} {rounds} {equivocate}"
        )
        if cluster.honest != cluster.hosts:
            names = [type(host.liar).__name__ for host in cluster.hosts if host.liar is not None]
            error.add_note(f"that has no liars; this run had {names}, so rerun the test by its id")
        raise
    return cluster


if __name__ == "__main__":
    given = dict(zip(("count", "rounds", "equivocate"), sys.argv[2:], strict=False))
    chosen = {name: float(value) if name == "equivocate" else int(value) for name, value in given.items()}
    result = simulate(int(sys.argv[1]), **chosen)  # type: ignore[arg-type]
    sys.stdout.write(f"{result.message_count} messages; {result.hosts[0].replica.decisions.summary()}\n")
