"""What one seed stands for: the cluster, and the list of everything that will go wrong in it.

The faults are drawn before the run, so that a run can be repeated without some of them. Each seed leaves some kinds of
fault out and favours others ("swarm testing", Groce et al. 2012): a fault that comes too often hides what others find.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from consensus.raft.config import RaftConfig

MILLISECOND_NS: Final = 1_000_000
SECOND_NS: Final = 1000 * MILLISECOND_NS

NERVOUS: Final = RaftConfig(
    heartbeat_ns=15 * MILLISECOND_NS,
    election_timeout_min_ns=50 * MILLISECOND_NS,
    election_timeout_max_ns=100 * MILLISECOND_NS,
    entries_per_append_max=4,
    bytes_per_append_max=400,
    inflight_appends_max=2,
    clock_drift_ppm=50_000,
    snapshots=True,
    snapshot_chunk_bytes_max=900,
    inflight_bytes_max=600,
    uncommitted_bytes_max=1500,
    committed_bytes_per_ready_max=500,
)
"""Short timeouts beside slow disks and networks: many elections, and many logs that differ."""

LEASING: Final = dataclasses.replace(
    NERVOUS,
    lease_reads=True,
    election_timeout_min_ns=100 * MILLISECOND_NS,
    election_timeout_max_ns=300 * MILLISECOND_NS,
)
"""A leader that goes on for long without a quorum: only its lease keeps it from answering with what is past."""

WILD_PPM: Final = 300_000
"""Where nothing rests on leases, safety must survive clocks that are off by this much."""


def majority(voters: int) -> int:
    """The smallest quorum that any two share a member of."""
    return voters // 2 + 1


def byzantine_quorum(voters: int) -> int:
    """q = ceil((n+f+1)/2) for the largest f that n can bear."""
    return (voters + (voters - 1) // 3 + 2) // 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong, or is mended. ``verb`` is a method of ``tests.sim.faults.Faults``."""

    at_ns: int
    verb: str
    arguments: tuple[int, ...] = ()
    """Where a replica is meant, -1 is the first of those that take themselves for the leader, -2 the next, and so on;
    who that is turns out in the run."""

    def __str__(self) -> str:
        return " ".join([f"{self.at_ns / MILLISECOND_NS:8.1f} ms ", self.verb, *map(str, self.arguments)])


@dataclass(frozen=True, slots=True)
class Plan:
    """A run to be made. ``faults`` are in the order of their times, and come before ``end_ns``; then all is mended."""

    seed: int
    voters: int
    spares: int
    config: RaftConfig
    quorum_size: Callable[[int], int]
    drift_ppm: int
    clients: int
    faults: tuple[Fault, ...]
    end_ns: int
    isolates_leader: bool
    """At the end a leader is cut off for good, and must notice."""
    clocks_apart: bool = False
    """Clocks run as fast as ``drift_ppm`` lets them, but for those that faults make as slow."""

    def with_only(self, kept: Iterable[int]) -> Plan:
        """The same with the faults at these places alone."""
        faults = tuple(self.faults[place] for place in sorted(set(kept)))
        return dataclasses.replace(self, faults=faults)

    def ending_at(self, end_ns: int) -> Plan:
        """The same, mended from then on."""
        faults = tuple(fault for fault in self.faults if fault.at_ns <= end_ns)
        return dataclasses.replace(self, faults=faults, end_ns=end_ns)


def plan_of(seed: int) -> Plan:
    """The one plan that this seed stands for."""
    rng = random.Random(f"plan/{seed}")
    voters = rng.choice((3, 3, 4, 4, 4, 5, 7))
    spares = 3 if rng.random() < 0.25 else 0
    config = rng.choice((NERVOUS, LEASING))
    faults, end_ns = _faults(rng, voters + spares, spares > 0, config, rounds=50 if seed % 32 == 31 else 10)
    plan = Plan(
        seed,
        voters,
        spares,
        config,
        byzantine_quorum if rng.random() < 0.7 else majority,
        WILD_PPM if not config.lease_reads and rng.random() < 0.3 else config.clock_drift_ppm,
        rng.choice((3, 5, 8)),
        faults,
        end_ns,
        isolates_leader=rng.random() < 0.1,
    )
    commit_delay_ns = rng.choice((0, 0, 10)) * MILLISECOND_NS
    # Drawn apart from the rest, as bad clocks are: other seeds stay what they are known for.
    thrift_delay_ns = random.Random(f"thrift/{seed}").choice((0, 0, 3, 30)) * MILLISECOND_NS
    config = dataclasses.replace(config, commit_delay_ns=commit_delay_ns, thrift_delay_ns=thrift_delay_ns)
    plan = dataclasses.replace(plan, config=config)
    return _with_bad_clocks(plan, random.Random(f"drift/{seed}"))


def _with_bad_clocks(plan: Plan, rng: random.Random) -> Plan:
    """One plan in four. Where reads rest on leases, clocks are as far apart as these allow, and they allow for much;
    elsewhere clocks step forward. Drawn apart from the rest, so that other seeds stay what they are known for."""
    if rng.random() >= 0.25:
        return plan
    if plan.config.lease_reads:
        return _with_clocks_apart(plan, rng)
    replicas, first_ns = plan.voters + plan.spares, plan.config.election_timeout_min_ns
    steps = [
        Fault(rng.randint(first_ns, plan.end_ns), "clock_step", (_anybody(rng, replicas), rng.choice((10, 100, 3000))))
        for _ in range(rng.randint(1, 6))
    ]
    faults = sorted([*plan.faults, *steps], key=lambda fault: fault.at_ns)
    return dataclasses.replace(plan, faults=tuple(faults))


def _with_clocks_apart(plan: Plan, rng: random.Random) -> Plan:
    """A lease is tested by a leader with a slow clock that is cut off while others, with fast ones, elect another as
    soon as they may."""
    min_ns = plan.config.election_timeout_min_ns
    config = dataclasses.replace(plan.config, clock_drift_ppm=WILD_PPM, election_timeout_max_ns=min_ns * 13 // 10)
    at_ns = plan.end_ns // 2
    faults = [fault for fault in plan.faults if fault.at_ns <= at_ns]
    for _ in range(3):
        strand_ns = at_ns + int(rng.uniform(1, 2) * min_ns)
        faults += [Fault(at_ns, "heal"), Fault(strand_ns - min_ns // 2, "clock_rate", (-1, -100))]
        faults.append(Fault(strand_ns, "strand", (-1,)))
        at_ns = strand_ns + 2 * min_ns
    return dataclasses.replace(
        plan, config=config, drift_ppm=WILD_PPM, clocks_apart=True, faults=tuple(faults), end_ns=at_ns
    )


@dataclass(frozen=True)
class _Kind:
    """How often a fault comes beside the others, how it is drawn, and how long it is left alone."""

    weight: float
    arguments: Callable[[random.Random, int], tuple[int, ...]]
    quiet_ms: tuple[int, int] = (2, 50)


def _anybody(rng: random.Random, replicas: int) -> int:
    """Often the leader."""
    return -rng.randint(1, 2) if rng.random() < 0.5 else rng.randrange(replicas)


def _side(rng: random.Random, replicas: int) -> tuple[int, ...]:
    """One to half of them, as VOPR's partitions are: now one alone, now any split."""
    others = rng.sample(range(replicas), rng.randint(0, replicas // 2))
    return (_anybody(rng, replicas), *others)


def _members(rng: random.Random, replicas: int) -> tuple[int, ...]:
    """Whom to ask, how many voters, and everybody in the order of preference."""
    return (_anybody(rng, replicas), rng.randint(2, 5), *rng.sample(range(replicas), replicas))


KINDS: Final = {
    "crash": _Kind(8, lambda rng, n: (_anybody(rng, n),)),
    "crash_at_write": _Kind(6, lambda rng, n: (_anybody(rng, n), rng.randint(1, 4))),
    "restart": _Kind(12, lambda rng, n: (rng.randrange(n),)),
    "storm": _Kind(2, lambda rng, n: (rng.randint(1, 3), rng.choice((1, 20, 120))), (50, 150)),
    "pause": _Kind(6, lambda rng, n: (_anybody(rng, n), rng.choice((5, 40, 150, 400)))),
    "slow_disk": _Kind(3, lambda rng, n: (_anybody(rng, n), rng.choice((40, 150)))),
    "spoil_disk": _Kind(2, lambda rng, n: (rng.randrange(n),)),
    "partition": _Kind(8, _side, (5, 120)),
    "cut": _Kind(6, lambda rng, n: (_anybody(rng, n), rng.randrange(n))),
    "strand": _Kind(8, lambda rng, n: (-rng.randint(1, 2),), (40, 200)),
    "weather": _Kind(7, lambda rng, n: (*(rng.randint(0, 30) for _ in range(4)), rng.choice((5, 5, 60)))),
    "heal": _Kind(12, lambda rng, n: (), (10, 80)),
    "transfer": _Kind(5, lambda rng, n: (-rng.randint(1, 2), rng.randrange(n))),
    "transfer_and_strand": _Kind(
        4, lambda rng, n: (-rng.randint(1, 2), rng.randrange(n), rng.randint(1, 6)), (40, 200)
    ),
    "clock_rate": _Kind(2, lambda rng, n: (rng.randrange(n), rng.randint(-100, 100))),
    "reconnect": _Kind(2, lambda rng, n: (rng.randrange(n), rng.randrange(n))),
}
_CHANGE: Final = _Kind(26, _members)
_MENDS: Final = ("heal", "restart")


def _faults(
    rng: random.Random, replicas: int, changes: bool, config: RaftConfig, rounds: int
) -> tuple[tuple[Fault, ...], int]:
    kinds = KINDS | ({"change": _CHANGE} if changes else {})
    weights = [_skewed(rng, name, kind.weight) for name, kind in kinds.items()]
    at_ns = config.election_timeout_min_ns
    faults = []
    for verb in rng.choices(list(kinds), weights, k=rounds):
        faults.append(Fault(at_ns, verb, kinds[verb].arguments(rng, replicas)))
        at_ns += int(rng.uniform(*kinds[verb].quiet_ms) * MILLISECOND_NS)
    return tuple(faults), at_ns


def _skewed(rng: random.Random, name: str, weight: float) -> float:
    if name in _MENDS:
        return weight
    return 0 if rng.random() < 0.3 else weight * rng.uniform(0.3, 2.5)
