"""Notices that a disk was lost: a small file beside the agent's key names the one store that its promises are in.

An agent whose data directory is gone would start as if it had never promised anything, and could vote a second time in
the same term. Peers cannot tell, so its own host has to: the witness lies on purpose where the data directory does not.
An older copy of the right store passes; nothing on this host can tell that.
"""

from __future__ import annotations

import os
from pathlib import Path

from consensus.storage_file import sync_directory
from protocol.errors import RunFailure, UsageError


def expect_store(witness: Path, store: Path, cluster_id: bytes, agent_id: str) -> None:
    """Before a store is made: raises ``UsageError`` if there was one in this cluster and it is not there."""
    if not store.exists() and _read(witness, cluster_id) is not None:
        raise UsageError(
            f"{agent_id} has voted in this cluster before ({witness} says so), but {store} is missing. Put its data "
            "directory back, or bring the agent back under a new identity, see docs/operations.md"
        )


def bear_witness(witness: Path, store: Path, cluster_id: bytes, incarnation: bytes) -> None:
    """Before the first promise: remember this store. Raises ``UsageError`` if another one is remembered."""
    remembered = _read(witness, cluster_id)
    if remembered is None:
        _write(witness, cluster_id, incarnation)
    elif remembered != incarnation:
        raise UsageError(
            f"{store} is not the store that this agent voted from: it was made anew, or belongs to another host "
            f"({witness} says so). Put the right one back, or bring the agent back under a new identity, see "
            "docs/operations.md"
        )


def _read(witness: Path, cluster_id: bytes) -> bytes | None:
    """The store that is remembered for this cluster, if any."""
    try:
        cluster, incarnation = (bytes.fromhex(word) for word in witness.read_text("ascii").split())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UsageError(f"cannot read {witness}: {error}; restore it from a copy") from error
    return incarnation if cluster == cluster_id else None


def _write(witness: Path, cluster_id: bytes, incarnation: bytes) -> None:
    draft = witness.with_name(witness.name + ".new")
    try:
        with draft.open("w") as file:
            file.write(f"{cluster_id.hex()} {incarnation.hex()}\n")
            file.flush()
            os.fsync(file.fileno())
        draft.rename(witness)
        sync_directory(witness.parent)
    except OSError as error:
        raise RunFailure(f"cannot write {witness}: {error}; check the disk's space and permissions") from error
