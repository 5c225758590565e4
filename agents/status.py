"""Asking live agents how they are, over the wire, with the operator's key or an agent's own."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, Final

import msgspec

from agents.config import ClusterConfig
from agents.setup import run_roster
from protocol.codec import Codec
from protocol.errors import Unavailable, UsageError
from protocol.identity import load_identity
from protocol.messages import StatusRequest
from protocol.probe import client_request
from protocol.roster import Agent, Role

CURRENT_NAME: Final = "current-run.json"


class CurrentRun(msgspec.Struct, frozen=True):
    """Which run a supervisor has going, so that `swarm status` finds it."""

    run_id: str
    codec: str
    run_dir: str
    network: str = ""
    """What the agents' datagrams go through; only then can they be cut off."""


def write_current(config: ClusterConfig, current: CurrentRun) -> Path:
    path = config.path.parent / CURRENT_NAME
    path.write_bytes(msgspec.json.encode(current) + b"\n")
    return path


def read_current(config: ClusterConfig) -> CurrentRun:
    """The supervised run that is going, or the standing state when there is none."""
    try:
        return msgspec.json.decode((config.path.parent / CURRENT_NAME).read_bytes(), type=CurrentRun)
    except (FileNotFoundError, msgspec.DecodeError):
        return CurrentRun("", "capnp", "")


async def ask(
    config: ClusterConfig,
    agent: Agent,
    *,
    identity_id: str,
    run_id: str,
    codec: Codec,
    timeout_s: float,
    detail: bool = False,
) -> dict[str, Any]:
    """One agent's status. Raises ``Unavailable``."""
    roster = run_roster(config, run_id)
    identity = load_identity(config.pki_dir / identity_id, roster, identity_id)
    request = StatusRequest(random.getrandbits(63), int(detail))
    reply = await client_request(identity, roster, agent, request, timeout_s, codec=codec)
    try:
        status = json.loads(reply.body)
    except ValueError:
        raise Unavailable(f"{agent.id} answered with something that is no status") from None
    if not isinstance(status, dict):
        raise Unavailable(f"{agent.id} answered with something that is no status")
    return status


async def ask_all(
    config: ClusterConfig, run_id: str, codec: Codec, timeout_s: float, detail: bool = False
) -> dict[str, dict[str, Any]]:
    """Status by agent id; an agent that does not answer is ``{"state": "unreachable", "error": …}``."""
    agents = [agent for agent in config.roster.agents if agent.role is not Role.OPERATOR]

    async def one(agent: Agent) -> dict[str, Any]:
        try:
            return await ask(
                config, agent, identity_id="operator", run_id=run_id, codec=codec, timeout_s=timeout_s, detail=detail
            )
        except (Unavailable, UsageError) as error:
            return {"id": agent.id, "role": agent.role.value, "state": "unreachable", "error": str(error)}

    answers = await asyncio.gather(*(one(agent) for agent in agents))
    return {agent.id: answer for agent, answer in zip(agents, answers, strict=True)}


def healthy(status: dict[str, Any]) -> bool:
    """An agent is well when it serves and, if it votes, sees a quorum."""
    serving = status.get("state") in ("ready", "trading", "draining", "finished")
    return serving and bool(status.get("quorum_seen", True))
