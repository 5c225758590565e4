"""Every seeded bug of the store is noticed, and nothing is noticed where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.sim import durability_checks
from tests.sim.durability_bugs import DURABILITY_BUGS
from tests.sim.seeded_bug import SeededBug

pytestmark = pytest.mark.sources


@pytest.mark.parametrize("bug", DURABILITY_BUGS, ids=lambda bug: f"{bug.number}: {bug.title}")
def test_a_seeded_bug_is_noticed(bug: SeededBug) -> None:
    assert bug.found() is not None


@pytest.mark.parametrize("bug", DURABILITY_BUGS, ids=lambda bug: f"{bug.number}: {bug.title}")
def test_its_check_is_content_without_it(bug: SeededBug, tmp_path: Path) -> None:
    check = getattr(durability_checks, bug.caught_by.rpartition(".")[2])
    assert check(tmp_path) is None
