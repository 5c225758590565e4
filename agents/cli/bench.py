"""``swarm bench``: reproducible measurements."""

from __future__ import annotations

import click


@click.group("bench")
def bench() -> None:
    """Measure, with peers or modes interleaved in one run.

    \b
    Example: swarm bench system --quick --json
    """


COMMANDS = (bench,)
