"""Signatures are checked against the roster; the roster refuses what would make agents disagree about it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from protocol import messages as m
from protocol.errors import UsageError
from protocol.identity import Verifier
from protocol.roster import Agent, Role, Roster, allowed_messages, may_talk
from protocol.signing import digest, hello_bytes
from tests.oracles.clusters import CLUSTER, CLUSTER_ID, ROLES, Cluster, make_cluster, make_roster

KEYS = {agent_id: bytes([position]) * 32 for position, agent_id in enumerate(ROLES)}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return make_cluster(tmp_path_factory.mktemp("identity"))


def test_signature_is_good_for_its_author_and_its_bytes_only(cluster: Cluster) -> None:
    verifier = Verifier(cluster.roster)
    data = hello_bytes(CLUSTER_ID, b"exporter", 1, 7, cluster.roster.digest, True)
    signature = cluster.identity("risk-1").sign(data)
    assert verifier.verify(1, data, signature)
    assert not verifier.verify(2, data, signature)
    assert not verifier.verify(1, data + b"x", signature)
    assert not verifier.verify(1, data, signature[:-1] + bytes([signature[-1] ^ 1]))


def test_verifier_answers_rubbish_with_no(cluster: Cluster) -> None:
    verifier = Verifier(cluster.roster)
    assert not any(verifier.verify(index, b"data", bytes(64)) for index in (-1, 0, 99))
    assert not any(verifier.verify(0, b"data", bytes(size)) for size in (0, 63, 64, 65))


def test_verifier_remembers_the_good_within_bounds(cluster: Cluster) -> None:
    verifier = Verifier(cluster.roster, cache_size=64)
    identity = cluster.identity("risk-1")
    signed = [(digest(bytes([number])), identity.sign(digest(bytes([number])))) for number in range(65)]
    assert all(verifier.verify(1, data, signature) for data, signature in signed)
    assert verifier.cache_hits == 0
    assert verifier.verify(1, *signed[64]) and verifier.cache_hits == 1
    assert verifier.verify(1, *signed[0]) and verifier.cache_hits == 1  # the oldest had made room
    assert not verifier.verify(2, *signed[64]) and verifier.cache_hits == 1


def test_roster_finds_agents_and_voters_come_first() -> None:
    roster = make_roster(KEYS)
    assert [agent.id for agent in roster.voters] == ["trader-1", "risk-1", "risk-2", "executor-1"]
    assert [agent.index for agent in roster.voters] == [0, 1, 2, 3]
    assert roster.by_id("venue-1") is roster.by_index(4)
    assert roster.by_id("nobody") is None
    assert roster.by_index(99) is None and roster.by_index(-1) is None


def test_digest_covers_who_and_not_where() -> None:
    roster = make_roster(KEYS)

    def changed(**fields: object) -> bytes:
        agents = (replace(roster.agents[0], **fields), *roster.agents[1:])  # type: ignore[arg-type]
        return Roster(CLUSTER, CLUSTER_ID, agents).digest

    assert len(roster.digest) == 32
    assert changed(host="10.0.0.1", port=1) == roster.digest
    assert changed(id="trader-2") != roster.digest
    assert changed(role=Role.EXECUTOR) != roster.digest
    assert changed(public_key=b"k" * 32) != roster.digest
    assert Roster("other", CLUSTER_ID, roster.agents).digest != roster.digest
    assert Roster(CLUSTER, bytes(16), roster.agents).digest != roster.digest
    last = replace(roster.agents[3], votes=False)
    assert Roster(CLUSTER, CLUSTER_ID, (*roster.agents[:3], last, *roster.agents[4:])).digest != roster.digest


def _agent(index: int = 0, **fields: object) -> Agent:
    agent = Agent("risk-1", Role.RISK, index, "127.0.0.1", 1, True, bytes([index]) * 32)
    return replace(agent, **fields)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("agents", "says"),
    [
        ((), "the roster is empty"),
        ((_agent(id="Risk 1"),), "a-z, 0-9 and '-'"),
        ((_agent(index=1),), "index 1 at position 0"),
        ((_agent(public_key=b"short"),), "Ed25519 needs 32"),
        ((_agent(port=70000),), "out of range"),
        ((_agent(role=Role.VENUE),), "a venue has no vote"),
        ((_agent(), _agent(index=1)), "listed twice"),
        ((_agent(votes=False), _agent(index=1, id="risk-2")), "list voters first"),
        ((_agent(), _agent(index=1, id="risk-2", public_key=bytes(32))), "share a key"),
    ],
)
def test_roster_refuses_what_cannot_work(agents: tuple[Agent, ...], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Roster(CLUSTER, CLUSTER_ID, agents)


def test_roster_refuses_a_wrong_cluster() -> None:
    with pytest.raises(UsageError, match="needs 16"):
        Roster(CLUSTER, b"short", (_agent(),))
    with pytest.raises(UsageError, match="a cluster name has"):
        Roster("no spaces", CLUSTER_ID, (_agent(),))


def test_who_may_talk_to_whom() -> None:
    voters = (Role.TRADER, Role.RISK, Role.EXECUTOR)
    assert all(may_talk(a, b) for a in voters for b in voters)
    assert all(may_talk(Role.OPERATOR, role) for role in Role)
    assert may_talk(Role.VENUE, Role.EXECUTOR) and may_talk(Role.EXECUTOR, Role.VENUE)
    assert not any(may_talk(Role.VENUE, role) or may_talk(role, Role.VENUE) for role in (Role.TRADER, Role.RISK))
    assert not may_talk(Role.VENUE, Role.VENUE)


def test_what_each_role_may_say() -> None:
    assert allowed_messages(Role.OPERATOR) == {m.StatusRequest}
    assert all(allowed_messages(role, self_probe=True) == {m.StatusRequest} for role in Role)
    assert allowed_messages(Role.VENUE) == {m.ExecutionReport, m.StatusRequest, m.StatusReply}
    assert m.NewOrder in allowed_messages(Role.EXECUTOR)
    for role in (Role.TRADER, Role.RISK):
        assert allowed_messages(role).isdisjoint({m.NewOrder, m.OrderEvent, m.ExecutionReport, m.Hello, m.HelloAck})
        assert allowed_messages(role) >= {m.Submit, m.FrameVote, m.AppendEntries, m.Commit}


def test_every_wire_message_has_somebody_who_may_send_it() -> None:
    greeting = {m.Hello, m.HelloAck, m.Refused, m.Credit}
    said = {message for role in Role for message in allowed_messages(role)}
    assert said == set(m.WIRE_TYPES) - greeting


def test_identity_of_a_foreign_folder_is_not_loaded(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is missing"):
        replace(cluster, directory=tmp_path).identity("risk-1")
