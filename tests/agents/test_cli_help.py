from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from agents.cli import MODULES, cli, main
from agents.cli.options import as_arguments
from agents.config import ConsensusSection
from agents.setup import RunOptions
from agents.switches import MODES, Switches
from tests.oracles.agent_examples import content, make_cluster_file, table
from tests.oracles.source_tree import ROOT


def commands(group: click.Group, prefix: str) -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


COMMANDS = {"swarm": cli, **dict(commands(cli, "swarm"))}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_help_says_what_it_does_and_shows_an_example(name: str) -> None:
    command = COMMANDS[name]
    text = command.get_help(click.Context(command, info_name=name))
    assert "Example:" in text
    example = text.partition("Example:")[2].strip().splitlines()[0]
    assert example.startswith("swarm")
    assert command.help
    for option in command.params:
        if isinstance(option, click.Option) and option.required:
            assert option.help, f"{name} {option.name} has no help"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_command_that_exists(name: str) -> None:
    text = COMMANDS[name].help or ""
    for line in text.partition("Example:")[2].splitlines():
        words = line.split()
        if words[:1] == ["swarm"]:
            assert words[1] in MODULES
            known = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
            assert {word for word in words if word.startswith("--")} <= known


def test_help_does_not_wait_for_the_compiler_or_the_transport() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "agents.cli", "--help"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    assert "agents.cli" in loaded
    assert not {name for name in loaded if name.partition(".")[0] in ("numba", "llvmlite")}
    assert done.stdout.startswith("Usage: swarm")


def test_a_modes_switches_survive_the_way_to_an_agents_process() -> None:
    for mode, switches in MODES.items():
        options = RunOptions("r1", Path("/runs/r1"), 7, mode, switches, "synthetic")
        arguments = as_arguments(options, Path("/c/cluster.toml"), "info")
        trader = cli.get_command(click.Context(cli), "trader")
        assert trader is not None
        context = trader.make_context("trader", ["--id", "trader-1", *arguments])
        parsed = {name: context.params[name] for name in Switches.__struct_fields__}
        assert Switches(**parsed) == switches
        assert context.params["cycles"] == 7
        assert context.params["run_dir"] == Path("/runs/r1")
        assert context.params["supervised"] is True


def exit_code(arguments: list[str]) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return int(ended.value.code or 0)


def test_good_input_ends_with_zero(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = make_cluster_file(tmp_path / "cluster")
    assert exit_code(["config", "--config", str(path), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["consensus"]["heartbeat_ms"] == ConsensusSection().heartbeat_ms, "defaults are filled in"
    assert "PRIVATE" not in json.dumps(printed)
    assert exit_code(["data", "list", "--json"]) == 0
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["us-large-caps", "synthetic"]
    table_path = tmp_path / "mine.csv"
    table_path.write_bytes(content(table()))
    assert exit_code(["data", "check", str(table_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["bars"] == 210


def test_a_new_cluster_by_hand(tmp_path: Path) -> None:
    done = CliRunner().invoke(cli, ["init", "--dir", str(tmp_path / "new"), "--data", "synthetic", "--hosts", "names"])
    assert done.exit_code == 0
    assert "start it with `swarm up" in done.output
    renewed = CliRunner().invoke(cli, ["init", "--dir", str(tmp_path / "new"), "--renew", "--hours", "12"])
    assert "renewed for 12 hours" in renewed.output


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        Path(tmp_path / "none" / "stages.svg").write_text("")

    monkeypatch.setitem(cli.commands, "broken", click.command("broken")(fail))
    assert exit_code(["broken"]) == 1
    error = capsys.readouterr().err
    assert "none/stages.svg: No such file or directory; check the path" in error
    assert len(error.splitlines()) == 1
