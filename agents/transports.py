"""Which QUIC library each agent uses: the cluster file's choice, with the command line thrown over it."""

from __future__ import annotations

from collections.abc import Sequence

from protocol.errors import UsageError
from protocol.quic.backend import TRANSPORTS
from protocol.roster import Roster


def check_transports(choices: Sequence[str], roster: Roster) -> None:
    """``NAME`` for all agents or ``AGENT=NAME`` for one. Raises ``UsageError``."""
    for choice in choices:
        agent_id, is_single, name = choice.rpartition("=")
        if name not in TRANSPORTS:
            raise UsageError(f"--transport {choice}: no such transport; choose one of {', '.join(TRANSPORTS)}")
        if is_single and roster.by_id(agent_id) is None:
            known = ", ".join(agent.id for agent in roster.agents)
            raise UsageError(f"--transport {choice}: agent '{agent_id}' is not in the roster; its agents are: {known}")


def transport_of(agent_id: str, choices: Sequence[str], default: str) -> str:
    """The last choice that names the agent, or else the last for all, or else ``default``."""
    single = [choice.rpartition("=")[2] for choice in choices if choice.rpartition("=")[0] == agent_id]
    for_all = [choice for choice in choices if "=" not in choice]
    return (single or for_all or [default])[-1]
