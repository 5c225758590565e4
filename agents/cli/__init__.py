"""``swarm``: the people's door. Exit codes: 0 done, 1 it failed, 2 the input was wrong, 130 interrupted."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Final

import click

from protocol import native
from protocol.errors import RunFailure, Unavailable, UsageError

CONTEXT: Final = {"help_option_names": ["-h", "--help"], "max_content_width": 110}

MODULES: Final = {
    "bench": "bench",
    "compare": "results",
    "config": "cluster",
    "data": "data",
    "executor": "agent",
    "health": "agent",
    "init": "cluster",
    "network": "network",
    "pattern": "pattern",
    "report": "results",
    "revoke": "revoke",
    "risk": "agent",
    "status": "cluster",
    "trader": "agent",
    "up": "up",
    "venue": "agent",
    "warmup": "cluster",
}
"""Command -> the module of this package that holds it."""


class LazyGroup(click.Group):
    """Imports a command's module when the command is used: five agents start at once on few cores."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(MODULES)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        module = MODULES.get(cmd_name)
        if module is None:
            return super().get_command(ctx, cmd_name)
        commands = importlib.import_module(f"agents.cli.{module}").COMMANDS
        found: click.Command = next(command for command in commands if command.name == cmd_name)
        return found


@click.group(cls=LazyGroup, context_settings=CONTEXT)
@click.version_option(
    package_name="trading-swarm",
    prog_name="swarm",
    message=f"%(prog)s, version %(version)s, hot modules {'compiled' if native.in_use() else 'from source'}",
)
def cli() -> None:
    """A swarm of trader, risk and executor agents over QUIC, with a Raft lane and a PBFT spine.

    \b
    Example:
      swarm up --cycles 200        start everything, trade, report
      swarm status                 ask the live agents (in another terminal)
      swarm report latest          the last run's report again
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: errors of the user and of the world are one line, never a traceback."""
    try:
        result: Any = cli.main(args=arguments, prog_name="swarm", standalone_mode=False)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except UsageError as error:
        _end(error, 2)
    except (RunFailure, Unavailable) as error:
        _end(error, 1)
    except KeyboardInterrupt:
        click.echo("interrupted; everything is stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(1)
    except OSError as error:
        _end(f"{error.filename or 'a file'}: {error.strerror or error}; check the path and its permissions", 1)
    sys.exit(result if isinstance(result, int) else 0)


def _end(error: Exception | str, code: int) -> None:
    click.echo(f"error: {error}", err=True)
    sys.exit(code)
