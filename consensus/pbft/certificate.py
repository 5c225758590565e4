"""The commit certificate: q signed COMMITs that anybody can check without having taken part."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Final

from consensus.pbft.safety import COMMIT
from protocol.messages import Commit, CommittedSlot
from protocol.signing import batch_digest, phase_bytes

DIGEST_BYTES: Final = 32

Verify = Callable[[int, bytes, bytes], bool]
"""(replica, signed bytes, signature): is this the replica's signature?"""


def verify_certificate(
    slot: CommittedSlot, cluster_id: bytes, voters: Collection[int], quorum_size: int, verify: Verify
) -> str | None:
    """Why ``slot`` does not prove its decision, as a stable label, or None when it does.

    The digest must be that of the commands, and at least ``quorum_size`` distinct ``voters`` must have signed COMMIT
    for it, in the slot's view and at its sequence. One bad COMMIT spoils the certificate; honest replicas add none.
    """
    if len(slot.commits) < quorum_size:
        return "too_few_commits"
    if len(slot.commits) > len(voters):
        return "too_many_commits"
    signers: set[int] = set()
    for commit in slot.commits:
        if reason := _misplaced(slot, commit, voters, signers):
            return reason
        signers.add(commit.replica)
    if batch_digest(cluster_id, slot.commands) != slot.digest:
        return "digest_mismatch"
    payloads = (
        (commit, phase_bytes(cluster_id, COMMIT, slot.view, slot.sequence, slot.digest, commit.replica))
        for commit in slot.commits
    )
    if not all(verify(commit.replica, payload, commit.signature) for commit, payload in payloads):
        return "signature_invalid"
    return None


def _misplaced(slot: CommittedSlot, commit: Commit, voters: Collection[int], signers: set[int]) -> str | None:
    if (commit.view, commit.sequence, commit.digest) != (slot.view, slot.sequence, slot.digest):
        return "commit_mismatch"
    if commit.replica not in voters:
        return "signer_unknown"
    if commit.replica in signers:
        return "signer_repeated"
    return None
