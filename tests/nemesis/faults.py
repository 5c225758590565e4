"""The nemesis: hands that hurt a cluster at the same time, one its processes and disks, one its network, one its
clocks; and one changes its members meanwhile. What they do, and when, follows from the seed."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from profiling.bench.lane.requests import Verb
from tests.nemesis.cluster import Cluster

PROCESS_FAULTS: Final = ("kill", "kill_all", "pause", "full_disk", "slow_disk", "torn_log")
NETWORK_FAULTS: Final = ("isolate", "split", "one_way", "transfer", "part_clocks")
CLOCK_FAULTS: Final = ("clock_rate", "clock_step")
MEMBER_FAULTS: Final = ("learn", "promote", "remove", "replace")
HANDS: Final = (PROCESS_FAULTS, NETWORK_FAULTS, CLOCK_FAULTS, MEMBER_FAULTS)
FAULTS: Final = tuple(fault for hand in HANDS for fault in hand)
FULL_S: Final = 2.0
CHANGED_S: Final = 3.0
"""Within this a change of members is over, or it is given up: then it may yet happen."""
BEHIND_MAX: Final = 20
"""Entries that a learner may lack when it is made a voter."""
VOTERS_MIN: Final = 3
CALM_S: Final = 30.0
"""For so long a hand that could do nothing yet goes on after the others have let go: a slow machine needs it."""
LEADER_LOOKS: Final = 40
LEADER_LOOK_S: Final = 0.05


class Nemesis:
    """``run`` ends by itself; ``Cluster.heal`` mends what was left broken."""

    def __init__(self, cluster: Cluster, seed: int, faults: Sequence[str] = FAULTS, skew_ppm: int = 0) -> None:
        self.done: Counter[str] = Counter()
        self._cluster = cluster
        self._skew_ppm = skew_ppm
        self._seed = seed
        self._faults = faults
        self._down: set[int] = set()

    async def run(self, seconds: float) -> None:
        """Hurt it for so long."""
        until = time.monotonic() + seconds
        hands = [[each for each in self._faults if each in hand] for hand in HANDS]
        async with asyncio.TaskGroup() as group:
            for number, faults in enumerate(hands):
                if faults:
                    group.create_task(self._hand(faults, random.Random(f"hand/{self._seed}/{number}"), until))

    async def _hand(self, faults: list[str], rng: random.Random, until: float) -> None:
        """Every fault once in a drawn order, then again in another one; until one of them was done, at least."""
        waiting: list[str] = []
        while time.monotonic() < until or (time.monotonic() < until + CALM_S and not self._has_done(faults)):
            await asyncio.sleep(rng.uniform(0.1, 0.6))
            if not waiting:
                waiting = rng.sample(faults, len(faults))
            fault = waiting.pop()
            action: Callable[[random.Random], Awaitable[bool]] = getattr(self, f"_{fault}")
            if await action(rng):
                self.done[fault] += 1

    def _has_done(self, faults: Sequence[str]) -> bool:
        return any(self.done[fault] for fault in faults)

    async def _victim(self, rng: random.Random) -> int:
        """The leader half the time."""
        somebody, wants_leader = rng.choice(self._cluster.indices), rng.random() < 0.5
        leader = await self._cluster.leader() if wants_leader else None
        return somebody if leader is None else leader

    async def _leader(self) -> int | None:
        """The other hands may have to let go first."""
        for _ in range(LEADER_LOOKS):
            leader = await self._cluster.leader()
            if leader is not None:
                return leader
            await asyncio.sleep(LEADER_LOOK_S)
        return None

    # --- processes and disks -----------------------------------------------------------------------------------------

    async def _kill(self, rng: random.Random) -> bool:
        victim = await self._victim(rng)
        self._cluster.kill(victim)
        await asyncio.sleep(rng.choice((0.0, 0.5, 1.5)))
        await self._cluster.start(victim)
        return True

    async def _kill_all(self, rng: random.Random) -> bool:
        self._cluster.check_alive()
        self._cluster.kill(*self._cluster.indices)
        await self._cluster.start(*self._cluster.indices)
        return True

    async def _torn_log(self, rng: random.Random) -> bool:
        victim = await self._victim(rng)
        self._cluster.kill(victim)
        self._cluster.tear_log(victim, rng.randbytes(rng.choice((1, 24, 4096, 4120, 9000))))
        await self._cluster.start(victim)
        return True

    async def _pause(self, rng: random.Random) -> bool:
        victim = await self._victim(rng)
        self._cluster.pause(victim)
        await asyncio.sleep(rng.choice((0.2, 1.0, 2.0)))
        self._cluster.resume(victim)
        return True

    async def _full_disk(self, rng: random.Random) -> bool:
        """Not done when the victim had nothing to write meanwhile."""
        victim = await self._victim(rng)
        self._cluster.fill_disk(victim)
        ended = await self._cluster.ended_by_disk(victim, FULL_S)
        if ended:
            await self._cluster.start(victim)
        return ended

    async def _slow_disk(self, rng: random.Random) -> bool:
        victim = await self._victim(rng)
        self._cluster.slow_disk(victim, rng.choice((20, 100, 500)))
        await asyncio.sleep(rng.uniform(0.5, 2.0))
        self._cluster.slow_disk(victim, 0)
        return True

    # --- the network -------------------------------------------------------------------------------------------------

    async def _isolate(self, rng: random.Random) -> bool:
        victim = await self._victim(rng)
        others = tuple(index for index in self._cluster.indices if index != victim)
        return await self._partition(rng, {victim: others} | dict.fromkeys(others, (victim,)))

    async def _split(self, rng: random.Random) -> bool:
        """Into two parts, or into single nodes."""
        parts = rng.choice((2, len(self._cluster.indices)))
        part_of = {index: rng.randrange(parts) for index in self._cluster.indices}
        cuts = {index: tuple(other for other in part_of if part_of[other] != part) for index, part in part_of.items()}
        return await self._partition(rng, cuts)

    async def _one_way(self, rng: random.Random) -> bool:
        """The victim hears everybody and is heard by nobody, or the other way round."""
        victim, is_mute = await self._victim(rng), rng.random() < 0.5
        others = tuple(index for index in self._cluster.indices if index != victim)
        return await self._partition(rng, {victim: others} if is_mute else dict.fromkeys(others, (victim,)))

    async def _partition(self, rng: random.Random, cuts: dict[int, tuple[int, ...]]) -> bool:
        """A node that is down or stands still when it is asked takes no part, and one that comes back forgets it."""
        cut = await asyncio.gather(*(self._cluster.cut(index, others) for index, others in cuts.items()))
        await asyncio.sleep(rng.choice((0.5, 1.5, 3.0)))
        await asyncio.gather(*(self._cluster.cut(index, ()) for index in cuts))
        return any(cut)

    async def _transfer(self, rng: random.Random) -> bool:
        leader = await self._leader()
        if leader is None:
            return False
        target = rng.choice([index for index in self._cluster.indices if index != leader])
        return await self._cluster.request(leader, Verb.TRANSFER, b"%d" % target) is not None

    # --- clocks ------------------------------------------------------------------------------------------------------

    async def _clock_rate(self, rng: random.Random) -> bool:
        """Whoever starts again meanwhile has a clock that is right."""
        victim = await self._victim(rng)
        skewed = await self._cluster.set_clock(victim, rng.choice((-1, 1)) * self._skew_ppm)
        await asyncio.sleep(rng.uniform(0.5, 3.0))
        await self._cluster.set_clock(victim)
        return skewed

    async def _clock_step(self, rng: random.Random) -> bool:
        """No lease allows for that."""
        return await self._cluster.set_clock(await self._victim(rng), step_ms=rng.choice((50, 500, 60_000)))

    async def _part_clocks(self, rng: random.Random) -> bool:
        """The leader's runs slow, all others' fast, and nobody hears it any more: it believes in its lease for as long
        as it can, and they elect another one as soon as they may."""
        leader = await self._leader()
        if leader is None:
            return False
        others = [index for index in self._cluster.indices if index != leader]
        rates_ppm = {leader: -self._skew_ppm} | dict.fromkeys(others, self._skew_ppm)
        parted = await asyncio.gather(*(self._cluster.set_clock(*each) for each in rates_ppm.items()))
        await self._partition(rng, {leader: tuple(others)} | dict.fromkeys(others, (leader,)))
        await asyncio.gather(*(self._cluster.set_clock(index) for index in rates_ppm))
        return all(parted)

    # --- members -----------------------------------------------------------------------------------------------------

    async def _learn(self, rng: random.Random) -> bool:
        """Somebody new gets the log, and does not vote."""
        leader, voters, learners = await self._members()
        outsiders = sorted({*self._cluster.indices} - {*voters, *learners})
        if leader is None or not outsiders:
            return False
        return await self._change(leader, voters, [*learners, rng.choice(outsiders)])

    async def _promote(self, rng: random.Random) -> bool:
        """A learner that has the log votes."""
        leader, voters, learner = await self._grown(rng)
        return leader is not None and await self._change(leader, [*voters, learner], [])

    async def _remove(self, rng: random.Random) -> bool:
        """A voter is none any more, perhaps the leader itself."""
        leader, voters, learners = await self._members()
        if leader is None or len(voters) <= VOTERS_MIN:
            return False
        victim = rng.choice(voters)
        return await self._change(leader, [each for each in voters if each != victim], learners)

    async def _replace(self, rng: random.Random) -> bool:
        """One goes and another one comes, in one joint configuration."""
        leader, voters, learner = await self._grown(rng)
        if leader is None:
            return False
        victim = rng.choice(voters)
        return await self._change(leader, [learner, *(each for each in voters if each != victim)], [])

    async def _members(self) -> tuple[int | None, list[int], list[int]]:
        """Leader, voters and learners; no leader while a change is under way."""
        leader = await self._cluster.leader()
        status = {} if leader is None else await self._cluster.status(leader)
        if status.get("role") != "leader" or status["outgoing"]:
            return None, [], []
        return leader, status["voters"], status["learners"]

    async def _grown(self, rng: random.Random) -> tuple[int | None, list[int], int]:
        """Leader, voters and a learner that has the log; no leader when nobody gets so far in time."""
        until = time.monotonic() + CHANGED_S
        while time.monotonic() < until:
            leader, voters, learners = await self._members()
            status = {} if leader is None else await self._cluster.status(leader)
            for learner in learners:
                match = status.get("followers", {}).get(str(learner), {}).get("match", 0)
                if match and match + BEHIND_MAX >= status["commit_index"]:
                    return leader, voters, learner
            if leader is not None and not learners:
                await self._learn(rng)
            await asyncio.sleep(0.05)
        return None, [], 0

    async def _change(self, leader: int, voters: Sequence[int], learners: Sequence[int]) -> bool:
        """Whether exactly these are members before long."""
        until = time.monotonic() + CHANGED_S
        begun = await self._cluster.change_members(leader, voters, learners)
        while begun and time.monotonic() < until:
            if (await self._members())[1:] == (sorted(voters), sorted(learners)):
                return True
            await asyncio.sleep(0.05)
        return False
