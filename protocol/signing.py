"""The bytes that signatures cover: domain-separated, fixed layout, independent of any codec.

Each kind of promise has a domain of its own and names the cluster, so that no signature can be moved to another
phase, path or cluster.
"""

from __future__ import annotations

import hashlib
import struct

from protocol.messages import Denial, FrameVote, SignedCommand


def digest(*parts: bytes) -> bytes:
    """SHA-256 over the parts, each preceded by its length, so that no two part lists collide."""
    hasher = hashlib.sha256()
    for part in parts:
        hasher.update(struct.pack("<Q", len(part)))
        hasher.update(part)
    return hasher.digest()


def command_digest(cluster_id: bytes, command: SignedCommand) -> bytes:
    """Identity of a command, whatever path it takes. The author's signature covers exactly this."""
    return digest(b"swarm/command/1", cluster_id, struct.pack("<BH", command.kind, command.author), command.body)


def batch_digest(cluster_id: bytes, commands: tuple[SignedCommand, ...]) -> bytes:
    """Digest of a PBFT slot: the ordered commands, signatures included, so that backups commit to the same bytes."""
    parts = [part for command in commands for part in (command_digest(cluster_id, command), command.signature)]
    return digest(b"swarm/slot/1", cluster_id, *parts)


def vote_bytes(cluster_id: bytes, vote: FrameVote) -> bytes:
    """What a replica signs when it votes on a frame."""
    denials = b"".join(_denial_bytes(denial) for denial in vote.denials)
    position = struct.pack("<BHQQ", vote.path, vote.replica, vote.term, vote.index)
    return digest(b"swarm/vote/1", cluster_id, position, vote.digest, denials)


def phase_bytes(cluster_id: bytes, phase: str, view: int, sequence: int, slot_digest: bytes, replica: int) -> bytes:
    """What a replica signs in a PBFT phase: ``pre-prepare``, ``prepare`` or ``commit``."""
    return digest(
        b"swarm/pbft/1", cluster_id, phase.encode(), struct.pack("<QQH", view, sequence, replica), slot_digest
    )


def hello_bytes(
    cluster_id: bytes, exporter: bytes, agent: int, epoch: int, roster_digest: bytes, dialler: bool
) -> bytes:
    """What an agent signs in HELLO or HELLO-ACK: its key, bound to this TLS session by the exporter (RFC 8446, 7.5)."""
    return digest(b"swarm/hello/1", cluster_id, exporter, struct.pack("<HQ?", agent, epoch, dialler), roster_digest)


def possession_bytes(exporter: bytes) -> bytes:
    """What the key of a TLS certificate signs when the certificate is shown in HELLO. It names the session, as TLS
    does, and nothing else: the clusters are compared by what the agent's own key signs."""
    return digest(b"swarm/certificate/1", exporter)


def _denial_bytes(denial: Denial) -> bytes:
    return struct.pack("<HH", denial.intent, denial.code)
