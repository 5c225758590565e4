"""A short run of the hostile peer over loopback, a longer one in virtual time, a soak; the oracle itself can fail."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from protocol import messages as m
from protocol.intake import Intake
from protocol.offences import BAN_S
from protocol.peer import Peer
from protocol.quic.backend import TRANSPORTS
from protocol.quic.chaos import Network
from tests.hostile import member, member_quic, stranger
from tests.hostile.run import ATTACKS, Outcome, Plan, order, run
from tests.hostile.world import World, hostile_cluster
from tests.oracles.clusters import Cluster
from tests.oracles.virtual_network import MemoryNetwork, VirtualLoop, run_virtually

SLOW = ("before_acknowledgement", "foreign_certificate", "initial_flood", "never_reads", "crumbs")
"""Attacks that wait, or send a lot; ``test_found`` has what matters of them."""
QUICK = tuple(name for name in ATTACKS if name not in SLOW)


@pytest.fixture(scope="module")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return hostile_cluster(tmp_path_factory.mktemp("hostile"))


def well(plan: Plan, issued: Cluster) -> Outcome:
    """A run in which nothing was wrong. One that the machine has disturbed is repeated, with the next seed."""
    outcome = run(plan, issued)
    for seed in range(plan.seed + 1, plan.seed + 3):
        if outcome.failure is None or not outcome.disturbed:
            break
        outcome = run(replace(plan, seed=seed), issued)
    assert outcome.failure is None, f"{outcome.failure}\n  {outcome.command}"
    assert outcome.steps.total() == outcome.plan.steps
    assert outcome.honest_messages > 100
    return outcome


def test_every_attack_once_in_virtual_time(issued: Cluster) -> None:
    outcome = well(Plan(seed=1, steps=len(ATTACKS), virtual=True), issued)
    assert set(outcome.steps) == set(ATTACKS)
    assert len(outcome.refused) >= 6, outcome.refused


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_short_run_over_loopback(issued: Cluster, transport: str) -> None:
    outcome = well(Plan(seed=2, steps=16, transport=transport, attacks=QUICK), issued)
    assert outcome.hostile_messages > 0


@pytest.mark.soak
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("virtual", [False, True], ids=["loopback", "virtual"])
def test_two_thousand_attacks(issued: Cluster, transport: str, virtual: bool) -> None:
    well(Plan(seed=7, steps=2000, transport=transport, virtual=virtual), issued)


def test_a_seed_is_an_order() -> None:
    first, again, other = (order(Plan(seed, steps=70)) for seed in (5, 5, 6))
    assert first == again != other
    assert set(first) == set(ATTACKS) and len(first) == 70


def test_three_offences_keep_a_member_out_for_half_a_minute(issued: Cluster) -> None:
    """However often it dials meanwhile; strangers who use its name change nothing about that."""

    async def offend(loop: VirtualLoop) -> tuple[float, int]:
        world = World(issued.moved(), MemoryNetwork(loop, Network(rtt=0.001), 1).port, loop.time, "aioquic", 1)
        await world.begin()
        wire = world.dialler()
        wire.dial(world.victim_address)
        assert await wire.greet()
        for _ in range(3):
            wire.say(m.NewOrder("A", 0, 1, 0, 1, 1, 0), channel=2)
        assert await wire.until(lambda: world.victim.refused["offences"] == 1)
        banned_at, dials = loop.time(), 0
        while True:
            dials += 1
            again = world.dialler(epoch=wire.epoch)
            again.dial(world.victim_address)
            if await again.greet():
                break
            assert world.victim.refused["banned"] == dials
            await asyncio.sleep(1.0)
            world.drop_wires()
        out_s = loop.time() - banned_at
        await world.end()
        world.check()
        return out_s, dials

    out_s, dials = run_virtually(offend)
    assert BAN_S <= out_s < BAN_S + 4
    assert dials > 15


# --- the oracle ---


@pytest.mark.sources
def test_the_oracle_sees_what_is_lost_or_doubled(issued: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Peer._handle_batch

    def twice(self: Peer, payload: bytes, channel: Any) -> None:
        self._sequence_in._last[channel] = 0
        original(self, payload, channel)
        self._sequence_in._last[channel] = 0
        original(self, payload, channel)

    monkeypatch.setattr(Peer, "_handle_batch", twice)
    outcome = run(Plan(seed=1, steps=2, virtual=True, attacks=("replays",)), issued)
    assert outcome.failure is not None and "heard" in outcome.failure


@pytest.mark.sources
def test_the_oracle_sees_what_breaks(issued: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Intake, stream_id: int, data: bytes) -> list[bytes]:
        raise IndexError("a defect")

    async def attack(world: World, rng: Any) -> None:
        monkeypatch.setattr(Intake, "read", broken)
        await asyncio.sleep(0.1)

    monkeypatch.setitem(ATTACKS, "replays", attack)
    outcome = run(Plan(seed=1, steps=2, virtual=True, attacks=("replays",)), issued)
    assert outcome.failure is not None and "IndexError: a defect" in outcome.failure
    assert outcome.command.endswith("--virtual --attacks replays")


def test_everything_that_is_written_is_run() -> None:
    """An attack that is missing from the lists would never be seen to be missing."""
    for module in (member, member_quic, stranger):
        written = {name for name, each in vars(module).items() if asyncio.iscoroutinefunction(each)}
        helpers = {"greeted", "pause", "flood"}
        assert written - helpers == {attack.__name__ for attack in module.ATTACKS}
