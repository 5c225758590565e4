"""Keeps the trader in budget: the opening slice, then the next version before one runs out. Only the spine grants."""

from __future__ import annotations

import asyncio
from typing import Final

from agents.voter import Voter
from protocol.codes import CommandKind, DenyCode, Path
from protocol.errors import RunFailure
from protocol.messages import SignedCommand, SliceGrant, Submit
from protocol.roster import Role
from protocol.signing import command_digest

SLICE_ID: Final = 1
EPOCH: Final = 1
OPENING_TIMEOUT_S: Final = 20.0
RESUBMIT_S: Final = 0.25
REFILL_WAIT_S: Final = 0.3
"""How long a cycle waits for a refill; a spine that is slower than that must not hold up the lane."""


class SliceKeeper:
    """One per trader. ``granted`` is the voter's hook."""

    def __init__(self, voter: Voter) -> None:
        self._voter = voter
        self._section = voter.setup.config.file.consensus
        self._changed = asyncio.Event()
        self._refilling: asyncio.Task[None] | None = None

    def granted(self) -> None:
        self._changed.set()

    @property
    def version(self) -> int:
        """The version in force; 0 before the first."""
        current = self._voter.budget.current(SLICE_ID)
        return current.version if current is not None else 0

    async def open(self) -> None:
        """Wait for the first slice, or find the one that stands after a restart. Raises ``RunFailure``."""
        if self.version:
            return
        try:
            async with asyncio.timeout(OPENING_TIMEOUT_S):
                await self._ask(1)
        except TimeoutError:
            primary = self._voter.status(detail=False)["spine_primary"]
            raise RunFailure(
                f"the spine granted no opening slice within {OPENING_TIMEOUT_S:.0f} s "
                f"({DenyCode.SPINE_UNAVAILABLE.name}): its primary {primary} may be down; see `swarm status`"
            ) from None

    async def refill_if_needed(self) -> None:
        """Ask for the next version once enough of this one is used, and give it a moment to come."""
        current = self._voter.budget.current(SLICE_ID)
        assert current is not None, "open() came first"
        if self._refilling is not None and not self._refilling.done():
            return
        if self._voter.budget.used(SLICE_ID) < self._section.slice_refill_share * current.notional_limit:
            return
        self._refilling = self._voter.spawn(self._ask(current.version + 1), "refill")
        await asyncio.wait({self._refilling}, timeout=REFILL_WAIT_S)

    async def _ask(self, version: int) -> None:
        """Submit the grant, again and again, until it is in force."""
        command = self._signed(version)
        while self.version < version:
            self._changed.clear()
            self._voter.submit(Submit(Path.SPINE, True, command), 0)
            try:
                await asyncio.wait_for(self._changed.wait(), RESUBMIT_S)
            except TimeoutError:
                continue

    def _signed(self, version: int) -> SignedCommand:
        voter = self._voter
        grant = SliceGrant(
            cluster_id=voter.cluster_id,
            slice_id=SLICE_ID,
            version=version,
            epoch=EPOCH,
            trader=voter.own,
            gate=voter.setup.config.with_role(Role.EXECUTOR)[0].index,
            notional_limit=self._section.slice_notional_units,
            symbol_notional_limit=self._section.slice_symbol_notional_units,
        )
        body = voter.setup.codec.encode_body(grant)
        unsigned = SignedCommand(CommandKind.SLICE_GRANT, voter.own, body, b"")
        signature = voter.setup.identity.sign(command_digest(voter.cluster_id, unsigned))
        return SignedCommand(CommandKind.SLICE_GRANT, voter.own, body, signature)
