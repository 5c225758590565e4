"""Gets one frame decided: submits it, submits it again, escalates it, and in bounded time says what became of it.

Whatever happens in between, an intent keeps its id, so that two paths can never make two orders of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from agents.clock import EXPIRY_GRACE_NS, wall_ns
from agents.config import ConsensusSection
from agents.trader.slices import EPOCH, SLICE_ID
from agents.voter import Voter
from consensus.effects import FrameRecord, FrameSettled
from profiling.clock import now_ns
from profiling.span import frame_key, span
from profiling.span import record as record_span
from profiling.stages import Operation
from protocol.codes import CommandKind, DenyCode, Path
from protocol.messages import Claim, Frame, Intents, SignedCommand, Submit
from protocol.rows import Windows
from protocol.signing import command_digest

MS: Final = 1_000_000
FRAMES_PER_CYCLE: Final = 8
"""A cycle makes a lane frame, a spine frame and at most two escalations; ids leave room for eight."""


ESCALATING: Final = frozenset(
    {
        DenyCode.ROUTE_CRITICAL,
        DenyCode.LANE_UNAVAILABLE,
        DenyCode.QUORUM_MISSING,
        DenyCode.SLICE_UNKNOWN,  # a refill overtook the frame
        DenyCode.SLICE_EXHAUSTED,
    }
)
"""Refusals of the lane that are no judgement on the intent: the spine may still take it, with its own escrow."""


@dataclass(frozen=True, slots=True, eq=False)
class Proposal:
    """What a frame is made of: row i of each belongs to the same symbol."""

    intents: Intents
    claims: Sequence[Claim]
    windows: NDArray[np.float32]
    """The window that each claim searched for, shape (claims, window)."""

    def take(self, positions: Sequence[int]) -> Proposal:
        """Some of the rows."""
        claims = [self.claims[position] for position in positions]
        return Proposal(self.intents.take(positions), claims, self.windows[list(positions)])


@dataclass(slots=True)
class _Open:
    """A frame under way."""

    digest: bytes
    submit: Submit
    frame: Frame
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    codes: tuple[int | None, ...] = ()
    coordinated: tuple[int | None, ...] = ()

    @property
    def settled(self) -> bool:
        return bool(self.codes) and None not in self.codes


class Decider:
    """One per trader. ``decide`` returns a code for every intent; ``settled`` and ``coordinated`` feed it."""

    def __init__(self, voter: Voter) -> None:
        self._voter = voter
        self._section: ConsensusSection = voter.setup.config.file.consensus
        self._separate = voter.setup.switches.coordination == "separate"
        self._open: dict[bytes, _Open] = {}
        self._frames_made: dict[int, int] = {}
        self.without_order: list[int] = []
        """``frame_key`` of frames that led to no order: denied, or given up for another path."""
        self.escalated = 0

    async def decide(self, proposal: Proposal, path: Path, cycle: int, market_index: int) -> dict[int, DenyCode]:
        """Decide intents together. Those that the lane does not settle in time, or calls critical, take the spine."""
        codes = await self._decide_once(proposal, path, cycle, market_index)
        sequences = proposal.intents.array["sequence"].tolist()
        again = [at for at, each in enumerate(sequences) if path == Path.LANE and codes[each] in ESCALATING]
        if again and self._voter.setup.switches.consensus != "raft":
            self.escalated += len(again)
            self._voter.log.info("escalated", cycle=cycle, intents=len(again))
            codes |= await self._decide_once(proposal.take(again), Path.SPINE, cycle, market_index)
        return codes

    def settled(self, settled: FrameSettled) -> None:
        under_way = self._open.get(settled.record.digest)
        if under_way is not None:
            under_way.codes = settled.record.codes
            under_way.changed.set()

    def coordinated(self, record: FrameRecord) -> None:
        under_way = self._open.get(record.digest)
        if under_way is not None:
            under_way.coordinated = record.coordinated_codes
            under_way.changed.set()

    # --- one frame ---------------------------------------------------------------------------------------------------

    async def _decide_once(self, proposal: Proposal, path: Path, cycle: int, market_index: int) -> dict[int, DenyCode]:
        under_way = self._make(proposal, path, cycle, market_index)
        self._open[under_way.digest] = under_way
        try:
            if self._separate and not await self._coordinate(under_way):
                codes = self._conclude(under_way, under_way.coordinated)
            else:
                await self._order(under_way)
                codes = self._conclude(under_way, under_way.codes)
        finally:
            del self._open[under_way.digest]
        if DenyCode.APPROVED not in codes.values():
            self.without_order.append(frame_key(under_way.digest))
        return codes

    def _make(self, proposal: Proposal, path: Path, cycle: int, market_index: int) -> _Open:
        voter = self._voter
        grant = voter.budget.current(SLICE_ID)
        number = self._frames_made.get(cycle, 0)
        self._frames_made = {cycle: number + 1}
        now = wall_ns()
        expiry_ms = self._section.routine_expiry_ms if path == Path.LANE else self._section.critical_expiry_ms
        frame = Frame(
            cluster_id=voter.cluster_id,
            trader=voter.own,
            path=path,
            epoch=EPOCH,
            slice_id=SLICE_ID,
            slice_version=grant.version if grant is not None else 0,
            sequence=cycle * FRAMES_PER_CYCLE + number,
            cycle=cycle,
            market_index=market_index,
            created_at_ns=now,
            expires_at_ns=now + expiry_ms * MS,
            intents=proposal.intents,
            claims=tuple(proposal.claims),
            windows=Windows.of(proposal.windows),
            window_length=proposal.windows.shape[1],
        )
        with span(Operation.FRAME_ENCODE, cycle):
            body = voter.setup.codec.encode_body(frame)
        started = now_ns()
        unsigned = SignedCommand(CommandKind.FRAME, voter.own, body, b"")
        digest = command_digest(voter.cluster_id, unsigned)
        command = SignedCommand(CommandKind.FRAME, voter.own, body, voter.setup.identity.sign(digest))
        record_span(Operation.FRAME_SIGN, started, now_ns(), cycle, frame_key(digest))
        return _Open(digest, Submit(path, True, command), frame)

    async def _coordinate(self, under_way: _Open) -> bool:
        """The separate round of the baseline; False when nothing is left to order."""
        submit = Submit(under_way.submit.path, False, under_way.submit.command)
        await self._until(under_way, submit, lambda: bool(under_way.coordinated), under_way.frame.expires_at_ns)
        return DenyCode.APPROVED in under_way.coordinated

    async def _order(self, under_way: _Open) -> None:
        frame = under_way.frame
        give_up_ns = frame.expires_at_ns + EXPIRY_GRACE_NS
        if frame.path == Path.LANE and self._voter.setup.switches.consensus == "hybrid":
            give_up_ns = frame.created_at_ns + self._section.escalate_ms * MS
        await self._until(under_way, under_way.submit, lambda: under_way.settled, give_up_ns)

    async def _until(self, under_way: _Open, submit: Submit, done: Callable[[], bool], give_up_ns: int) -> None:
        """Submit, and submit again while there is no answer: the leader may have changed, a message may be lost."""
        interval_s = self._section.resubmit_ms / 1e3
        while not done() and (now := wall_ns()) < give_up_ns:
            if now < under_way.frame.expires_at_ns:
                self._voter.submit(submit, under_way.frame.cycle)
            wait_s = min(interval_s, max(0.0, (give_up_ns - wall_ns()) / 1e9))
            try:
                async with asyncio.timeout(wait_s):
                    while not done():
                        under_way.changed.clear()
                        await under_way.changed.wait()
            except TimeoutError:
                continue

    def _conclude(self, under_way: _Open, codes: Sequence[int | None]) -> dict[int, DenyCode]:
        """A code for every intent; what is still open is refused with the reason, and the gate refuses it too."""
        sequences = under_way.frame.intents.array["sequence"].tolist()
        known = codes or (None,) * len(sequences)
        missing = self._why_open(under_way) if None in known else DenyCode.APPROVED
        return {
            sequence: named(code) if code is not None else missing
            for sequence, code in zip(sequences, known, strict=True)
        }

    def _why_open(self, under_way: _Open) -> DenyCode:
        record = self._voter.replica.frames.get(under_way.digest)
        if under_way.frame.path == Path.SPINE:
            ordered = record is not None and record.slot is not None
            return DenyCode.QUORUM_MISSING if ordered else DenyCode.SPINE_UNAVAILABLE
        ordered = record is not None and record.position is not None
        return DenyCode.QUORUM_MISSING if ordered else DenyCode.LANE_UNAVAILABLE


def named(code: int) -> DenyCode:
    """A voter may deny with a number that has no name; then what counts is that it is no approval."""
    try:
        return DenyCode(code)
    except ValueError:
        return DenyCode.QUORUM_MISSING
