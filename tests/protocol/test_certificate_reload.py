"""New certificates for running endpoints: old connections stand until new ones do, expired and revoked ones end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from protocol import messages as m
from protocol.codec import codec_for
from protocol.endpoint import Endpoint, client_request
from protocol.errors import LocalMisuse, Unavailable
from protocol.pki import Authority, Subject, issue_cluster
from protocol.revocation import LIST_NAME, sign_revocations
from protocol.roster import Role
from tests.oracles.clusters import CLUSTER, ROLES, TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import Recorder, until

NAMES = ("trader-1", "risk-1")


class Town:
    """trader-1, who dials, and risk-1, with certificates that can be issued anew."""

    def __init__(self, cluster: Cluster, transports: tuple[str, str]) -> None:
        self.cluster = cluster
        self.list_number = 0
        self.heard = [Recorder(), Recorder()]
        self.ends: list[Endpoint] = []
        for (agent_id, transport), recorder in zip(zip(NAMES, transports, strict=True), self.heard, strict=True):
            endpoint = Endpoint(
                cluster.identity(agent_id),
                cluster.roster,
                codec_for("capnp"),
                on_message=recorder.on_message,
                on_peer_change=recorder.on_peer_change,
                rng=random.Random(7),
                transport=transport,
            )
            self.ends.append(endpoint)

    async def meet(self) -> None:
        await until(lambda: self.ends[0].connected == {1} and self.ends[1].connected == {0})

    def issue(self, authority: Authority | None = None) -> None:
        """From a new authority, as ``swarm init --renew`` does without the old one's key; the signing keys stay."""
        subjects = [Subject(agent_id, role, "127.0.0.1") for agent_id, role in ROLES.items()]
        issue_cluster(self.cluster.directory, CLUSTER, subjects, authority=authority or Authority.create(CLUSTER))

    def revoke(self, number: int) -> None:
        self.revoke_serial(self.cluster.identity(NAMES[number]).certificate.serial_number)

    def revoke_serial(self, serial: int) -> None:
        """Put a list with this one entry into both folders."""
        self.list_number += 1
        now = datetime.now(UTC)
        signed = sign_revocations(self.cluster.authority, {serial: now}, self.list_number, now=now, valid_hours=24)
        for agent_id in (*NAMES, "operator-1"):
            (self.cluster.directory / agent_id / LIST_NAME).write_bytes(signed)

    def reload(self, number: int) -> None:
        self.ends[number].reload(self.cluster.identity(NAMES[number]))

    def connects(self) -> int:
        statistics = self.ends[0].statistics()["peers"]["risk-1"]
        return int(statistics["reconnects"])


@pytest.fixture(params=TRANSPORT_PAIRS)
async def town(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Town]:
    dialler, listener = request.param.split(" dials ")
    made = Town(make_cluster(tmp_path), (dialler, listener))
    for endpoint in made.ends:
        await endpoint.start()
    await made.meet()
    yield made
    await asyncio.gather(*(endpoint.close() for endpoint in made.ends))


def commit(number: int) -> m.Commit:
    return m.Commit(0, number, bytes(32), 0, bytes(64))


async def test_a_new_connection_replaces_the_old_one_and_nothing_is_lost(town: Town) -> None:
    town.issue()
    town.reload(1)  # the listener first
    town.reload(0)
    sent = 0
    while town.connects() == 0 and sent < 2_000:
        sent += town.ends[0].send(1, commit(sent))
        await asyncio.sleep(0.001)
    assert town.connects() == 1
    await town.meet()
    for _ in range(20):
        sent += town.ends[0].send(1, commit(sent))
        await asyncio.sleep(0.001)
    await until(lambda: len(town.heard[1].messages) == sent)
    numbers = [message.sequence for _, _, message in town.heard[1].messages]  # type: ignore[attr-defined]
    assert sorted(numbers) == list(range(sent)), "the last of the old may be overtaken by the first of the new"
    await asyncio.sleep(0.3)
    assert town.connects() == 1, "and it is not replaced again"


async def test_the_old_connection_stands_until_the_other_side_has_new_certificates_too(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.endpoint.RENEW_RETRY_S", 0.1)
    town.issue()
    town.reload(0)
    await until(lambda: town.ends[0].refused.total() >= 1)
    assert town.ends[0].connected == {1} and town.connects() == 0
    assert town.ends[0].send(1, commit(1))
    await until(lambda: len(town.heard[1].messages) == 1)
    town.reload(1)
    await until(lambda: town.connects() == 1, 10)
    await town.meet()


async def test_a_listener_alone_goes_on_with_what_it_has(town: Town) -> None:
    town.issue()
    town.reload(1)
    await asyncio.sleep(0.2)
    assert town.ends[0].connected == {1} and town.connects() == 0


@pytest.mark.parametrize("end", [0, 1])
async def test_an_expired_certificate_ends_its_connection(town: Town, end: int) -> None:
    """At either end, wherever it was shown."""
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    old = town.cluster.authority.issue(Subject("x", Role.RISK, ""), key, now=datetime.now(UTC) - timedelta(days=3))
    link = next(link for link in town.ends[end]._driver._links if link.greeted)
    assert link.connection.peer_certificate is not None
    link.connection.peer_certificate = old
    await until(lambda: town.ends[end].refused["certificate_expired"] == 1)
    await until(lambda: town.connects() == 1, 10)


# --- revoked certificates ---


@pytest.mark.parametrize("revoked", [0, 1])
async def test_a_revoked_certificate_loses_its_connection_and_gets_no_new_one(town: Town, revoked: int) -> None:
    """The one who knows of it is the listener or the dialler; the other is told why, and stays out."""
    knows = 1 - revoked
    town.revoke(revoked)
    town.reload(knows)
    await until(lambda: town.ends[knows].connected == frozenset())
    await until(lambda: town.ends[revoked].connected == frozenset())
    await until(lambda: town.ends[knows].refused["certificate_revoked"] >= 2, 10)
    await until(lambda: town.ends[revoked].last_refusal(knows) == "certificate_revoked")
    assert town.ends[knows].statistics()["revocations"]["revoked"] == 1
    assert town.ends[knows].connected == town.ends[revoked].connected == frozenset()


async def test_a_new_certificate_of_the_same_agent_is_admitted(town: Town) -> None:
    town.revoke(0)
    town.reload(1)
    await until(lambda: town.ends[1].refused["certificate_revoked"] >= 1)
    town.issue(town.cluster.authority)
    town.reload(0)
    await town.meet()
    assert town.ends[0].statistics()["revocations"]["revoked"] == 1, "the list is still there"


async def test_a_list_that_names_somebody_else_changes_nothing(town: Town) -> None:
    town.revoke_serial(17)
    for end in (0, 1):
        town.reload(end)
    await asyncio.sleep(0.2)
    assert town.connects() == 0, "and nobody is dialled anew for it"
    await town.meet()


async def test_a_probe_and_its_target_look_at_the_list_too(town: Town) -> None:
    risk, operator = town.cluster.agent("risk-1"), town.cluster.identity("operator-1")
    town.revoke(1)
    with pytest.raises(Unavailable, match="certificate_revoked"):
        await client_request(town.cluster.identity("operator-1"), town.cluster.roster, risk, m.StatusRequest(1, 0), 5)
    town.revoke_serial(operator.certificate.serial_number)
    town.reload(1)
    with pytest.raises(Unavailable, match="certificate_revoked"):
        await client_request(operator, town.cluster.roster, risk, m.StatusRequest(1, 0), 5)
    assert town.ends[1].refused["certificate_revoked"] == 1


async def test_another_agents_identity_is_our_own_mistake(town: Town) -> None:
    with pytest.raises(LocalMisuse):
        town.ends[0].reload(town.cluster.identity("risk-2"))
