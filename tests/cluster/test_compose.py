"""The cluster in containers, for real: image, network, volumes, health checks, a crash, and a run to its end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest

from agents.cluster_init import default_roster
from tests.cluster.base_image import base_image, wheel_folder
from tests.cluster.engine import Project, run, say, why_unavailable

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

CYCLES = 100
ROSTER = default_roster(7401, "names")
AGENTS = [line.id for line in ROSTER]
VOTERS = [line.id for line in ROSTER if line.votes]
VICTIM = "risk-2"
IMAGE = "trading-swarm:test"
BUILD_STAGES = "label=trading-swarm.stage"


@pytest.fixture(scope="module", autouse=True)
def progress(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let the terminal see what is being waited for."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        yield


@pytest.fixture(scope="module")
def cluster() -> Iterator[Project]:
    reason = why_unavailable()
    if reason is not None:
        pytest.skip(f"containers not tested: {reason}")
    base = base_image()
    wheel_folder()
    env = {"SWARM_IMAGE": IMAGE, "SWARM_BASE": base, "SWARM_OFFLINE": "1", "SWARM_CYCLES": str(CYCLES)}
    project = Project(f"swarmtest{os.getpid()}", env)
    say("building the image")
    project.compose("build", "keys", timeout_s=900)
    run("docker", "image", "prune", "--force", "--filter", BUILD_STAGES, "--filter", "until=24h")
    try:
        say(f"starting {len(AGENTS)} containers")
        project.up(AGENTS)
        yield project
    finally:
        say("removing containers, networks and volumes")
        project.down()


@pytest.fixture(scope="module")
def finished(cluster: Project) -> dict[str, dict[str, Any]]:
    """Final statuses by agent, after a run in which one voter was killed and came back."""
    cluster.until("the trader trades", lambda: _cycle(cluster) > 0, 120, pause_s=0.2)
    victim = cluster.health(VICTIM)
    assert victim is not None
    say(f"killing {VICTIM} in cycle {_cycle(cluster)}")
    # `docker kill` would count as a wish that it stay down.
    cluster.execute(VICTIM, "python", "-c", f"import os; os.kill({victim['pid']}, 9)")
    cluster.until(f"{VICTIM} was restarted", lambda: cluster.inspect(VICTIM)["RestartCount"] == 1, 30)
    say(f"{VICTIM} is back, in cycle {_cycle(cluster)} of {CYCLES}")
    cluster.until("the trader has finished", lambda: _state(cluster) == "finished", 180, pause_s=2)
    say("finished; waiting for the last outcomes")
    statuses: dict[str, dict[str, Any]] = {}

    def over() -> bool:
        statuses.update({agent: cluster.health(agent) or {} for agent in AGENTS})
        return _is_over(statuses)

    cluster.until("no order is outstanding and the voters' logs are the same", over, 60)
    return statuses


def _cycle(cluster: Project) -> int:
    return int((cluster.health("trader-1") or {}).get("cycle", 0))


def _state(cluster: Project) -> str:
    return str((cluster.health("trader-1") or {}).get("state"))


def _is_over(statuses: dict[str, dict[str, Any]]) -> bool:
    if statuses["executor-1"].get("orders_outstanding") != 0:
        return False
    logs = [statuses[voter].get("decision_log") for voter in VOTERS]
    settled = all(statuses[voter].get("decision_log_open") == 0 for voter in VOTERS)
    return settled and all(log == logs[0] for log in logs)


def test_a_voter_that_is_killed_comes_back_and_the_run_reaches_its_end(
    cluster: Project, finished: dict[str, dict[str, Any]]
) -> None:
    assert finished["trader-1"]["cycle"] == CYCLES
    restarts = {agent: cluster.inspect(agent)["RestartCount"] for agent in AGENTS}
    assert restarts == {agent: int(agent == VICTIM) for agent in AGENTS}


def test_both_paths_decided(finished: dict[str, dict[str, Any]]) -> None:
    decisions = finished["trader-1"]["decisions"]
    assert decisions["routine"] > 0
    assert decisions["critical"] > 0
    assert decisions["pending"] == 0
    for voter in VOTERS:
        assert finished[voter]["decision_log"]["lane_length"] > 0
        assert finished[voter]["decision_log"]["spine_length"] > 0


def test_no_order_is_lost_doubled_or_unknown(finished: dict[str, dict[str, Any]]) -> None:
    orders = finished["executor-1"]["orders"]
    assert {name: orders[name] for name in ("lost", "duplicate", "unknown")} == {
        "lost": 0,
        "duplicate": 0,
        "unknown": 0,
    }
    assert orders["filled"] > 0


def test_all_voters_hold_the_same_decisions(finished: dict[str, dict[str, Any]]) -> None:
    logs = [finished[voter]["decision_log"] for voter in VOTERS]
    assert all(log == logs[0] for log in logs)


def test_the_engines_own_health_checks_pass(cluster: Project, finished: dict[str, dict[str, Any]]) -> None:
    def healthy() -> bool:
        return all(cluster.inspect(agent)["State"]["Health"]["Status"] == "healthy" for agent in AGENTS)

    cluster.until("every container is healthy", healthy, 60)


def test_the_kernels_of_the_image_are_used(cluster: Project, finished: dict[str, dict[str, Any]]) -> None:
    for voter in VOTERS:
        ready = cluster.events(voter, "kernels_ready")
        assert ready, f"{voter} logged no kernels_ready"
        assert [entry["compiled"] for entry in ready] == [0] * len(ready)


def test_nothing_is_published_and_nothing_outside_is_reached(cluster: Project) -> None:
    for agent in AGENTS:
        found = cluster.inspect(agent)
        assert not found["HostConfig"]["PortBindings"]
        assert not any(found["NetworkSettings"]["Ports"].values())
        (network,) = found["NetworkSettings"]["Networks"]
        assert json.loads(run("docker", "network", "inspect", network))[0]["Internal"] is True
    addresses = {_address(cluster, agent) for agent in AGENTS}
    assert len(addresses) == len(AGENTS)


def _address(cluster: Project, agent: str) -> str:
    (network,) = cluster.inspect(agent)["NetworkSettings"]["Networks"].values()
    return str(network["IPAddress"])


def test_each_container_sees_its_own_keys_only(cluster: Project) -> None:
    for agent in AGENTS:
        found = cluster.execute(agent, "find", "/cluster", "-name", "*.key").split()
        assert sorted(found) == [f"/cluster/pki/{agent}/agent.key", f"/cluster/pki/{agent}/tls.key"]


def test_agents_run_without_privileges(cluster: Project) -> None:
    for agent in AGENTS:
        status = dict(
            line.split(":\t", 1)
            for line in cluster.execute(agent, "cat", "/proc/1/status").splitlines()
            if ":\t" in line
        )
        assert status["Uid"].split() == ["10001"] * 4
        assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        host = cluster.inspect(agent)["HostConfig"]
        assert host["ReadonlyRootfs"] is True
        assert host["PidsLimit"] > 0
        assert host["Memory"] > 0


def test_starting_again_keeps_keys_and_containers(cluster: Project, finished: dict[str, dict[str, Any]]) -> None:
    before = cluster.execute("risk-1", "sha256sum", "/cluster/cluster.toml", "/cluster/pki/risk-1/tls.crt")
    containers = dict(cluster.containers)
    cluster.up(AGENTS)
    assert cluster.containers == containers
    assert cluster.execute("risk-1", "sha256sum", "/cluster/cluster.toml", "/cluster/pki/risk-1/tls.crt") == before
    assert (cluster.health("risk-1") or {}).get("quorum_seen") is True


def test_the_operator_can_ask_everybody(cluster: Project, finished: dict[str, dict[str, Any]]) -> None:
    answer = json.loads(cluster.compose("run", "--rm", "-T", "operator", "swarm", "status", "--json"))
    assert {agent: status["state"] for agent, status in answer["agents"].items()} == {
        agent: finished[agent]["state"] for agent in AGENTS
    }
