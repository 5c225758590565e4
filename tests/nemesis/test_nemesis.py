"""Real processes, real QUIC, real disks, hurt for a while: what clients saw is linearizable, and nothing is lost."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from profiling.bench.lane.site import make_site
from tests.nemesis import cluster
from tests.nemesis.campaign import Outcome, Plan, run
from tests.nemesis.cluster import Cluster, NodeFailed
from tests.nemesis.disks import Disks
from tests.nemesis.faults import MEMBER_FAULTS
from tests.nemesis.verdict import judged, second_opinion, with_stale_read
from tests.oracles.linearizability import violation

pytestmark = [pytest.mark.processes, pytest.mark.timeout(300)]

SOAK = [
    Plan(21, 60.0, clients=8),
    Plan(22, 60.0, nodes=5, clients=8),
    Plan(23, 60.0, clients=8, snapshot_every=50),
    Plan(24, 60.0, nodes=5, clients=8, snapshot_every=200, transport="qh3"),
    Plan(25, 60.0, clients=8, transport="qh3"),
    Plan(26, 60.0, clients=8, spares=2),
    Plan(27, 60.0, clients=8, spares=2, snapshot_every=50, lease_reads=True),
]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    return asyncio.run(run(tmp_path_factory.mktemp("nemesis"), Plan(1, 6.0, spares=1, lease_reads=True)))


def test_what_clients_saw_is_linearizable_and_logs_agree(outcome: Outcome) -> None:
    assert outcome.wrong() is None
    assert len(outcome.faults) >= 5
    assert sum(each.returned_ns is not None for each in outcome.history) > 100


def test_members_came_and_went_meanwhile(outcome: Outcome) -> None:
    assert sum(outcome.faults[each] for each in MEMBER_FAULTS) >= 1
    assert any(each.learners or each.joint for each in outcome.configurations)


def test_both_checkers_reject_the_same_history_with_a_stale_read(outcome: Outcome) -> None:
    corrupted = with_stale_read(outcome.history)
    assert "nothing explains client -1 get" in (violation(corrupted) or "")
    assert "no valid ordering can explain" in (second_opinion(corrupted) or "")


def test_a_node_that_hangs_at_its_start_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "START_S", 2.0)
    with pytest.raises(NodeFailed, match=r"(?s)did not start, it ended with -6: .*most recent call first"):
        asyncio.run(run(tmp_path, Plan(1, 1.0, broken="hangs")))


@pytest.mark.soak
def test_a_machine_that_stood_still_is_no_node_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A virtual machine is stopped for a while now and then, and all clocks go on."""
    monkeypatch.setattr(cluster, "START_S", 5.0)

    async def scenario() -> None:
        nodes = Cluster(make_site(tmp_path, 1, breakable=True), Disks())
        starting = asyncio.create_task(nodes.start(0))
        await asyncio.sleep(0.1)
        time.sleep(6.0)  # noqa: ASYNC251  # the loop stands still too
        await starting
        nodes.close()

    asyncio.run(scenario())


@pytest.mark.soak
def test_a_full_file_system_stops_its_node_and_costs_nothing(tmp_path: Path) -> None:
    """The nemesis itself checks that it stops with one line and 1."""
    outcome = asyncio.run(run(tmp_path, Plan(1, 8.0, faults=("full_disk",), small_disks=True)))
    assert outcome.wrong() is None
    assert outcome.faults["full_disk"] >= 2


@pytest.mark.soak
@pytest.mark.parametrize("plan", SOAK, ids=lambda plan: str(plan.seed))
def test_longer_runs(tmp_path: Path, plan: Plan) -> None:
    outcome = asyncio.run(run(tmp_path, plan))
    assert outcome.wrong() is None
    assert set(outcome.faults) == set(plan.possible)


@pytest.mark.parametrize(
    "broken", ["local-reads", *(pytest.param(each, marks=pytest.mark.soak) for each in ("early-answers", "late-disk"))]
)
def test_broken_nodes_are_found_out(tmp_path: Path, broken: str) -> None:
    """The whole apparatus can fail: each of these is what a hurried programmer might have written."""
    faults = ("kill_all", "isolate") if broken == "late-disk" else ("isolate",)
    seeds = range(1, 6)
    for seed in seeds:
        outcome = asyncio.run(run(tmp_path / str(seed), Plan(seed, 3.0, faults=faults, broken=broken)))
        if judged(outcome.history) is not None:
            return
    pytest.fail(f"{broken} was not noticed in {len(seeds)} runs")


def test_clocks_further_apart_than_leases_allow_are_found_out(tmp_path: Path) -> None:
    """Sound nodes, told a bound that their clocks do not keep."""
    seeds = range(1, 6)
    for seed in seeds:
        plan = Plan(seed, 3.0, faults=("part_clocks",), lease_reads=True, drift_ppm=10_000, skew_ppm=600_000)
        if judged(asyncio.run(run(tmp_path / str(seed), plan)).history) is not None:
            return
    pytest.fail(f"no stale read in {len(seeds)} runs")


@pytest.mark.soak
def test_clocks_as_far_apart_as_leases_allow_cost_nothing(tmp_path: Path) -> None:
    outcome = asyncio.run(run(tmp_path, Plan(1, 30.0, faults=("part_clocks", "clock_rate"), lease_reads=True)))
    assert outcome.wrong() is None
    assert outcome.faults["part_clocks"] >= 5
