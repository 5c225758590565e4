"""The risk agent: judges every frame by rows 1 to 10 and repeats the trader's pattern search before it signs."""

from __future__ import annotations

from collections import Counter
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
from protocol.messages import Denial, Frame, Intents, OrderEvent

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
        return self._orders.working_quantity(symbol, Side(side)) + self._role.pending.quantity[(symbol, side)]

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
        return self._orders.working_orders(symbol) + self._role.pending.orders[symbol]

    def open_orders_total(self) -> int:
        return self._orders.working_orders() + self._role.pending.orders.total()

    def submit_tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        return self._role.rates.tokens(trader, symbol, market_index)


class Pending:
    """Intents that we approved and whose outcome is open, summed up as they come and go: they count as working."""

    # Invariant: quantity and orders are the sums over _frames.

    def __init__(self) -> None:
        self.quantity: Counter[tuple[int, int]] = Counter()
        """Shares by symbol and side."""
        self.orders: Counter[int] = Counter()
        """Intents by symbol."""
        self._frames: dict[bytes, Intents] = {}

    def add(self, digest: bytes, intents: Intents) -> None:
        """The approved intents of a frame; an earlier word about the same frame is replaced."""
        self.forget(digest)
        self._frames[digest] = intents
        self._count(intents, 1)

    def forget(self, digest: bytes) -> None:
        intents = self._frames.pop(digest, None)
        if intents is not None:
            self._count(intents, -1)

    def _count(self, intents: Intents, sign: int) -> None:
        rows = intents.array
        columns = zip(rows["symbol"].tolist(), rows["side"].tolist(), rows["quantity"].tolist(), strict=True)
        for symbol, side, quantity in columns:
            self.quantity[(symbol, side)] += sign * quantity
            self.orders[symbol] += sign


class RiskAgent(VoterRole):
    """Role of a risk process."""

    repeats_claims = True

    def attach(self, voter: Voter) -> None:
        super().attach(voter)
        file = self.voter.setup.config.file
        self.limits: RiskLimits = file.risk
        self.rates = SubmitRates(self.limits)
        self.pending = Pending()
        self.venue_index = voter.setup.start_index
        """The latest bar that a venue's report has named."""
        self.claims_repeated = 0
        self.claims_refuted = 0
        self.claims_other_data = 0
        """Of those refuted: the trader's window is not the one in our data."""
        self._expiry: dict[bytes, int] = {}
        self._view = ClusterView(self)
        self._search = PatternSearch(self.voter.data, file.pattern, self.voter.setup.switches.dtw)

    def inspect(self, record: FrameRecord) -> tuple[Denial, ...]:
        frame = record.frame
        self._forget_expired()
        with span(Operation.RISK_CHECK, frame.cycle):
            denials = merge_denials(check_frame(self._view, self.limits, frame, wall_ns()), _unclaimed(frame))
        denied = {denial.intent for denial in denials}
        approved = frame.intents.take([each for each in range(len(frame.intents)) if each not in denied])
        for symbol in approved.array["symbol"].tolist():
            self.rates.take(frame.trader, symbol, frame.market_index)
        self.pending.add(record.digest, approved)
        self._expiry[record.digest] = frame.expires_at_ns
        return denials

    def repeat_claims(self, record: FrameRecord) -> tuple[Denial, ...]:
        frame = record.frame
        refuted: dict[int, DenyCode] = {}
        with span(Operation.CLAIM_REPEAT, frame.cycle, len(frame.claims)):
            verdicts = judge_claims(self._search, frame)
        for claim, (code, reason) in zip(frame.claims, verdicts, strict=True):
            self.claims_repeated += code is not DenyCode.CLAIM_DATA_DIFFERS
            self.claims_other_data += code is DenyCode.CLAIM_DATA_DIFFERS
            if code is not DenyCode.APPROVED:
                self.claims_refuted += 1
                refuted[claim.symbol] = code
                self.voter.log.warning(
                    "claim_refuted", trader=frame.trader, symbol=claim.symbol, code=code.name, why=reason
                )
        symbols = frame.intents.array["symbol"].tolist()
        return tuple(Denial(position, refuted[each]) for position, each in enumerate(symbols) if each in refuted)

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
        self.pending.forget(digest)
        self._expiry.pop(digest, None)

    def status(self, detail: bool) -> dict[str, Any]:
        return {
            "claims_repeated": self.claims_repeated,
            "claims_refuted": self.claims_refuted,
            "claims_other_data": self.claims_other_data,
        }


def judge_claims(search: PatternSearch, frame: Frame) -> list[tuple[DenyCode, str]]:
    """A code and its reason for every claim. The evidence comes first: who looks at another window finds other
    analogues honestly, and no search is spent on them. A frame without evidence is judged by the search alone."""
    same = search.same_windows(frame.claims, frame.windows, frame.window_length, frame.market_index)
    searched = [claim for claim, same_window in zip(frame.claims, same, strict=True) if same_window]
    reasons = iter(search.refute(searched, frame.market_index))
    verdicts: list[tuple[DenyCode, str]] = []
    for same_window in same:
        reason = next(reasons) if same_window else None
        if not same_window:
            verdicts.append((DenyCode.CLAIM_DATA_DIFFERS, "another window in our data"))
        elif reason is not None:
            verdicts.append((DenyCode.CLAIM_NOT_REPRODUCED, reason))
        else:
            verdicts.append((DenyCode.APPROVED, ""))
    return verdicts


def _unclaimed(frame: Frame) -> tuple[Denial, ...]:
    """Every intent stands on a claim about its symbol; one claim a symbol."""
    counts = Counter(claim.symbol for claim in frame.claims)
    symbols = frame.intents.array["symbol"].tolist()
    return tuple(Denial(at, DenyCode.CLAIM_MISSING) for at, symbol in enumerate(symbols) if counts[symbol] != 1)
