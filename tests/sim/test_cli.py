"""The simulator's door: exit codes, and one clear line for what was wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import tests.sim.__main__ as door
from protocol import native
from tests.sim.ledger import ROOT, sources


def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    monkeypatch.setattr("sys.argv", ["tests.sim", *arguments])
    with pytest.raises(SystemExit) as ended:
        door.main()
    captured = capsys.readouterr()
    assert isinstance(ended.value.code, int)
    return ended.value.code, captured.out, captured.err


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("--seed", "1", "--seeds", "2"),
        ("--seed", "-1"),
        ("--seed", "one"),
        ("--seeds", "9..3"),
        ("--seeds", "many"),
        ("--seeds", "0"),
        ("--seeds", "1..2", "--first", "3"),
        ("--seeds", "2", "--trace"),
        ("--seeds", "2", "--workers", "0"),
        ("--seed", "1", "--workers", "2"),
        ("--seed", "1", "--into", "somewhere"),
        ("--seeds", "1..2", "--into", "somewhere"),
        ("--seeds", "2", "--into", "pyproject.toml"),
        ("--seed", "1", "--keep", "4,x"),
        ("--seed", "1", "--keep", "9999"),
        ("--seed", "1", "--mutant", "nobody"),
        ("--what",),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and err.startswith("error: "), (out, err)


@pytest.mark.parametrize("arguments", [("--seed", "4", "--mutant", "5"), ("mutants",)])
def test_a_seeded_bug_goes_on_from_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    """No part of a compiled machine can be replaced. Whoever demands the compiled form is told so."""
    begun: list[tuple[list[str], str]] = []

    def begins_again(_: str, command: list[str], environment: dict[str, str]) -> None:
        begun.append((command[1:], environment[native.VARIABLE]))
        raise SystemExit(0)

    monkeypatch.setattr(door.os, "execve", begins_again)
    monkeypatch.setattr(native, "in_use", lambda: True)
    monkeypatch.delenv(native.VARIABLE, raising=False)
    assert call(monkeypatch, capsys, *arguments)[0] == 0
    assert begun == [(["-m", "tests.sim", *arguments], "0")]
    monkeypatch.setenv(native.VARIABLE, "1")
    code, out, err = call(monkeypatch, capsys, *arguments)
    assert (code, out, err.count("\n")) == (2, "", 1) and "SWARM_NATIVE=1" in err


def test_help_has_an_example(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "--help")
    assert code == 0 and "Example:" in out and "--seeds 1000" in out


def test_one_seed_has_a_short_verdict(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "--seed", "5")
    assert code == 0 and len(out.splitlines()) == 4
    assert all(word in out for word in ("events", "commits", "leaders", "elections", "reads", "faults"))


def test_many_seeds_have_figures(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = call(monkeypatch, capsys, "--seeds", "3..6", "--workers", "1", "--json")
    figures = json.loads(out)
    assert code == 0 and figures["seeds"] == 4 and figures["failures"] == [] and figures["commits"] > 0
    code, out, _ = call(monkeypatch, capsys, "--seeds", "2", "--first", "3", "--workers", "1")
    assert code == 0 and "2 seeds, 0 failed" in out


def test_too_little_time_is_a_failure(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = call(monkeypatch, capsys, "--seeds", "25", "--workers", "1", "--seconds-max", "0", "--json")
    assert code == 1 and "out of time" in err


@pytest.mark.sources
def test_a_failure_says_how_to_run_it_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = call(monkeypatch, capsys, "--seed", "0", "--mutant", "19", "--shrink")
    assert code == 1 and "FAILED" in out and "are enough" in out
    assert "rerun: python -m tests.sim --seed 0 --mutant 19" in err
    code, out, err = call(monkeypatch, capsys, "--seeds", "2", "--mutant", "19", "--workers", "1", "--json")
    assert code == 1 and "rerun: python -m tests.sim --seed 1 --mutant 19" in err
    assert len(json.loads(out)["failures"]) == 2


def test_a_campaign_goes_on_where_it_was_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "campaign.json"
    monkeypatch.setattr(door, "SAVED_EVERY", 2)
    assert call(monkeypatch, capsys, "--seeds", "3", "--into", str(file), "--workers", "1")[0] == 0
    code, out, _ = call(monkeypatch, capsys, "--seeds", "5", "--into", str(file), "--workers", "1", "--json")
    code_at_once, at_once, _ = call(monkeypatch, capsys, "--seeds", "5", "--workers", "1", "--json")
    assert code == code_at_once == 0
    timed = {"seconds", "seeds_per_second"}
    parts, whole = ({k: v for k, v in json.loads(each).items() if k not in timed} for each in (out, at_once))
    assert parts == whole and whole["seeds"] == 5
    assert call(monkeypatch, capsys, "--seeds", "5", "--into", str(file))[0] == 0, "nothing is left to do"
    kept = json.loads(file.read_text())
    kept["sources"] = "of yesterday"
    file.write_text(json.dumps(kept))
    code, _, err = call(monkeypatch, capsys, "--seeds", "9", "--into", str(file))
    assert code == 2 and "begin a new file" in err


def test_a_campaign_knows_all_that_decides_what_a_seed_comes_to() -> None:
    """Every module of consensus and of the simulator that a run imports."""
    show = "import sys, tests.sim.run; print(*(m.__file__ for n, m in sys.modules.items() if n.startswith(ROOMS)))"
    program = show.replace("ROOMS", "('consensus.', 'tests.sim.')")
    environment = {**os.environ, "SWARM_NATIVE": "0"}
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and set(map(Path, done.stdout.split())) == set(sources())
