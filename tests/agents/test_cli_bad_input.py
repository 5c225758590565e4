"""The real command line against bad input: one line, the right exit code, nothing damaged."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from agents.cli import main
from agents.config import load_config
from consensus.storage import Storage
from protocol.pki import Subject, issue_cluster
from tests.oracles.agent_examples import content, make_cluster_file, table
from tests.oracles.clusters import free_ports
from tests.oracles.source_tree import ROOT

TIMEOUT_S = 60


@dataclass(frozen=True)
class Case:
    arguments: str
    """``{name}`` is a directory or file of the world below."""
    code: int
    says: tuple[str, ...]
    usage: bool = False
    """click's own usage text, which has more than one line."""
    process: bool = False
    """Runs as the real command in a process of its own; the others run the same entry point here, which is cheaper."""


CASES = {
    "unknown agent": Case("risk --id risk-9 --config {good}", 2, ("'risk-9'", "risk-1, risk-2"), process=True),
    "unknown transport": Case(
        "risk --id risk-1 --transport tcp --config {good}", 2, ("--transport tcp", "aioquic, qh3"), process=True
    ),
    "transport of nobody": Case(
        "risk --id risk-1 --transport risk-9=qh3 --config {good}", 2, ("'risk-9'", "risk-1, risk-2"), process=True
    ),
    "unknown impairment": Case(
        "risk --id risk-1 --network lag=4ms --config {good}", 2, ("'lag' is unknown", "rtt=4ms")
    ),
    "wrong role": Case("trader --id risk-1 --config {good}", 2, ("'risk-1' is a risk", "`swarm risk`"), process=True),
    "broken toml": Case(
        "status --config {broken_toml}", 2, ("cluster.toml", "not valid TOML", "swarm init"), process=True
    ),
    "unknown key": Case("status --config {unknown_key}", 2, ("cluster.toml", "faulty_maxx", "remove it")),
    "negative limit": Case("config --config {negative_limit}", 2, ("risk.max_order_notional", "give")),
    "feed of nobody": Case("status --feed --config {good}", 2, ("no agent has a feed", "set feed_port")),
    "feed in detail": Case("status --feed --detail --config {good}", 2, ("--feed", "leave --detail")),
    "missing config": Case("status --config {here}/none.toml", 2, ("none.toml does not exist", "swarm init")),
    "lost disk": Case(
        "risk --id risk-1 --config {lost_disk} --log-level error",
        2,
        ("risk-1 has voted in this cluster before", "consensus.sqlite3 is missing", "new identity"),
        process=True,  # it sets the logs of its process up before it refuses
    ),
    "missing key": Case("venue --config {missing_key}", 2, ("venue/tls.key is missing",), process=True),
    "readable key": Case(
        "venue --config {readable_key}", 2, ("venue/agent.key has mode 0644", "chmod 600"), process=True
    ),
    "expired": Case("venue --config {expired}", 2, ("venue/tls.crt expired at", "swarm init --renew"), process=True),
    "port in use": Case("venue --config {port_in_use}", 2, ("venue", "127.0.0.1:", "in use"), process=True),
    "another cluster's data": Case(
        "risk --id risk-1 --config {good} --run-dir {foreign_run} --log-level error",
        2,
        ("foreign/risk-1", "belongs to", "of its own"),
        process=True,
    ),
    "own data with NaN": Case(
        "venue --config {nan_in_path}", 2, ("nan.csv: line 50, BBB", "drop the row"), process=True
    ),
    "NaN": Case("data check {here}/nan.csv", 2, ("nan.csv: line 50, BBB: price nan", "drop the row"), process=True),
    "gap": Case("data check {here}/gap.csv", 2, ("gap.csv: line 50: a gap of", "fill in")),
    "no such file": Case("data check {here}/none.csv", 2, ("none.csv does not exist", "swarm data fetch")),
    "unknown data": Case("data fetch moon", 2, ("'moon' is unknown", "us-large-caps, synthetic")),
    "up on unknown data": Case(
        "up --config {good} --data moon", 2, ("'moon' is unknown", "us-large-caps"), process=True
    ),
    "negative cycles": Case("up --config {good} --cycles -1", 2, ("--cycles", "-1"), usage=True),
    "negative rate": Case("up --config {good} --rate -1", 2, ("--rate", "-1"), usage=True),
    "rate that is no number": Case("up --config {good} --rate nan", 2, ("--rate", "nan is no rate"), usage=True),
    "too many cycles": Case(
        "up --config {good} --cycles 999999", 2, ("--cycles 999999", "ask for fewer"), process=True
    ),
    "batch of none": Case(
        "up --config {here}/new/cluster.toml --batch-max 0", 2, ("batch_max", ">= 1", "--help"), process=True
    ),
    "unknown mode": Case("up --config {good} --mode fast", 2, ("--mode", "optimized"), usage=True),
    "unknown command": Case("fly", 2, ("No such command", "fly"), usage=True),
    "unknown report": Case("report nope --runs {runs}", 2, ("run 'nope' is not in", "known runs: broken")),
    "no runs": Case("report --runs {here}/none", 2, ("run 'latest' is not in", "swarm up")),
    "broken report": Case(
        "report broken --runs {runs}", 1, ("report.json is not a usable report", "run again"), process=True
    ),
    "compare nothing": Case("compare one two --runs {runs}", 2, ("run 'one' is not in", "known runs: broken")),
    "init over a cluster": Case(
        "init --dir {good_dir} --data synthetic", 2, ("exists already", "--force"), process=True
    ),
    "init of a bad name": Case("init --dir {here}/new --name Bad_Name", 2, ("--name 'Bad_Name'", "choose")),
    "init for no time": Case("init --dir {here}/new --hours -1", 2, ("--hours -1", "more than 0")),
    "renew nothing": Case("init --dir {here}/new --renew", 2, ("new/cluster.toml does not exist", "swarm init")),
    "result into no folder": Case(
        "bench dtw --quick --out {here}/none/dtw.json", 2, ("none/dtw.json", "folder that exists")
    ),
    "plots below a file": Case(
        "bench transport --quick --plots {good}/plots", 2, ("cluster.toml/plots cannot be made", "choose another")
    ),
    "plots into a file": Case("bench dtw --quick --plots {good}", 2, ("--plots", "is a file"), usage=True),
    "health of nobody": Case("health --id risk-1 --config {good} --timeout 0.5", 1, ("risk-1",), process=True),
    "health of a stranger": Case("health --id risk-9 --config {good}", 2, ("'risk-9' is not in",)),
}


def variant(here: Path, good: Path, name: str, before: str = "", after: str = "") -> Path:
    """A copy of the good cluster with one thing different in its file."""
    shutil.copytree(good.parent, here / name)
    path = here / name / "cluster.toml"
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))
    return path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Path]]:
    here = tmp_path_factory.mktemp("world")
    good = make_cluster_file(here / "good")
    ports = iter(free_ports(5))
    text = good.read_text().replace('source = "synthetic"', 'source = "synthetic"\nsynthetic_bars = 400')
    for port in range(17401, 17406):
        text = text.replace(f"port = {port}", f"port = {next(ports)}")
    good.write_text(text)

    found = {
        "here": here,
        "good": good,
        "good_dir": good.parent,
        "runs": here / "runs",
        "foreign_run": here / "foreign",
    }
    found["broken_toml"] = variant(here, good, "broken_toml", "[consensus]", "[consensus")
    found["unknown_key"] = variant(here, good, "unknown_key", "faulty_max", "faulty_maxx")
    found["negative_limit"] = variant(here, good, "negative_limit", "order_notional = ", "order_notional = -")
    found["nan_in_path"] = variant(here, good, "nan_in_path", "[data]", '[data]\npath = "../nan.csv"')
    for name in ("missing_key", "readable_key", "expired", "lost_disk"):
        found[name] = variant(here, good, name)
    (here / "missing_key/pki/venue/tls.key").unlink()
    (here / "readable_key/pki/venue/agent.key").chmod(0o644)
    cluster_id = load_config(found["lost_disk"]).roster.cluster_id
    (here / "lost_disk/pki/risk-1/store").write_text(f"{cluster_id.hex()} {bytes(16).hex()}\n")
    config = load_config(found["expired"])
    subjects = [Subject(agent.id, agent.role, agent.host or agent.id) for agent in config.roster.agents]
    past = datetime.now(UTC) - timedelta(days=3)
    issue_cluster(config.pki_dir, "testing", subjects, valid_hours=24, now=past)

    rows = table()
    (here / "nan.csv").write_bytes(content([*rows[:49], rows[49].replace("20.25", "nan"), *rows[50:]]))
    (here / "gap.csv").write_bytes(content([*rows[:49], *rows[80:], *table(300)[211:]]))
    (here / "runs/broken").mkdir(parents=True)
    (here / "runs/broken/report.json").write_text('{"run": {')
    foreign = here / "foreign/risk-1"
    foreign.mkdir(parents=True)
    Storage(foreign, b"another-cluster!", "risk-1").close()

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        venue = load_config(good).agent("venue", load_config(good).roster.agents[4].role).port
        found["port_in_use"] = variant(
            here, good, "port_in_use", f"port = {venue}\n", f"port = {taken.getsockname()[1]}\n"
        )
        yield found


def run(arguments: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SWARM_DATA_DIR": str(cwd / "data"), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, "-m", "agents.cli", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        stdin=subprocess.DEVNULL,
    )


def run_here(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> subprocess.CompletedProcess[str]:
    """``main`` in this process, with the same outcome to look at."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    captured = capsys.readouterr()
    return subprocess.CompletedProcess(arguments, int(ended.value.code or 0), captured.out, captured.err)


def snapshot(world: dict[str, Path]) -> dict[str, bytes]:
    """Everything but what an agent by hand may begin before it fails: its ring and the side files of its store."""
    files = (path for path in sorted(world["here"].rglob("*")) if path.is_file())
    begun = (".ring", ".lock", "-shm", "-wal")
    return {str(path): path.read_bytes() for path in files if not path.name.endswith(begun)}


def arguments_of(case: Case, world: dict[str, Path]) -> list[str]:
    return case.arguments.format(**{name: str(path) for name, path in world.items()}).split()


@pytest.fixture(scope="module")
def results(world: dict[str, Path]) -> dict[str, subprocess.CompletedProcess[str]]:
    """Outcomes of the cases with a process, run side by side."""
    before = snapshot(world)
    with ThreadPoolExecutor(3) as pool:
        futures = {
            name: pool.submit(run, arguments_of(case, world), world["here"])
            for name, case in CASES.items()
            if case.process
        }
        found = {name: future.result() for name, future in futures.items()}
    after = snapshot(world)
    assert after == before, f"changed: {[name for name in before | after if before.get(name) != after.get(name)]}"
    return found


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_with_the_thing_and_the_mend(
    results: dict[str, subprocess.CompletedProcess[str]],
    world: dict[str, Path],
    name: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    case = CASES[name]
    if case.process:
        done = results[name]
    else:
        before = snapshot(world)
        done = run_here(arguments_of(case, world), capsys)
        assert snapshot(world) == before
    everything = done.stdout + done.stderr
    assert done.returncode == case.code, everything
    assert "Traceback" not in everything
    assert done.stdout == ""
    if case.usage:
        assert done.stderr.startswith("Usage: swarm")
    else:
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ")
    for words in case.says:
        assert words in done.stderr


def test_nothing_is_made_on_the_way_to_a_refusal(
    results: dict[str, subprocess.CompletedProcess[str]], world: dict[str, Path]
) -> None:
    assert results
    assert not (world["here"] / "new").exists(), "no cluster"
    assert not (world["here"] / "data").exists(), "no data"
    assert sorted(entry.name for entry in world["runs"].iterdir()) == ["broken"], "no run"


def test_status_with_nobody_running_says_so_in_time(world: dict[str, Path]) -> None:
    done = run(["status", "--config", str(world["good"]), "--timeout", "0.5"], world["here"])
    assert done.returncode == 1
    assert done.stdout.count("unreachable") == 5
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stderr == ""
