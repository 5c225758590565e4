"""A simulator that finds nothing in a broken machine proves nothing about a sound one: the mutation score."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.sim.judge import Judge
from tests.sim.mutants import MUTANTS, Mutant, named
from tests.sim.mutation_score import PAGE, catalogue, score
from tests.sim.plan import plan_of
from tests.sim.run import Simulation, run_seed

pytestmark = pytest.mark.sources

BUGS = catalogue()
STALE_SEED = 13
"""The first seed at which clients are known to notice."""


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_every_seeded_bug_is_caught(mutant: Mutant) -> None:
    assert score(mutant.as_seeded_bug()).how is not None


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_sound_machine_passes_where_the_broken_one_fails(mutant: Mutant) -> None:
    assert not run_seed(mutant.seed).failure


def test_clients_alone_notice_stale_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the judge, who knows every index, what clients saw is still not linearizable."""
    monkeypatch.setattr(Judge, "read_ends", lambda judge, result: None)
    mutant = named("reads-without-asking")
    complaints = (mutant.run(seed).failure for seed in range(STALE_SEED, STALE_SEED + 200))
    assert any("not linearizable" in complaint for complaint in complaints)


def test_acknowledged_means_durable() -> None:
    """An acknowledgement that nobody keeps is noticed at the end."""
    simulation = Simulation(plan_of(5))
    simulation.cluster.clients[0].acknowledged["0.9999"] = None
    with pytest.raises(AssertionError, match=r"lacks 0\.9999"):
        simulation.run()


def test_the_catalogue_numbers_each_bug_once() -> None:
    assert max(Counter(bug.number for bug in BUGS).values()) == 1
    wanted = {*range(1, 20), 23, 26, 47}
    assert wanted <= {bug.number for bug in BUGS}


def test_the_page_lists_them_all() -> None:
    listed = [
        int(line.split("|")[1])
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ") and "| bug" not in line
    ]
    assert listed == [bug.number for bug in BUGS], "run python -m tests.sim mutants --write"
