"""Where the nodes of a measured lane live: keys, directories and ports, the same in every process."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from consensus.quorum import CRASH_PROFILE, Quorum
from profiling.bench.lane.ports import lasting_ports
from profiling.bench.transport.site import HOST
from protocol.pki import Subject, issue_cluster, read_public_keys
from protocol.roster import Agent, Role, Roster

NAME: Final = "lane"
CLUSTER_ID: Final = bytes(16)
THRIFT_MS: Final = 10


@dataclass(frozen=True, slots=True)
class LaneSite:
    """One lane of ``len(ports)`` nodes under ``directory``."""

    directory: Path
    ports: tuple[int, ...]
    """UDP, between the nodes."""
    client_ports: tuple[int, ...]
    """TCP, for clients, on loopback only."""
    transport: str = "aioquic"
    profile: str = CRASH_PROFILE
    """Of ``consensus.quorum``: "raft" commits with a majority, "hybrid" with q = ceil((n+f+1)/2)."""
    snapshot_every: int = 0
    """Entries between snapshots; 0 for none."""
    breakable: bool = False
    """Whether nodes let be done to them what ``trials`` knows."""
    spares: int = 0
    """So many nodes, the last ones, are no members at first."""
    lease_reads: bool = False
    thrift_ms: int = THRIFT_MS
    """How long entries wait for followers that the quorum can do without, as in the swarm: see ``RaftConfig``."""
    clock_drift_ppm: int = 10_000
    """By how much clocks may differ, where reads rest on leases: see ``RaftConfig``."""

    @property
    def roster(self) -> Roster:
        """All nodes; their keys are read from the directory."""
        names = [node_name(index) for index in range(len(self.ports))]
        keys = read_public_keys(self.directory / "pki", names)
        return Roster(
            NAME,
            CLUSTER_ID,
            tuple(
                Agent(name, Role.RISK, index, HOST, self.ports[index], True, keys[name])
                for index, name in enumerate(names)
            ),
        )

    @property
    def lane_quorum(self) -> Quorum:
        """For as many faulty ones as there may be among the first voters."""
        nodes = len(self.voters)
        return Quorum(nodes, (nodes - 1) // (2 if self.profile == CRASH_PROFILE else 3), self.profile)

    @property
    def voters(self) -> tuple[int, ...]:
        """The first ones; a log may say otherwise."""
        return tuple(range(len(self.ports) - self.spares))

    def data_dir(self, index: int) -> Path:
        """Where this node keeps its store."""
        return self.directory / "data" / node_name(index)

    @property
    def file(self) -> Path:
        """What nodes are told: where all of this stands."""
        return self.directory / "site.json"

    def write(self) -> None:
        """For ``read_site`` in other processes."""
        self.file.write_text(json.dumps(asdict(self), default=str))


def node_name(index: int) -> str:
    """As in certificates."""
    return f"risk-{index + 1}"


def read_site(path: Path) -> LaneSite:
    """What ``LaneSite.write`` wrote."""
    raw = json.loads(path.read_text())
    raw["directory"] = Path(raw["directory"])
    raw["ports"], raw["client_ports"] = tuple(raw["ports"]), tuple(raw["client_ports"])
    return LaneSite(**raw)


def make_site(directory: Path, nodes: int, **settings: object) -> LaneSite:
    """Issue certificates for so many nodes, and find ports."""
    subjects = [Subject(node_name(index), Role.RISK, HOST) for index in range(nodes)]
    issue_cluster(directory / "pki", NAME, subjects)
    ports = lasting_ports(2 * nodes)
    site = LaneSite(directory, ports[:nodes], ports[nodes:], **settings)  # type: ignore[arg-type]
    site.write()
    return site
