"""Asking live agents how they are, over the wire, with the operator's key or an agent's own."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from typing import Any, Final

import msgspec
from cryptography.x509 import Certificate

from agents.config import ClusterConfig
from agents.setup import run_roster
from protocol.codec import Codec
from protocol.errors import Unavailable, UsageError
from protocol.feed_client import Session, ask_feed
from protocol.identity import usable_identity
from protocol.key_files import read_text, write_file
from protocol.messages import StatusRequest
from protocol.pki import SERVER, admit, load_certificates
from protocol.probe import client_request
from protocol.quic.settings import resolve
from protocol.revocation import LIST_NAME, read_revocations
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
    identity = usable_identity(config.pki_dir / identity_id, roster, identity_id)
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


async def ask_feeds(config: ClusterConfig, timeout_s: float) -> dict[str, dict[str, Any]]:
    """What the public feeds say, by agent id, without any key; each answer tells what became of its early question.

    Sessions lie in the state directory between two calls. Raises ``UsageError`` when no agent has a feed.
    """
    agents = [agent for agent in config.roster.agents if config.feed_port(agent)]
    if not agents:
        raise UsageError(f"{config.path}: no agent has a feed; set feed_port in its [[agent]] and restart it")
    answers = await asyncio.gather(*(_ask_feed(config, agent, timeout_s) for agent in agents))
    return {agent.id: answer for agent, answer in zip(agents, answers, strict=True)}


async def _ask_feed(config: ClusterConfig, agent: Agent, timeout_s: float) -> dict[str, Any]:
    kept = config.state_dir / "feed" / f"{agent.id}.session"
    authority = config.pki_dir / "ca.crt"
    revocations = read_revocations(config.pki_dir / LIST_NAME, load_certificates(authority))

    def check(certificate: Certificate) -> Agent:
        revocations.check(certificate)
        return admit(config.roster, certificate, SERVER, agent)

    try:
        address = await resolve(agent.id, agent.host, config.feed_port(agent))
        answer = await ask_feed(agent, address, read_text(authority), check, _take(kept), timeout_s=timeout_s)
        view = json.loads(answer.body)
    except (Unavailable, UsageError, ValueError) as error:
        return {"id": agent.id, "role": agent.role.value, "state": "unreachable", "error": str(error)}
    if answer.session is not None:
        write_file(kept, msgspec.msgpack.encode(answer.session), secret=True)
    return {**view, "early_data": answer.early, "answer_ms": round(answer.seconds * 1e3, 3)}


def _take(path: Path) -> Session | None:
    """A session is used once: whoever comes at the same time finds none."""
    try:
        data = path.read_bytes()
        path.unlink()
        return msgspec.msgpack.decode(data, type=Session)
    except (OSError, msgspec.DecodeError):
        return None


def healthy(status: dict[str, Any]) -> bool:
    """An agent is well when it serves and, if it votes, sees a quorum."""
    serving = status.get("state") in ("ready", "trading", "draining", "finished")
    return serving and bool(status.get("quorum_seen", True))
