"""The lifecycle table, pair by pair."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest

from orders.order import IllegalTransition, Order, PlannedOrder
from orders.states import TERMINAL, TRANSITIONS, UNRESOLVED, WORKING, OrderState, OrderTrigger, render_mermaid
from protocol.codes import Side, TimeInForce
from protocol.messages import NewOrder

# One row per state, one column per trigger, written by hand from the reference (sections 2.1 and 2.2).
# Targets by two letters; a dot is a protocol error.
MATRIX = """
                 DE CO SE LA LO RQ | RE AC PF FI CA RJ EX RC
PROPOSED         de co .  .  .  .  | .  .  .  .  .  .  .  .
DENIED           .  .  .  .  .  .  | .  .  .  .  .  .  .  .
COMMITTED        .  .  se la .  .  | .  .  .  .  .  .  .  .
SENDING          .  .  .  .  un .  | pn ac pf fi ca rj ex .
UNKNOWN          .  .  se la .  .  | pn ac pf fi ca rj ex .
PENDING_NEW      .  .  .  .  un .  | pn ac pf fi ca rj ex .
ACCEPTED         .  .  .  .  un pc | ac ac pf fi ca rj ex .
PARTIALLY_FILLED .  .  .  .  un pc | pf pf pf fi ca .  ex .
PENDING_CANCEL   .  .  .  .  un .  | pc pc pc fi ca .  ex ac
FILLED           .  .  .  .  .  .  | fi fi .  fi .  .  .  .
CANCELED         .  .  .  .  .  .  | ca ca ca fi ca .  .  .
REJECTED         .  .  .  .  .  .  | .  .  pf fi .  rj .  .
EXPIRED          .  .  .  .  .  .  | ex ex ex fi .  .  ex .
LAPSED           .  .  .  .  .  .  | pn ac pf fi .  rj .  .
"""

S, T = OrderState, OrderTrigger
TRIGGERS = {
    "DE": T.DENY, "CO": T.COMMIT, "SE": T.SEND, "LA": T.LAPSE, "LO": T.LOSE_TRACK, "RQ": T.REQUEST_CANCEL,
    "RE": T.RECEIVE, "AC": T.ACKNOWLEDGE, "PF": T.PARTIAL_FILL, "FI": T.FILL, "CA": T.CANCEL, "RJ": T.REJECT,
    "EX": T.EXPIRE, "RC": T.REFUSE_CANCEL,
}  # fmt: skip
TARGETS = {
    "de": S.DENIED, "co": S.COMMITTED, "se": S.SENDING, "un": S.UNKNOWN, "pn": S.PENDING_NEW, "ac": S.ACCEPTED,
    "pf": S.PARTIALLY_FILLED, "pc": S.PENDING_CANCEL, "fi": S.FILLED, "ca": S.CANCELED, "rj": S.REJECTED,
    "ex": S.EXPIRED, "la": S.LAPSED,
}  # fmt: skip
OURS = [trigger for trigger in T if trigger < T.RECEIVE]


def expected() -> dict[tuple[OrderState, OrderTrigger], OrderState | None]:
    header, *rows = (line.replace("|", " ").split() for line in MATRIX.strip().splitlines())
    return {
        (S[row[0]], TRIGGERS[column]): TARGETS.get(cell)
        for row in rows
        for column, cell in zip(header, row[1:], strict=True)
    }


def order_in(state: OrderState) -> Order:
    terms = NewOrder("id", 0, Side.BUY, TimeInForce.DAY, 10, 100, 0)
    return Order(PlannedOrder(terms, 0, 0, 0, 0, b""), state)


def test_the_matrix_names_every_pair() -> None:
    assert set(expected()) == set(product(S, T))


@pytest.mark.parametrize("state", S)
def test_every_pair_is_taken_or_counted(state: OrderState) -> None:
    for trigger in T:
        order, target = order_in(state), expected()[(state, trigger)]
        result = order.apply(trigger)
        if target is None:
            assert result == IllegalTransition("id", state, trigger)
            assert (order.state, order.protocol_errors) == (state, 1)
        else:
            assert result is None
            assert (order.state, order.protocol_errors) == (target, 0)


def test_nothing_that_we_do_makes_an_order_rejected_or_filled() -> None:
    reached = {TRANSITIONS[key] for key in TRANSITIONS if key[1] in OURS}
    assert reached.isdisjoint({S.REJECTED, S.FILLED, S.EXPIRED, S.CANCELED})


def test_what_has_ended_moves_only_by_the_venues_word() -> None:
    assert not [key for key in TRANSITIONS if key[0] in TERMINAL and key[1] in OURS]


def test_every_state_can_be_reached_and_can_end() -> None:
    reached = {S.PROPOSED}
    while grown := {TRANSITIONS[key] for key in TRANSITIONS if key[0] in reached} - reached:
        reached |= grown
    assert reached == set(S)
    for state in set(S) - TERMINAL:
        assert any(TRANSITIONS.get((state, trigger)) in TERMINAL for trigger in T), state


def test_the_three_sets_do_not_overlap() -> None:
    assert not TERMINAL & WORKING
    assert not TERMINAL & UNRESOLVED
    assert not WORKING & UNRESOLVED
    assert set(S) - TERMINAL - WORKING - UNRESOLVED == {S.PROPOSED, S.COMMITTED}


def test_the_documented_diagram_is_the_table() -> None:
    text = (Path(__file__).parents[2] / "orders" / "states.md").read_text()
    assert f"```mermaid\n{render_mermaid()}\n```" in text
    for state in S:
        assert f"| {state.name} |" in text
