"""What every voter checks before it signs a frame, whatever its role: expiry, slice, route. Pure.

Risk agents add their own checks and repeat the DTW claim (``agents/risk/verify.py``); the denials of both are merged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agents.clock import expired
from agents.config import ClusterFile
from agents.data.dataset import Dataset
from agents.stress import StressMatcher
from consensus.budget import BudgetBook
from consensus.effects import Debit
from consensus.route import RouteFacts, critical_positions, intent_notionals
from protocol.codes import DenyCode, Path
from protocol.messages import Denial, Frame


@dataclass(frozen=True, slots=True)
class RoutePolicy:
    """The numbers that decide which path a decision takes, the same at every voter."""

    critical_notional: int
    collar_bps: int
    routed: bool
    """False in the profiles that send everything down one path."""

    @classmethod
    def of(cls, file: ClusterFile, consensus: str) -> RoutePolicy:
        return cls(file.consensus.critical_notional_units, file.risk.price_collar_soft_bps, consensus == "hybrid")


def route_facts(
    policy: RoutePolicy, budget: BudgetBook, slice_id: int, data: Dataset, stress: StressMatcher, market_index: int
) -> RouteFacts:
    """What this voter knows when it routes intents of one bar. The trader splits its signals with the same facts."""
    grant = budget.current(slice_id)
    known = 0 <= market_index < data.bars
    return RouteFacts(
        symbol_limit=grant.symbol_notional_limit if grant is not None else 0,
        used_by_symbol=lambda symbol: budget.used_by_symbol(slice_id, symbol),
        stress=lambda symbol: stress.matches(market_index),
        reference_price=lambda symbol: _close(data, market_index, symbol) if known else None,
        critical_notional=policy.critical_notional,
        collar_bps=policy.collar_bps,
    )


def common_denials(
    frame: Frame, policy: RoutePolicy, budget: BudgetBook, facts: Callable[[], RouteFacts], now_wall_ns: int
) -> tuple[Denial, ...]:
    """Denials by expiry, slice and route."""
    if expired(frame.expires_at_ns, now_wall_ns):
        return deny_all(frame, DenyCode.FRAME_EXPIRED)
    if frame.path == Path.SPINE:
        return ()
    code = budget.frame_error(frame)
    if code != DenyCode.APPROVED:
        return deny_all(frame, code)
    if not policy.routed:
        return ()
    return tuple(Denial(position, DenyCode.ROUTE_CRITICAL) for position in critical_positions(frame.intents, facts()))


def debits_of(frame: Frame, policy: RoutePolicy) -> tuple[Debit, ...]:
    """What the frame takes from its slice: the lane consumes, a spine frame carries its own escrow."""
    if frame.path != Path.LANE:
        return ()
    rows, notionals = frame.intents.array, intent_notionals(frame.intents, policy.collar_bps)
    columns = zip(rows["sequence"].tolist(), rows["symbol"].tolist(), notionals, strict=True)
    return tuple(Debit(frame.slice_id, frame.slice_version, frame.trader, *cells) for cells in columns)


def deny_all(frame: Frame, code: DenyCode) -> tuple[Denial, ...]:
    return tuple(Denial(position, code) for position in range(len(frame.intents)))


def merge_denials(*parts: Iterable[Denial]) -> tuple[Denial, ...]:
    """One denial per intent, the first part's code before the later ones', in the order of the intents."""
    codes: dict[int, int] = {}
    for part in parts:
        for denial in part:
            codes.setdefault(denial.intent, denial.code)
    return tuple(Denial(intent, codes[intent]) for intent in sorted(codes))


def _close(data: Dataset, market_index: int, symbol: int) -> int | None:
    return int(data.closes[market_index, symbol]) if 0 <= symbol < len(data.symbols) else None
