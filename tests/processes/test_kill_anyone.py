"""Any agent dies at any moment of a run. The disks show what became of the decisions."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator

import pytest

from tests.oracles.swarm_disks import VOTERS, audit
from tests.oracles.swarm_process import SwarmDirectory, assert_nothing_lost

pytestmark = [pytest.mark.processes, pytest.mark.timeout(240)]

CYCLES, RATE_PER_S = 50, 10
UP_S = 2.0
"""An agent that dies before it has answered once is not restarted: it would die again. It has answered by now."""
SOAK_SEEDS = range(10, 40)


@pytest.fixture(scope="module")
def swarm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SwarmDirectory]:
    directory = SwarmDirectory(tmp_path_factory.mktemp("anyone"))
    yield directory
    directory.kill_all()


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.soak) for seed in SOAK_SEEDS)])
def test_no_decision_is_lost_or_doubled(swarm: SwarmDirectory, seed: int) -> None:
    rng = random.Random(seed)
    victim, moment_s = rng.choice(VOTERS), rng.uniform(0, CYCLES / RATE_PER_S)
    process = swarm.up("--cycles", str(CYCLES), "--rate", str(RATE_PER_S))
    pid = swarm.await_process(victim)
    time.sleep(moment_s)
    os.kill(pid, signal.SIGKILL)
    out, errors = process.communicate(timeout=120)
    if process.returncode == 1 and moment_s < UP_S:
        assert f"{victim} was ended by signal SIGKILL" in errors and "Traceback" not in errors
        assert swarm.processes() == []
        return
    assert process.returncode == 0, errors[-4000:]
    report = json.loads(out)
    assert {agent["id"]: agent["restarts"] for agent in report["run"]["agents"]}[victim] == 1
    assert report["run"]["cycles"] == CYCLES
    assert_nothing_lost(report)
    assert audit(swarm.runs / "latest") is None
