"""What a breakable node lets be done to it, without processes."""

from __future__ import annotations

import random
from pathlib import Path

import msgspec
import pytest

from consensus.machine import HardState
from consensus.raft.config import RaftConfig, Role
from consensus.raft.core import Raft
from profiling.bench.lane.requests import ClockSetting, Members, Request, Verb
from profiling.bench.lane.site import LaneSite
from profiling.bench.lane.trials import SkewedClock, SkewedMachine, Trials
from tests.sim.plan import majority

SECOND_NS = 1_000_000_000


def machine(voters: tuple[int, ...] = (0,)) -> Raft:
    return Raft(0, voters, majority, random.Random(1), RaftConfig(), HardState(0, -1), [], roster=(0, 1, 2))


def test_a_clock_runs_on_from_where_it_was() -> None:
    clock = SkewedClock()
    assert clock.local_ns(5 * SECOND_NS) == 5 * SECOND_NS
    clock.set(ClockSetting(500_000), 5 * SECOND_NS)
    assert clock.local_ns(5 * SECOND_NS) == 5 * SECOND_NS
    assert clock.local_ns(7 * SECOND_NS) == 8 * SECOND_NS
    clock.set(ClockSetting(-500_000, step_ms=2000), 7 * SECOND_NS)
    assert clock.local_ns(7 * SECOND_NS) == 10 * SECOND_NS
    assert clock.local_ns(9 * SECOND_NS) == 11 * SECOND_NS
    clock.set(ClockSetting(), 9 * SECOND_NS)
    assert clock.local_ns(10 * SECOND_NS) == 12 * SECOND_NS


def test_a_machine_lives_by_its_own_clock() -> None:
    """A slow one has not reached its election when a true one has; a jump brings it there."""
    clock, raft = SkewedClock(), machine((0, 1, 2))
    skewed = SkewedMachine(raft, clock)
    skewed.tick(0)
    clock.set(ClockSetting(-900_000), 0)
    skewed.tick(SECOND_NS)
    assert raft.role is Role.FOLLOWER
    clock.set(ClockSetting(step_ms=1000), SECOND_NS)
    skewed.tick(SECOND_NS)
    assert raft.role is Role.PRE_CANDIDATE


@pytest.fixture
def trials(tmp_path: Path) -> Trials:
    return Trials(LaneSite(tmp_path, (4001, 4002, 4003), (5001, 5002, 5003), breakable=True), 0)


def asked(trials: Trials, verb: Verb, value: bytes, raft: Raft | None = None) -> str | None:
    return trials.undergo(Request(1, verb, value=value), raft or machine())


def test_a_leader_changes_its_members(trials: Trials) -> None:
    raft = machine()
    value = msgspec.json.encode(Members([0], [2]))
    assert asked(trials, Verb.MEMBERS, value, raft) == "not the leader"
    raft.tick(0)
    raft.tick(SECOND_NS)
    while not (ready := raft.take_ready()).empty:
        raft.persisted(ready)
    assert asked(trials, Verb.MEMBERS, value, raft) is None
    assert raft.membership.current.learners == (2,)
    assert asked(trials, Verb.MEMBERS, msgspec.json.encode(Members([0, 9])), raft) == "membership change under way"


@pytest.mark.parametrize(
    ("verb", "value"),
    [
        (Verb.CLOCK, b"fast"),
        (Verb.CLOCK, b'{"rate_ppm": -1000000}'),
        (Verb.CLOCK, b'{"step_ms": -1}'),
        (Verb.CLOCK, b'{"rate": 1}'),
        (Verb.MEMBERS, b"{}"),
        (Verb.MEMBERS, b'{"voters": ["zero"]}'),
    ],
)
def test_nonsense_is_refused_in_a_sentence(trials: Trials, verb: Verb, value: bytes) -> None:
    before_ns = trials.clock.local_ns(SECOND_NS)
    assert (asked(trials, verb, value) or "").startswith("the request makes no sense: ")
    assert trials.clock.local_ns(SECOND_NS) == before_ns


def test_nobody_is_cut_off_from_a_node_that_is_not_there(trials: Trials) -> None:
    assert trials.undergo(Request(1, Verb.CUT, b"\x03"), machine()) == "there is no such node"
    assert trials.undergo(Request(1, Verb.CUT, b"\x02"), machine()) is None
