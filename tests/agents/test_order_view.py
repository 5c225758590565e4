from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from agents import order_view
from agents.order_view import OrderView
from agents.portfolio_status import portfolio_status
from orders.states import OrderState
from protocol.codes import Side
from protocol.messages import PRICE_SCALE, Intent, OrderEvent, OrderEventsHead
from tests.oracles.agent_examples import order_event
from tests.oracles.signed_frames import make_intent

TRADER, EXECUTOR, CYCLE = 3, 2, 7
PRICE = 100 * PRICE_SCALE
S = OrderState


def view_with(*intents: Intent) -> OrderView:
    view = OrderView(fee_bps=1.0)
    for intent in intents:
        view.commit(TRADER, intent, CYCLE, PRICE)
    return view


def buy(sequence: int = 1, quantity: int = 100, symbol: int = 0) -> Intent:
    return make_intent(sequence, quantity=quantity, symbol=symbol)


def test_an_order_from_certificate_to_fill() -> None:
    view = view_with(buy())
    assert view.working_quantity(0, Side.BUY) == 100
    assert view.working_quantity(0, Side.SELL) == 0
    assert view.unconfirmed(CYCLE) == 1
    assert view.unconfirmed(CYCLE + 1) == 0
    view.on_event(order_event(1, S.SENDING, exec_id=0))
    assert view.unconfirmed() == 1, "our own sending is no word of the venue"
    view.on_event(order_event(2, S.ACCEPTED))
    assert view.unconfirmed() == 0
    view.on_event(order_event(3, S.PARTIALLY_FILLED, filled=40))
    assert (view.position_quantity(0), view.working_quantity(0, Side.BUY)) == (40, 60)
    view.on_event(order_event(4, S.FILLED, filled=60))
    assert (view.position_quantity(0), view.working_quantity(0, Side.BUY)) == (100, 0)
    assert view.working_orders() == view.working_orders(0) == 0
    view.portfolio.check_invariants()


def test_a_sale_is_short() -> None:
    view = view_with(make_intent(1, quantity=100, side=Side.SELL))
    assert view.working_quantity(0, Side.SELL) == 100
    view.on_event(order_event(1, S.FILLED, filled=100, side=Side.SELL))
    assert view.position_quantity(0) == -100


def test_a_certificate_repeated_changes_nothing() -> None:
    view = view_with(buy())
    view.on_event(order_event(1, S.PARTIALLY_FILLED, filled=40))
    view.commit(TRADER, buy(), CYCLE, PRICE)
    assert view.working_quantity(0, Side.BUY) == 60
    view.on_event(order_event(2, S.CANCELED))
    view.commit(TRADER, buy(), CYCLE, PRICE)
    assert view.working_quantity(0, Side.BUY) == 0
    assert view.working_orders() == 0


def test_an_end_without_a_fill_releases_the_reservation() -> None:
    for state in (S.CANCELED, S.REJECTED, S.EXPIRED, S.LAPSED):
        view = view_with(buy())
        view.on_event(order_event(1, state, exec_id=0 if state is S.LAPSED else 1))
        assert view.working_quantity(0, Side.BUY) == 0
        assert view.unconfirmed() == 0
        assert view.portfolio.gross_exposure == 0


def test_an_unknown_order_still_counts_as_working() -> None:
    view = view_with(buy())
    view.on_event(order_event(1, S.UNKNOWN, exec_id=0))
    assert view.working_quantity(0, Side.BUY) == 100
    assert view.working_orders(0) == 1


def test_two_legs_end_apart_and_the_reservation_with_the_last() -> None:
    view = view_with(buy(quantity=101))
    view.on_event(order_event(1, S.FILLED, leg=0, filled=51, quantity=51))
    assert (view.position_quantity(0), view.working_quantity(0, Side.BUY), view.working_orders()) == (51, 50, 1)
    view.on_event(order_event(2, S.EXPIRED, leg=1, quantity=50))
    assert (view.position_quantity(0), view.working_quantity(0, Side.BUY), view.working_orders()) == (51, 0, 0)


def test_a_leg_that_ends_twice_counts_once() -> None:
    view = view_with(buy(quantity=100))
    view.on_event(order_event(1, S.CANCELED, leg=0, quantity=50))
    view.on_event(order_event(2, S.CANCELED, leg=0, quantity=50))
    assert view.working_orders() == 1


def test_a_fill_before_the_certificate_is_booked_and_the_rest_reserved_when_it_comes() -> None:
    view = view_with()
    view.on_event(order_event(1, S.FILLED, leg=0, filled=51, quantity=51))
    assert view.position_quantity(0) == 51
    view.commit(TRADER, buy(quantity=101), CYCLE, PRICE)
    assert view.working_quantity(0, Side.BUY) == 50, "the second leg may still trade"
    assert view.working_orders() == 1
    view.on_event(order_event(2, S.FILLED, leg=1, filled=50, quantity=50))
    assert (view.position_quantity(0), view.working_orders(), view.working_quantity(0, Side.BUY)) == (101, 0, 0)


def test_a_whole_order_before_its_certificate_reserves_nothing_afterwards() -> None:
    view = view_with()
    view.on_event(order_event(1, S.FILLED, filled=100))
    view.commit(TRADER, buy(), CYCLE, PRICE)
    assert (view.position_quantity(0), view.working_quantity(0, Side.BUY), view.working_orders()) == (100, 0, 0)


def test_a_gap_is_waited_for_and_a_repetition_ignored() -> None:
    view = view_with(buy())
    second, third = order_event(2, S.PARTIALLY_FILLED, filled=30), order_event(3, S.FILLED, filled=70)
    assert view.on_event(third) == []
    assert view.on_event(second) == []
    assert view.has_gap(EXECUTOR)
    assert view.position_quantity(0) == 0, "nothing is guessed over a gap"
    assert view.next_sequence(EXECUTOR) == 1
    first = order_event(1)
    assert view.on_event(first) == [first, second, third]
    assert not view.has_gap(EXECUTOR)
    assert view.position_quantity(0) == 100
    for event in (first, second, third):
        assert view.on_event(event) == []
    assert view.ignored["event_repeated"] == 3
    assert view.position_quantity(0) == 100


def test_the_event_that_closes_a_gap_is_taken_however_many_wait() -> None:
    view = view_with(buy())
    for sequence in range(2, order_view.EVENTS_HELD_MAX + 2):
        view.on_event(order_event(sequence))
    assert view.on_event(order_event(order_view.EVENTS_HELD_MAX + 2)) == []
    assert view.ignored["events_held_limit"] == 1
    assert len(view.on_event(order_event(1))) == order_view.EVENTS_HELD_MAX + 1
    assert not view.has_gap(EXECUTOR)


def test_catching_up_is_known_from_the_head() -> None:
    view = view_with(buy())
    assert not view.caught_up(EXECUTOR)
    view.on_head(OrderEventsHead(EXECUTOR, 3))
    assert not view.caught_up(EXECUTOR)
    view.on_event(order_event(1))
    view.on_event(order_event(2))
    assert view.caught_up(EXECUTOR)
    assert not view.caught_up(EXECUTOR + 1)


def test_executors_number_their_events_apart() -> None:
    view = view_with(buy(1), buy(2))
    view.on_event(order_event(1, S.FILLED, filled=100, intent=1, executor=2))
    view.on_event(order_event(1, S.FILLED, filled=100, intent=2, executor=4))
    assert view.position_quantity(0) == 200


def script(seed: int) -> tuple[list[Intent], list[OrderEvent]]:
    """Some intents, and what two executors tell about them: one or two legs each, filled in parts or not."""
    rng = random.Random(seed)
    intents, streams = [], {2: 0, 4: 0}
    events: list[OrderEvent] = []
    for number in range(1, rng.randint(2, 6)):
        side, symbol, executor = rng.choice(list(Side)), rng.randrange(2), rng.choice([2, 4])
        quantity = rng.randint(1, 60)
        intents.append(make_intent(number, quantity=quantity, side=side, symbol=symbol))
        first = quantity - quantity // 2 if rng.random() < 0.5 else quantity
        for leg, size in enumerate(part for part in (first, quantity - first) if part):
            done = 0
            while True:
                filled = rng.randint(0, size - done)
                done += filled
                end = rng.choice([S.CANCELED, S.EXPIRED, None])
                state = S.FILLED if done == size else (end or S.ACCEPTED)
                streams[executor] += 1
                price = PRICE + rng.randint(-500, 500)
                events.append(
                    order_event(
                        streams[executor], state, intent=number, leg=leg, filled=filled, quantity=size,
                        side=side, symbol=symbol, price=price, executor=executor,
                    )
                )  # fmt: skip
                if state is not S.ACCEPTED:
                    break
    return intents, events


def play(intents: list[Intent], events: list[OrderEvent], shuffle: random.Random | None) -> OrderView:
    steps: list[Intent | OrderEvent] = [*intents, *events]
    if shuffle is not None:
        steps += shuffle.sample(steps, len(steps) // 2)  # repetitions
        shuffle.shuffle(steps)
    view = OrderView(fee_bps=0.7)
    for symbol in (0, 1):
        view.portfolio.mark(symbol, PRICE)  # at cost, a value depends on the order of fills
    for step in steps:
        if isinstance(step, Intent):
            view.commit(TRADER, step, CYCLE, PRICE)
        else:
            view.on_event(step)
        view.portfolio.check_invariants()
    return view


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), order=st.randoms(use_true_random=False))
def test_any_interleaving_comes_to_the_same_positions(seed: int, order: random.Random) -> None:
    intents, events = script(seed)
    straight, mixed = play(intents, events, None), play(intents, events, order)
    names = ("AAA", "BBB")
    expected, found = portfolio_status(straight, names), portfolio_status(mixed, names)
    assert found["positions"] == expected["positions"]
    assert found["fees"] == expected["fees"]
    for view in (straight, mixed):
        assert view.working_orders() == 0
        assert view.portfolio.open_orders() == 0
        assert view.unconfirmed() == 0
    assert mixed.portfolio.profit == straight.portfolio.profit
    assert mixed.portfolio.gross_exposure == straight.portfolio.gross_exposure


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10_000), kept=st.floats(0, 1), order=st.randoms(use_true_random=False))
def test_when_all_certificates_are_known_reservations_do_not_depend_on_the_order(
    seed: int, kept: float, order: random.Random
) -> None:
    intents, events = script(seed)
    events = [event for event in events if event.sequence <= round(kept * 12)]
    straight, mixed = play(intents, events, None), play(intents, events, order)
    for symbol in (0, 1):
        for side in Side:
            assert mixed.working_quantity(symbol, side) == straight.working_quantity(symbol, side)
        assert mixed.position_quantity(symbol) == straight.position_quantity(symbol)
        assert mixed.working_orders(symbol) == straight.working_orders(symbol)
