"""Who is cut off from whom: the file between the command line and the agents, and the commands' bad input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import structlog
from click.testing import CliRunner

from agents.cli.network import network
from agents.config import load_config
from agents.network_cuts import CUTS_NAME, CutsOf, read_cuts, write_cuts
from agents.status import CurrentRun, write_current
from protocol.errors import RunFailure, UsageError
from tests.oracles.agent_examples import make_cluster_file


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return make_cluster_file(tmp_path / "cluster")


def address(config: Path, agent_id: str) -> tuple[str, int]:
    agent = load_config(config).roster.by_id(agent_id)
    assert agent is not None
    return agent.host, agent.port


def test_an_agent_sees_whom_it_may_not_reach(config: Path, tmp_path: Path) -> None:
    roster = load_config(config).roster
    cuts = {agent.id: CutsOf(tmp_path, roster, agent, structlog.get_logger()) for agent in roster.agents}
    assert set(cuts["risk-1"]()) == set()
    write_cuts(tmp_path, [("risk-1", "trader-1"), ("risk-1", "risk-2"), ("risk-2", "risk-1")])
    assert set(cuts["risk-1"]()) == {address(config, "trader-1"), address(config, "risk-2")}
    assert set(cuts["risk-2"]()) == {address(config, "risk-1")}
    assert set(cuts["trader-1"]()) == set()
    write_cuts(tmp_path, [])
    assert set(cuts["risk-1"]()) == set()


@pytest.mark.parametrize("text", ["", "[]", '{"pairs": [["a"]]}', '{"pears": []}', "\x00"])
def test_a_file_that_is_not_ours_is_refused_in_one_line(tmp_path: Path, text: str) -> None:
    (tmp_path / CUTS_NAME).write_text(text)
    with pytest.raises(RunFailure, match="remove it to heal the network"):
        read_cuts(tmp_path)


def test_a_damaged_file_leaves_an_agent_as_it_was(config: Path, tmp_path: Path) -> None:
    roster = load_config(config).roster
    risk = roster.by_id("risk-1")
    assert risk is not None
    cuts = CutsOf(tmp_path, roster, risk, structlog.get_logger())
    write_cuts(tmp_path, [("risk-1", "trader-1")])
    cut_off = {address(config, "trader-1")}
    assert set(cuts()) == cut_off
    with structlog.testing.capture_logs() as said:
        (tmp_path / CUTS_NAME).write_text("[")
        assert set(cuts()) == set(cuts()) == cut_off
    assert [line["event"] for line in said] == ["network_cuts_unreadable"]
    write_cuts(tmp_path, [])
    assert set(cuts()) == set()


def test_commands_cut_and_heal_the_run_that_is_going(config: Path, tmp_path: Path) -> None:
    write_current(load_config(config), CurrentRun("run", "capnp", str(tmp_path), "rtt=0ms"))

    def swarm_network(*arguments: str) -> list[list[str]]:
        result = CliRunner().invoke(network, [*arguments, "--json", "--config", str(config)], standalone_mode=False)
        assert result.exception is None, result.exception
        found: list[list[str]] = json.loads(result.output)["cut"]
        return found

    assert swarm_network("cut", "risk-1", "trader-1", "--one-way") == [["risk-1", "trader-1"]]
    assert swarm_network("cut", "risk-2", "venue") == [["risk-1", "trader-1"], ["risk-2", "venue"], ["venue", "risk-2"]]
    assert len(swarm_network("show")) == 3
    assert swarm_network("heal") == []
    assert swarm_network("show") == []


@pytest.mark.parametrize(
    ("run", "arguments", "says"),
    [
        (None, ["show"], "no run is going"),
        ("", ["heal"], "was started without --network"),
        ("rtt=0ms", ["cut", "risk-9", "risk-1"], "'risk-9' is not in"),
        ("rtt=0ms", ["cut", "risk-1", "risk-1"], "cannot be cut off from itself"),
    ],
)
def test_bad_input_is_one_line(config: Path, tmp_path: Path, run: str | None, arguments: list[str], says: str) -> None:
    if run is not None:
        write_current(load_config(config), CurrentRun("run", "capnp", str(tmp_path), run))
    result = CliRunner().invoke(network, [*arguments, "--config", str(config)], standalone_mode=False)
    assert isinstance(result.exception, UsageError)
    assert says in str(result.exception) and "\n" not in str(result.exception)
    assert not (tmp_path / CUTS_NAME).exists()
