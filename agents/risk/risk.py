"""The risk agent: judges every frame by rows 1 to 10 and repeats the trader's pattern search before it signs."""

from __future__ import annotations

from typing import Any, Final

from agents.clock import wall_ns
from agents.risk.checks import Reference, check_frame
from agents.risk.limits import RiskLimits
from agents.risk.rate import SubmitRates, SubmitTokens
from agents.trader.patterns import PatternSearch
from agents.verification import merge_denials
from agents.voter import Voter, VoterRole
from consensus.effects import FrameRecord, FrameSettled
from profiling.span import span
from profiling.stages import Operation
from protocol.codes import DenyCode, Side
from protocol.messages import Denial, Frame, Intent, OrderEvent

BARS_AHEAD_MAX: Final = 256
"""The venue's clock stands still while nobody trades; a frame may be so far ahead of it."""
BARS_BEHIND_MAX: Final = 5
"""A frame that escalates, or another trader's, may be so far behind it."""


class ClusterView:
    """``checks.RiskView`` over this replica's data and order view, plus what it approved and has not seen settled."""

    def __init__(self, role: RiskAgent) -> None:
        self._role = role
        self._data = role.voter.data
        self._orders = role.voter.orders

    def instrument(self, symbol: int) -> str | None:
        return self._data.symbols[symbol] if 0 <= symbol < len(self._data.symbols) else None

    def reference(self, symbol: int, market_index: int) -> Reference | None:
        """Our own close of that bar. Not for bars far from the venue's clock, or a trader could pick his prices."""
        if self.instrument(symbol) is None or not 0 <= market_index < self._data.bars:
            return None
        if not -BARS_BEHIND_MAX <= market_index - self._role.venue_index <= BARS_AHEAD_MAX:
            return None
        return Reference(int(self._data.closes[market_index, symbol]), 0.0)

    def position_quantity(self, symbol: int) -> int:
        return self._orders.position_quantity(symbol)

    def working_quantity(self, symbol: int, side: int) -> int:
        pending = sum(
            intent.quantity
            for intents in self._role.pending.values()
            for intent in intents
            if intent.symbol == symbol and intent.side == side
        )
        return self._orders.working_quantity(symbol, Side(side)) + pending

    def gross_notional(self) -> int:
        """Worse side of every symbol at the close of the bar that the venue has reached."""
        total = 0
        for symbol in range(len(self._data.symbols)):
            position = self.position_quantity(symbol)
            buys = position + self.working_quantity(symbol, Side.BUY)
            sells = self.working_quantity(symbol, Side.SELL) - position
            total += max(buys, sells) * int(self._data.closes[self._role.venue_index, symbol])
        return total

    def open_orders(self, symbol: int) -> int:
        pending = sum(intent.symbol == symbol for intents in self._role.pending.values() for intent in intents)
        return self._orders.working_orders(symbol) + pending

    def open_orders_total(self) -> int:
        return self._orders.working_orders() + sum(len(intents) for intents in self._role.pending.values())

    def submit_tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        return self._role.rates.tokens(trader, symbol, market_index)


class RiskAgent(VoterRole):
    """Role of a risk process."""

    repeats_claims = True

    def attach(self, voter: Voter) -> None:
        super().attach(voter)
        file = self.voter.setup.config.file
        self.limits: RiskLimits = file.risk
        self.rates = SubmitRates(self.limits)
        self.pending: dict[bytes, tuple[Intent, ...]] = {}
        """Intents that we approved and whose outcome is open: they count as working."""
        self.venue_index = voter.setup.start_index
        """The latest bar that a venue's report has named."""
        self.claims_repeated = 0
        self.claims_refuted = 0
        self._expiry: dict[bytes, int] = {}
        self._view = ClusterView(self)
        self._search = PatternSearch(self.voter.data, file.pattern, self.voter.setup.switches.dtw)

    def inspect(self, record: FrameRecord) -> tuple[Denial, ...]:
        frame = record.frame
        self._forget_expired()
        with span(Operation.RISK_CHECK, frame.cycle):
            denials = merge_denials(check_frame(self._view, self.limits, frame, wall_ns()), _unclaimed(frame))
        denied = {denial.intent for denial in denials}
        approved = tuple(intent for position, intent in enumerate(frame.intents) if position not in denied)
        for intent in approved:
            self.rates.take(frame.trader, intent.symbol, frame.market_index)
        self.pending[record.digest] = approved
        self._expiry[record.digest] = frame.expires_at_ns
        return denials

    def repeat_claims(self, record: FrameRecord) -> tuple[Denial, ...]:
        frame = record.frame
        refuted: set[int] = set()
        with span(Operation.CLAIM_REPEAT, frame.cycle, len(frame.claims)):
            reasons = self._search.refute(frame.claims, frame.market_index)
        for claim, reason in zip(frame.claims, reasons, strict=True):
            self.claims_repeated += 1
            if reason is not None:
                self.claims_refuted += 1
                refuted.add(claim.symbol)
                self.voter.log.warning("claim_refuted", trader=frame.trader, symbol=claim.symbol, why=reason)
        return tuple(
            Denial(position, DenyCode.CLAIM_NOT_REPRODUCED)
            for position, intent in enumerate(frame.intents)
            if intent.symbol in refuted
        )

    def event(self, event: OrderEvent) -> None:
        if event.report.exec_id and event.report.market_index < self.voter.data.bars:
            self.venue_index = max(self.venue_index, event.report.market_index)

    def settled(self, settled: FrameSettled) -> None:
        if settled.record.settled:
            self._forget(settled.record.digest)

    def _forget_expired(self) -> None:
        now = wall_ns()
        for digest in [digest for digest, at_ns in self._expiry.items() if now >= at_ns]:
            self._forget(digest)

    def _forget(self, digest: bytes) -> None:
        self.pending.pop(digest, None)
        self._expiry.pop(digest, None)

    def status(self, detail: bool) -> dict[str, Any]:
        return {"claims_repeated": self.claims_repeated, "claims_refuted": self.claims_refuted}


def _unclaimed(frame: Frame) -> tuple[Denial, ...]:
    """Every intent stands on a claim about its symbol; one claim a symbol."""
    symbols = [claim.symbol for claim in frame.claims]
    claimed = {symbol for symbol in symbols if symbols.count(symbol) == 1}
    return tuple(
        Denial(position, DenyCode.CLAIM_MISSING)
        for position, intent in enumerate(frame.intents)
        if intent.symbol not in claimed
    )
