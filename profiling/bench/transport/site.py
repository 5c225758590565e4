"""What both ends of a transport benchmark share: a cluster with keys in a directory, and messages of a wanted size."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from protocol.messages import SignedCommand, Submit
from protocol.pki import Subject, issue_cluster, read_public_keys
from protocol.roster import Agent, Role, Roster

NAME: Final = "bench"
CLUSTER_ID: Final = bytes(16)
ROLES: Final = {
    "trader-1": Role.TRADER,
    "risk-1": Role.RISK,
    "risk-2": Role.RISK,
    "risk-3": Role.RISK,
}
SERVERS: Final = ("risk-1", "risk-2", "risk-3")
HOST: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Site:
    """Certificates and keys in ``directory``, and who listens where: the client first, then as many servers as there
    are further ports. The same in every process of a benchmark."""

    directory: Path
    ports: tuple[int, ...]

    def moved(self, servers: int) -> Site:
        """The same keys, on ports that are free now. Nobody calls for servers that are not there."""
        return Site(self.directory, free_ports(1 + servers))

    @property
    def roster(self) -> Roster:
        """Those that have a port; the keys are read from the directory."""
        present = list(ROLES)[: len(self.ports)]
        keys = read_public_keys(self.directory, present)
        return Roster(
            NAME,
            CLUSTER_ID,
            tuple(
                Agent(agent_id, ROLES[agent_id], index, HOST, self.ports[index], True, keys[agent_id])
                for index, agent_id in enumerate(present)
            ),
        )


def make_site(directory: Path) -> Site:
    """Issue everything anew, on ports that are free now."""
    issue_cluster(directory, NAME, [Subject(agent_id, role, HOST) for agent_id, role in ROLES.items()])
    return Site(directory, free_ports(len(ROLES)))


def free_ports(count: int) -> tuple[int, ...]:
    """Ports that are free for UDP and TCP at this moment."""
    bound = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(count)]
    try:
        for udp in bound:
            udp.bind((HOST, 0))
        return tuple(udp.getsockname()[1] for udp in bound)
    finally:
        for udp in bound:
            udp.close()


def message_of(size: int) -> Submit:
    """A command of an author with ``size`` bytes of body and signature together: what the payload is to the others."""
    return Submit(1, True, SignedCommand(1, 0, bytes(max(0, size - 64)), bytes(64)))
