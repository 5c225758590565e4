from __future__ import annotations

import re
from pathlib import Path as FilePath

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.risk.checks import (
    RULES,
    FrameAhead,
    Reference,
    check_frame,
    check_intent,
)
from agents.risk.limits import RiskLimits
from agents.risk.rate import SubmitRates, SubmitTokens, TokenBucket
from consensus.route import criticality
from protocol.codes import DenyCode, Side
from protocol.messages import Denial, Intent, Intents
from tests.oracles.signed_frames import EXPIRES_NS, PRICE, make_frame, make_intent

OK = DenyCode.APPROVED
NOW_NS = EXPIRES_NS - 1
README = FilePath(__file__).parents[2] / "agents/risk/README.md"


class TableView:
    """A market with two symbols at the same price and nothing going on, but for what a test writes into it."""

    def __init__(self, limits: RiskLimits) -> None:
        self.names = {0: "AAA", 1: "BBB", 2: "UNLISTED"}
        self.references: dict[int, Reference] = {symbol: Reference(PRICE, 0) for symbol in (0, 1, 2)}
        self.positions: dict[int, int] = {}
        self.working: dict[tuple[int, int], int] = {}
        self.gross = 0
        self.open: dict[int, int] = {}
        self.rates = SubmitRates(limits)

    def instrument(self, symbol: int) -> str | None:
        return self.names.get(symbol)

    def reference(self, symbol: int, market_index: int) -> Reference | None:
        return self.references.get(symbol)

    def position_quantity(self, symbol: int) -> int:
        return self.positions.get(symbol, 0)

    def working_quantity(self, symbol: int, side: int) -> int:
        return self.working.get((symbol, side), 0)

    def gross_notional(self) -> int:
        return self.gross

    def open_orders(self, symbol: int) -> int:
        return self.open.get(symbol, 0)

    def open_orders_total(self) -> int:
        return sum(self.open.values())

    def submit_tokens(self, trader: int, symbol: int, market_index: int) -> SubmitTokens:
        return self.rates.tokens(trader, symbol, market_index)


def make_limits(**changes: object) -> RiskLimits:
    known: dict[str, object] = {"instruments": ("AAA", "BBB")}
    return RiskLimits(**{**known, **changes})  # type: ignore[arg-type]


def make_view(**changes: object) -> TableView:
    view = TableView(make_limits())
    for name, value in changes.items():
        setattr(view, name, value)
    return view


def judge(intent: Intent, view: TableView | None = None, now_ns: int = NOW_NS, **limits: object) -> DenyCode:
    return check_intent(view or make_view(), make_limits(**limits), intent, make_frame(intent), now_ns)


def judge_frame(*intents: Intent, view: TableView | None = None, **limits: object) -> dict[int, int]:
    denials = check_frame(view or make_view(), make_limits(**limits), make_frame(*intents), NOW_NS)
    return {denial.intent: denial.code for denial in denials}


around = pytest.mark.parametrize("off", [-1, 0, 1])


def expected(off: int, code: DenyCode) -> DenyCode:
    return code if off > 0 else OK


# --- each rule at its limit


def test_ordinary_intent_is_approved() -> None:
    assert judge(make_intent()) is OK
    assert judge(make_intent(limit_price=0)) is OK
    assert judge(make_intent(side=Side.SELL)) is OK


def test_expired_frame() -> None:
    assert judge(make_intent(), now_ns=EXPIRES_NS - 1) is OK
    assert judge(make_intent(), now_ns=EXPIRES_NS) is DenyCode.FRAME_EXPIRED


@pytest.mark.parametrize("symbol", [2, 3])
def test_instrument_that_is_not_listed_or_not_known(symbol: int) -> None:
    assert judge(make_intent(symbol=symbol)) is DenyCode.INSTRUMENT_RESTRICTED


def test_nothing_trades_without_a_list() -> None:
    assert judge(make_intent(), instruments=()) is DenyCode.INSTRUMENT_RESTRICTED


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"side": 0}, DenyCode.INVALID_SIDE),
        ({"side": 3}, DenyCode.INVALID_SIDE),
        ({"time_in_force": 1}, DenyCode.FRAME_MALFORMED),
        ({"quantity": 0}, DenyCode.INVALID_QUANTITY),
        ({"quantity": -5}, DenyCode.INVALID_QUANTITY),
        ({"limit_price": -1}, DenyCode.INVALID_PRICE),
        ({"reference_price": 0}, DenyCode.INVALID_PRICE),
        ({"reference_price": 0, "limit_price": 0}, DenyCode.INVALID_PRICE),
    ],
)
def test_terms(change: dict[str, int], code: DenyCode) -> None:
    assert judge(make_intent(**change)) is code


@around
def test_order_quantity(off: int) -> None:
    code = judge(make_intent(quantity=1_000 + off), max_order_notional=10**9, max_position_notional=10**9)
    assert code is expected(off, DenyCode.ORDER_QUANTITY_LIMIT)
    code = judge(make_intent(quantity=60 + off), max_order_qty_lots=3, lot_shares=20)
    assert code is expected(off, DenyCode.ORDER_QUANTITY_LIMIT)


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (None, DenyCode.REFERENCE_STALE),
        (Reference(0, 0), DenyCode.REFERENCE_STALE),
        (Reference(PRICE, 999), OK),
        (Reference(PRICE, 1_000), OK),
        (Reference(PRICE, 1_001), DenyCode.REFERENCE_STALE),
        (Reference(PRICE, -1), DenyCode.REFERENCE_STALE),
        (Reference(PRICE, float("nan")), DenyCode.REFERENCE_STALE),
    ],
)
def test_reference_age(reference: Reference | None, code: DenyCode) -> None:
    references = {0: reference} if reference is not None else {}
    assert judge(make_intent(), make_view(references=references)) is code


@around
@pytest.mark.parametrize("side", Side)
@pytest.mark.parametrize("sign", [-1, 1])
def test_hard_collar_both_ways(off: int, side: Side, sign: int) -> None:
    price = PRICE + sign * (PRICE * 5 // 100 + off)
    assert judge(make_intent(side=side, limit_price=price)) is expected(off, DenyCode.PRICE_COLLAR)


@around
def test_collar_holds_for_the_reference_that_the_trader_states(off: int) -> None:
    stated = PRICE * 95 // 100 - off
    assert judge(make_intent(reference_price=stated)) is expected(off, DenyCode.PRICE_COLLAR)


def test_market_order_is_judged_at_the_price_that_the_gate_will_give_it() -> None:
    assert judge(make_intent(limit_price=0, reference_price=PRICE * 102 // 100)) is OK
    assert judge(make_intent(limit_price=0, reference_price=PRICE * 103 // 100)) is DenyCode.PRICE_COLLAR


@around
def test_soft_collar_is_the_routers(off: int) -> None:
    intent = make_intent(limit_price=PRICE * 102 // 100 + off)
    limits = make_limits()
    assert judge(intent) is OK
    routed = criticality(
        intent,
        critical_notional=10**12,
        symbol_used=0,
        symbol_limit=10**12,
        stress=False,
        collar_bps=limits.price_collar_soft_bps,
        reference_price=PRICE,
    )
    assert routed is (off > 0)


@around
def test_order_notional(off: int) -> None:
    assert judge(make_intent(quantity=250 + off)) is expected(off, DenyCode.ORDER_NOTIONAL_LIMIT)


def test_order_notional_does_not_trust_the_intents_prices() -> None:
    low = make_intent(quantity=251, limit_price=PRICE * 96 // 100, reference_price=PRICE * 96 // 100)
    assert judge(low) is DenyCode.ORDER_NOTIONAL_LIMIT
    high = make_intent(quantity=249, limit_price=PRICE * 102 // 100)
    assert judge(high) is DenyCode.ORDER_NOTIONAL_LIMIT


@around
@pytest.mark.parametrize("side", Side)
def test_position_notional_counts_position_and_everything_working(off: int, side: Side) -> None:
    view = make_view(positions={0: side.sign * 500}, working={(0, side): 490})
    assert judge(make_intent(side=side, quantity=10 + off), view) is expected(off, DenyCode.POSITION_NOTIONAL_LIMIT)
    assert judge(make_intent(side=side, quantity=10 + off, symbol=1), view) is OK


def test_working_orders_of_the_other_side_do_not_net() -> None:
    view = make_view(positions={0: 500}, working={(0, Side.BUY): 500, (0, Side.SELL): 900})
    assert judge(make_intent(quantity=1), view) is DenyCode.POSITION_NOTIONAL_LIMIT


def test_position_that_grew_too_large_can_be_reduced_but_not_turned() -> None:
    view = make_view(positions={0: 2_000}, gross=2_000 * PRICE, references={0: Reference(PRICE, 0)})
    assert judge(make_intent(quantity=1), view, max_gross_notional=10**9) is DenyCode.POSITION_NOTIONAL_LIMIT
    assert judge(make_intent(side=Side.SELL, quantity=250), view) is OK
    view.gross = 2_600 * PRICE
    assert judge(make_intent(side=Side.SELL, quantity=250), view) is OK, "nor does a gross over its limit stop it"
    view.working[(0, Side.SELL)] = 2_900
    assert judge(make_intent(side=Side.SELL, quantity=100), view, max_gross_notional=10**9) is OK
    assert judge(make_intent(side=Side.SELL, quantity=101), view) is DenyCode.POSITION_NOTIONAL_LIMIT


@around
def test_gross_notional_of_the_cluster(off: int) -> None:
    view = make_view(gross=2_400 * PRICE, positions={1: 2_400})
    assert judge(make_intent(quantity=100 + off), view) is expected(off, DenyCode.GROSS_NOTIONAL_LIMIT)


@around
def test_gross_notional_counts_only_what_makes_the_worse_side_worse(off: int) -> None:
    view = make_view(gross=2_500 * PRICE, positions={0: 50})
    assert judge(make_intent(side=Side.SELL, quantity=100 + off), view) is expected(off, DenyCode.GROSS_NOTIONAL_LIMIT)


@pytest.mark.parametrize(
    ("held", "code"),
    [
        ({0: 48}, OK),
        ({0: 49}, OK),
        ({0: 50}, DenyCode.OPEN_ORDERS_LIMIT),
        ({1: 50}, OK),
        ({5: 198}, OK),
        ({5: 199}, OK),
        ({5: 200}, DenyCode.OPEN_ORDERS_LIMIT),
    ],
)
def test_open_orders(held: dict[int, int], code: DenyCode) -> None:
    assert judge(make_intent(), make_view(open=held)) is code


@pytest.mark.parametrize(
    ("key", "rate"), [("submit_rate_venue", 3), ("submit_rate_strategy", 3), ("submit_rate_instrument", 3)]
)
@pytest.mark.parametrize(("taken", "code"), [(1, OK), (2, OK), (3, DenyCode.SUBMIT_RATE)])
def test_submit_rate(key: str, rate: int, taken: int, code: DenyCode) -> None:
    limits = make_limits(**{key: rate})
    view = make_view(rates=SubmitRates(limits))
    intent = make_intent()
    frame = make_frame(intent)
    for _ in range(taken):
        view.rates.take(frame.trader, intent.symbol, frame.market_index)
    assert check_intent(view, limits, intent, frame, NOW_NS) is code
    next_bar = msgspec.structs.replace(frame, market_index=frame.market_index + 1)
    assert check_intent(view, limits, intent, next_bar, NOW_NS) is OK


def test_submit_rates_are_kept_apart() -> None:
    rates = SubmitRates(make_limits(submit_rate_venue=9, submit_rate_strategy=5, submit_rate_instrument=3))
    rates.take(7, 0, 1)
    assert rates.tokens(7, 0, 1) == SubmitTokens(8, 4, 2)
    assert rates.tokens(7, 1, 1) == SubmitTokens(8, 4, 3)
    assert rates.tokens(8, 0, 1) == SubmitTokens(8, 5, 2)


# --- the bucket


def test_bucket_fills_with_market_time_up_to_one_second() -> None:
    bucket, second = TokenBucket(4), 1_000_000_000
    for _ in range(4):
        bucket.take(second)
    assert [bucket.tokens(second + quarter * second // 4) for quarter in range(6)] == [0, 1, 2, 3, 4, 4]
    assert bucket.tokens(0) == 0, "time that goes back fills nothing"


def test_slow_bucket_still_holds_one_and_zero_holds_none() -> None:
    slow, second = TokenBucket(0.25), 1_000_000_000
    slow.take(0)
    assert [slow.tokens(seconds * second) for seconds in (3, 4, 100)] == [0, 1, 1]
    assert TokenBucket(0).tokens(10**18) == 0


@given(st.lists(st.integers(0, 500_000_000), max_size=60), st.integers(1, 12))
def test_no_window_takes_more_than_burst_and_rate(gaps: list[int], rate: int) -> None:
    bucket, now, taken = TokenBucket(rate), 0, []
    for gap in gaps:
        now += gap
        if bucket.tokens(now) >= 1:
            bucket.take(now)
            taken.append(now)
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            assert last - first + 1 <= rate + rate * (taken[last] - taken[first]) / 1e9 + 1e-6


# --- cumulative inside a frame


def test_position_adds_up_inside_a_frame() -> None:
    view = make_view(positions={0: 900})
    assert judge_frame(
        make_intent(1, quantity=60), make_intent(2, quantity=60), make_intent(3, quantity=40), view=view
    ) == {1: DenyCode.POSITION_NOTIONAL_LIMIT}


def test_gross_adds_up_over_symbols() -> None:
    view = make_view(gross=2_300 * PRICE)
    intents = (
        make_intent(1, quantity=150),
        make_intent(2, symbol=1, quantity=51),
        make_intent(3, symbol=1, quantity=50),
    )
    assert judge_frame(*intents, view=view) == {1: DenyCode.GROSS_NOTIONAL_LIMIT}


def test_open_orders_add_up() -> None:
    intents = tuple(make_intent(number, symbol=number % 2) for number in range(4))
    assert judge_frame(*intents, max_open_orders_instrument=1) == {
        2: DenyCode.OPEN_ORDERS_LIMIT,
        3: DenyCode.OPEN_ORDERS_LIMIT,
    }
    assert judge_frame(*intents, max_open_orders_total=3) == {3: DenyCode.OPEN_ORDERS_LIMIT}


@pytest.mark.parametrize(
    ("limits", "denied"),
    [
        ({"submit_rate_instrument": 1}, {2, 3}),
        ({"submit_rate_strategy": 3}, {3}),
        ({"submit_rate_venue": 2}, {2, 3}),
    ],
)
def test_submissions_add_up(limits: dict[str, object], denied: set[int]) -> None:
    view = make_view(rates=SubmitRates(make_limits(**limits)))
    intents = tuple(make_intent(number, symbol=number % 2) for number in range(4))
    assert judge_frame(*intents, view=view, **limits) == dict.fromkeys(denied, DenyCode.SUBMIT_RATE)


def test_checks_take_no_tokens_and_change_no_view() -> None:
    view = make_view()
    before = view.rates.tokens(7, 0, 40)
    for _ in range(30):
        assert judge_frame(make_intent(), view=view) == {}
    assert view.rates.tokens(7, 0, 40) == before


def test_sequence_twice_in_a_frame() -> None:
    assert judge_frame(make_intent(1), make_intent(1, quantity=3), make_intent(2)) == {1: DenyCode.INTENT_REPEATED}


def test_denied_intent_leaves_no_trace() -> None:
    frame = make_frame(make_intent(1, quantity=251), make_intent(2, quantity=250))
    denials = check_frame(make_view(), make_limits(max_position_notional=25_000), frame, NOW_NS)
    assert denials == (Denial(0, DenyCode.ORDER_NOTIONAL_LIMIT),)


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from(Side), st.integers(1, 400)), max_size=14),
    st.integers(-900, 900),
)
def test_approved_part_of_a_frame_respects_every_limit(wishes: list[tuple[int, Side, int]], held: int) -> None:
    view = make_view(positions={0: held}, gross=abs(held) * PRICE)
    intents = tuple(
        make_intent(n, symbol=symbol, side=side, quantity=quantity) for n, (symbol, side, quantity) in enumerate(wishes)
    )
    frame = make_frame(*intents) if intents else msgspec.structs.replace(make_frame(), intents=Intents.of())
    denied = {denial.intent for denial in check_frame(view, make_limits(), frame, NOW_NS)}
    ahead = FrameAhead(view)
    for position, intent in enumerate(intents):
        if position not in denied:
            ahead.approve(intent, frame)
    gross = 0
    for symbol in (0, 1):
        position_quantity = ahead.position_quantity(symbol)
        long = position_quantity + ahead.working_quantity(symbol, Side.BUY)
        short = ahead.working_quantity(symbol, Side.SELL) - position_quantity
        assert max(long, short) * PRICE <= 100_000 * 10_000
        gross += max(long, short) * PRICE
    assert ahead.gross_notional() == gross <= 250_000 * 10_000


# --- limits and the table


@pytest.mark.parametrize("value", [-1, -0.5, float("nan"), float("inf")])
@pytest.mark.parametrize("key", [name for name in RiskLimits.__struct_fields__ if name != "instruments"])
def test_senseless_limit_is_refused_in_one_line_that_names_the_key(key: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"^risk\.{key} = [^\n]*$"):
        make_limits(**{key: value})


@pytest.mark.parametrize("key", ["lot_shares", "bar_seconds"])
def test_zero_is_refused_where_it_means_nothing(key: str) -> None:
    with pytest.raises(ValueError, match=rf"risk\.{key} = 0: give a finite number above 0"):
        make_limits(**{key: 0})
    make_limits(max_order_notional=0)


def test_soft_collar_is_not_wider_than_the_hard_one() -> None:
    make_limits(price_collar_soft_pct=5)
    with pytest.raises(ValueError, match=r"risk\.price_collar_soft_pct = 5\.1: give at most"):
        make_limits(price_collar_soft_pct=5.1)


def test_limits_from_a_file_refuse_misspelt_keys_and_bad_values() -> None:
    assert (
        msgspec.convert({"instruments": ["AAA"], "max_order_notional": 7}, RiskLimits).max_order_notional_units
        == 70_000
    )
    with pytest.raises(msgspec.ValidationError, match="max_order_notionl"):
        msgspec.convert({"max_order_notionl": 7}, RiskLimits)
    with pytest.raises(msgspec.ValidationError, match=r"risk\.max_ref_age_ms"):
        msgspec.convert({"max_ref_age_ms": -1}, RiskLimits)


def test_readme_table_is_the_code() -> None:
    rows = re.findall(r"^\| (\d+) \| `(\w+)` \|(.*)\|(.*)\|$", README.read_text(), re.MULTILINE)
    written = [
        (int(row), name, re.findall(r"`(\w+)` = (\w+)", keys), re.findall(r"`(\w+)`", codes))
        for row, name, keys, codes in rows
    ]
    defaults = RiskLimits()
    coded = [
        (
            rule.row,
            rule.check.__name__,
            [(key, f"{getattr(defaults, key):g}" if key != "instruments" else "none") for key in rule.keys],
            [code.name for code in rule.codes],
        )
        for rule in RULES
    ]
    assert written == coded
    assert defaults.instruments == ()
    assert f"`price_collar_soft_pct` = {defaults.price_collar_soft_pct:g}" in README.read_text()


def test_every_key_is_documented() -> None:
    text = README.read_text()
    for key in RiskLimits.__struct_fields__:
        assert f"`{key}` = " in text, key
