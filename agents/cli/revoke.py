"""``swarm revoke``."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import click

from agents.cli.options import config_option, json_option
from agents.cluster_init import check_hours
from agents.config import load_config
from agents.revoke import Revoked, serial_number
from agents.revoke import revoke as revoke_certificate


@click.command("revoke")
@click.argument("agent", default="")
@click.option("--serial", default=None, metavar="HEX", help="Another certificate than the one that AGENT has now.")
@click.option(
    "--ca-key",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    envvar="SWARM_CA_KEY",
    help="The authority's key, as `swarm init --ca-key` wrote it; SWARM_CA_KEY names a default.",
)
@click.option("--hours", "valid_hours", default=24.0 * 30, show_default=True, help="Until when the list is good.")
@config_option
@json_option
def revoke(agent: str, serial: str | None, ca_key: Path, valid_hours: float, config: Path, as_json: bool) -> None:
    """Make AGENT's certificate worthless: its connections end within seconds, and nobody lets it in again.

    Running agents take the list by themselves; on other hosts it is copied into their folders first. Without AGENT
    and --serial the list is only signed anew.

    \b
    Example: swarm revoke risk-1 --ca-key safe/ca.key
    """
    check_hours(valid_hours)
    number = None if serial is None else serial_number(serial)
    loaded = load_config(config)
    done = revoke_certificate(loaded, ca_key, agent, number, now=datetime.now(UTC), valid_hours=valid_hours)
    click.echo(json.dumps(_as_dict(agent, done)) if as_json else _as_text(done))


def _as_dict(agent: str, done: Revoked) -> dict[str, object]:
    serial = None if done.serial is None else f"{done.serial:x}"
    return {"agent": agent or None, "serial": serial, "changed": done.changed} | done.revocations.as_dict()


def _as_text(done: Revoked) -> str:
    what = f"list {done.revocations.number} names {len(done.revocations.revoked)} certificates"
    until = f"good until {done.revocations.valid_until:%Y-%m-%d %H:%M} UTC"
    if not done.changed:
        return f"{done.path}: certificate {done.serial:x} was revoked already; {what}, {until}; nothing was changed"
    head = "signed anew" if done.serial is None else f"certificate {done.serial:x} is revoked"
    return f"{done.path}: {head}; {what}, {until}; copy it into the folders of agents on other hosts"


COMMANDS = (revoke,)
