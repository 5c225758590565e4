"""New certificates for running endpoints: old connections stand until new ones do, expired ones end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from protocol import messages as m
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from protocol.errors import LocalMisuse
from protocol.pki import Authority, Subject, issue_cluster
from tests.oracles.clusters import CLUSTER, ROLES, TRANSPORT_PAIRS, Cluster, make_cluster
from tests.oracles.strangers import Recorder, until


class Town:
    """trader-1, who dials, and risk-1, with certificates that can be issued anew."""

    def __init__(self, cluster: Cluster, transports: tuple[str, str]) -> None:
        self.cluster = cluster
        self.heard = [Recorder(), Recorder()]
        self.ends: list[Endpoint] = []
        for (agent_id, transport), recorder in zip(
            zip(("trader-1", "risk-1"), transports, strict=True), self.heard, strict=True
        ):
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

    def issue(self) -> None:
        """From a new authority, as ``swarm init --renew`` does; the signing keys stay."""
        subjects = [Subject(agent_id, role, "127.0.0.1") for agent_id, role in ROLES.items()]
        issue_cluster(self.cluster.directory, CLUSTER, subjects, authority=Authority.create(CLUSTER))

    def reload(self, number: int) -> None:
        agent_id = ("trader-1", "risk-1")[number]
        self.ends[number].reload(self.cluster.identity(agent_id))

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


async def test_an_expired_certificate_ends_its_connection(town: Town) -> None:
    """The dialler's view of the listener's; one that asks for certificates sees the dialler's in the same way."""
    link = next(link for link in town.ends[0]._driver._links if link.greeted)
    assert link.connection.peer_valid_until is not None
    link.connection.peer_valid_until = datetime.now(UTC) - timedelta(seconds=1)  # type: ignore[misc]
    await until(lambda: town.ends[0].refused["certificate_expired"] == 1)
    await until(lambda: town.connects() == 1, 10)


async def test_another_agents_identity_is_our_own_mistake(town: Town) -> None:
    with pytest.raises(LocalMisuse):
        town.ends[0].reload(town.cluster.identity("risk-2"))
