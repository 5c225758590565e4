"""Text scenarios of the lane. The commands are explained in ``tests/oracles/raft_script.py``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.oracles.raft_script import check_scenario

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("raft_*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    check_scenario(path)


def test_scenarios_are_there() -> None:
    assert len(SCENARIOS) >= 33


def test_a_wrong_transcript_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UPDATE_SCENARIOS", raising=False)
    path = tmp_path / "raft_wrong.txt"
    path.write_text("cluster 4 quorum=3\ntimeout 0\n----\n0 is leader of term 1\n")
    with pytest.raises(AssertionError, match="raft_wrong") as failure:
        check_scenario(path)
    assert "-0 is leader of term 1\n+0 is pre-candidate of term 0" in str(failure.value)
    monkeypatch.setenv("UPDATE_SCENARIOS", "1")
    check_scenario(path)
    assert path.read_text() == "cluster 4 quorum=3\ntimeout 0\n----\n0 is pre-candidate of term 0\n"
