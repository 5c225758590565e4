"""The spine under loss, delay, partition and crash, judged from outside; each run follows from its seed."""

from __future__ import annotations

import hashlib

import pytest

from consensus.pbft.config import PbftConfig
from tests.oracles.pbft_cluster import CONFIG, MS, Cluster, Weather, heal, make_command, storm

ROUGH = Weather(loss=0.1, duplication=0.1, delay_ns_max=30 * MS)


def judge_liveness(cluster: Cluster, command_count: int, rounds: int) -> None:
    commands = storm(cluster, command_count, rounds)
    live = cluster.run(5_000 * MS, until=lambda: cluster.executed_everywhere(commands))
    if not live:
        cluster.oracle.fail(f"not live after healing: {[replica.machine.status() for replica in cluster.replicas]}")


@pytest.mark.parametrize("seed", range(80))
def test_storm_keeps_one_history_and_heals(seed: int) -> None:
    judge_liveness(Cluster(seed, weather=ROUGH), command_count=14, rounds=5)


@pytest.mark.parametrize("seed", range(1000, 1010))
def test_storm_with_a_window_of_one_and_one_command_per_slot(seed: int) -> None:
    narrow = PbftConfig(
        window=1,
        commands_per_slot_max=1,
        resend_ns=40 * MS,
        resend_backoff_max=2,
        probe_ns=200 * MS,
        reply_slots_max=1,
        history_slots_max=64,
    )
    judge_liveness(Cluster(seed, config=narrow, weather=ROUGH), command_count=8, rounds=4)


@pytest.mark.parametrize("seed", range(2000, 2006))
def test_storm_with_seven_replicas(seed: int) -> None:
    judge_liveness(Cluster(seed, n=7, quorum_size=5, weather=ROUGH), command_count=12, rounds=4)


def test_the_same_seed_gives_the_same_run() -> None:
    def fingerprint() -> str:
        cluster = Cluster(7, weather=ROUGH)
        storm(cluster, 12, 5)
        cluster.run(1_000 * MS)
        return hashlib.sha256(repr(cluster.delivered).encode()).hexdigest()

    assert fingerprint() == fingerprint()


def test_ordinary_slot_costs_three_delays_and_no_repetition() -> None:
    cluster = Cluster(1)
    cluster.run(10 * MS)
    cluster.delivered.clear()
    command = make_command(1)
    cluster.submit(command)
    assert cluster.run(30 * MS, until=lambda: cluster.executed_everywhere([command]))
    cluster.run(20 * MS)
    counts = dict.fromkeys(("PrePrepare", "Prepare", "Commit"), 0)
    for _, _, message in cluster.delivered:
        counts[type(message).__name__] = counts.get(type(message).__name__, 0) + 1
    assert counts == {"PrePrepare": 3, "Prepare": 9, "Commit": 12}


@pytest.mark.parametrize("reachable", [(0, 1), (0,)])
def test_no_quorum_decides_nothing(reachable: tuple[int, ...]) -> None:
    cluster = Cluster(3)
    cluster.partition(reachable, [address for address in range(4) if address not in reachable])
    cluster.submit(make_command(1))
    cluster.run(3_000 * MS)
    assert not cluster.oracle.history
    heal(cluster)
    assert cluster.run(2_000 * MS, until=lambda: cluster.executed_everywhere([make_command(1)]))


@pytest.mark.parametrize("crash", [True, False])
def test_without_the_primary_nothing_commits_and_everybody_knows_in_time(crash: bool) -> None:
    cluster = Cluster(4)
    cluster.submit(make_command(1))
    assert cluster.run(500 * MS, until=lambda: cluster.executed_everywhere([make_command(1)]))
    if crash:
        cluster.crash(0)
    else:
        cluster.partition([1, 2, 3], [0])
    cluster.submit(make_command(2), 1, 2, 3)
    cluster.run(CONFIG.suspect_ns // 2)
    assert not any(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.replicas[1:])
    cluster.run(CONFIG.suspect_ns)
    assert all(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.replicas[1:])
    cluster.run(5_000 * MS)
    assert len(cluster.oracle.history) == 1
    heal(cluster)
    assert cluster.run(2_000 * MS, until=lambda: cluster.executed_everywhere([make_command(2)]))
    assert not any(replica.machine.primary_suspect(cluster.now_ns) for replica in cluster.replicas)


def test_idle_laggard_catches_up_without_new_commands() -> None:
    cluster = Cluster(5)
    cluster.partition([0, 1, 2], [3])
    commands = [make_command(number) for number in range(40)]
    for command in commands:
        cluster.submit(command, 0)
        cluster.run(20 * MS)
    assert cluster.replicas[3].applied == 0 and cluster.replicas[0].applied > 2 * CONFIG.window
    heal(cluster)
    assert cluster.run(1_000 * MS, until=lambda: cluster.executed_everywhere(commands))


def test_whole_cluster_restarts_from_its_disks() -> None:
    cluster = Cluster(6)
    commands = [make_command(number) for number in range(12)]
    for command in commands[:6]:
        cluster.submit(command)
        cluster.run(3 * MS)
    for address in range(4):
        cluster.crash(address)
    heal(cluster)
    for command in commands:
        cluster.submit(command)
    assert cluster.run(2_000 * MS, until=lambda: cluster.executed_everywhere(commands))
