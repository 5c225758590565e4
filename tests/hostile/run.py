"""A run from one number: which attacks, in which order, with what in them."""

from __future__ import annotations

import asyncio
import random
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from unittest import mock

from protocol.quic.chaos import Network
from protocol.quic.port import UdpPort
from tests.fuzz.judge import Wrong
from tests.hostile import member, member_quic, stranger
from tests.hostile.member import Attack
from tests.hostile.world import World, hostile_cluster, resident_bytes
from tests.oracles.clusters import Cluster
from tests.oracles.virtual_network import MemoryNetwork, VirtualLoop, run_virtually

ATTACKS: Final[dict[str, Attack]] = {
    attack.__name__: attack for attack in (*member.ATTACKS, *member_quic.ATTACKS, *stranger.ATTACKS)
}
BAN_S: Final = 0.2
"""Instead of half a minute: the attackers would be out most of the time. ``test_hostile`` waits out a whole one."""
STANDSTILL_S_MAX: Final = 4.0
WARM_STEPS: Final = 10
"""After so many attacks memory is what it will be."""
WIRES_MAX: Final = 24


@dataclass(frozen=True)
class Plan:
    """What a run does. ``virtual``: in memory and in virtual time, not over sockets."""

    seed: int
    steps: int = 100
    transport: str = "aioquic"
    virtual: bool = False
    attacks: tuple[str, ...] = tuple(ATTACKS)


@dataclass
class Outcome:
    """What came of it; ``failure`` is what must not have happened."""

    plan: Plan
    steps: Counter[str] = field(default_factory=Counter)
    refused: dict[str, int] = field(default_factory=dict)
    honest_messages: int = 0
    hostile_messages: int = 0
    growth_bytes: int = 0
    seconds: float = 0.0
    standstill_s: float = 0.0
    failure: str | None = None

    def figures(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "seed": self.plan.seed,
            "transport": self.plan.transport,
            "steps": self.steps.total(),
            "seconds": round(self.seconds, 1),
            "honest_messages": self.honest_messages,
            "hostile_messages": self.hostile_messages,
            "growth_bytes": self.growth_bytes,
            "standstill_s": round(self.standstill_s, 2),
            "refused": self.refused,
            "failure": self.failure,
        }

    @property
    def disturbed(self) -> bool:
        """Whether the machine let the process wait so long that connections end by themselves: nothing can be said."""
        return self.standstill_s > STANDSTILL_S_MAX

    @property
    def command(self) -> str:
        """Runs it again."""
        chosen = "" if self.plan.attacks == tuple(ATTACKS) else f" --attacks {' '.join(self.plan.attacks)}"
        where = " --virtual" if self.plan.virtual else ""
        return (
            f"python -m tests.hostile --seed {self.plan.seed} --steps {self.plan.steps} "
            f"--transport {self.plan.transport}{where}{chosen}"
        )


def order(plan: Plan) -> list[str]:
    """Every attack once in a shuffled order, and again, until there are enough."""
    rng, names = random.Random(plan.seed), list(plan.attacks)
    found: list[str] = []
    while len(found) < plan.steps:
        rng.shuffle(names)
        found += names
    return found[: plan.steps]


def run(plan: Plan, cluster: Cluster | None = None) -> Outcome:
    """Stops at the first failure."""
    outcome, began = Outcome(plan), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder, mock.patch("protocol.offences.BAN_S", BAN_S):
        cluster = (cluster or hostile_cluster(Path(folder))).moved()
        if plan.virtual:
            run_virtually(lambda loop: _live(_virtual_world(plan, cluster, loop), outcome))
        else:
            asyncio.run(_live(World(cluster, UdpPort, time.monotonic, plan.transport, plan.seed), outcome))
    outcome.seconds = time.perf_counter() - began
    return outcome


def _virtual_world(plan: Plan, cluster: Cluster, loop: VirtualLoop) -> World:
    network = MemoryNetwork(loop, Network(rtt=0.001), plan.seed)
    return World(cluster, network.port, loop.time, plan.transport, plan.seed)


async def _live(world: World, outcome: Outcome) -> None:
    try:
        await world.begin()
        await _attack(world, outcome, order(outcome.plan))
        await world.end()
        world.check()
    except Wrong as wrong:
        outcome.failure = str(wrong)
    outcome.refused = dict(world.victim.refused)
    outcome.honest_messages = sum(talk.heard.total() for talk in world.talks.values())
    outcome.standstill_s = world.standstill_s
    outcome.hostile_messages = world.heard_of_hostile


async def _attack(world: World, outcome: Outcome, names: Sequence[str]) -> None:
    for position, name in enumerate(names):
        await ATTACKS[name](world, random.Random(f"{outcome.plan.seed}/{position}"))
        outcome.steps[name] += 1
        try:
            world.check()
        except Wrong as wrong:
            raise Wrong(f"step {position}, {name}: {wrong}") from None
        if position == WARM_STEPS:
            world.memory_bytes = resident_bytes()
        if world.memory_bytes:
            outcome.growth_bytes = max(outcome.growth_bytes, resident_bytes() - world.memory_bytes)
        if len(world.wires) > WIRES_MAX:
            world.drop_wires()
