"""The life of an order as one table: states, triggers and which may follow which.

The names follow FIX 4.4 (``OrdStatus``, tag 39). PROPOSED and DENIED come before an order exists for a venue. Four
states are our own: COMMITTED and SENDING bracket the moment when bytes may leave, UNKNOWN names what other systems hide
in a time-out, and LAPSED is the end of an order that provably never reached the venue.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class OrderState(IntEnum):
    """Values travel in ``OrderEvent.state`` and stand in journals: append, never renumber."""

    PROPOSED = 1
    DENIED = 2
    COMMITTED = 3
    SENDING = 4
    UNKNOWN = 5
    PENDING_NEW = 6
    ACCEPTED = 7
    PARTIALLY_FILLED = 8
    PENDING_CANCEL = 9
    FILLED = 10
    CANCELED = 11
    REJECTED = 12
    EXPIRED = 13
    LAPSED = 14

    @property
    def label(self) -> str:
        return self.name.lower()


class OrderTrigger(IntEnum):
    """What happens to an order. The first block is ours to pull, the second only the venue's word pulls."""

    DENY = 1
    COMMIT = 2
    SEND = 3
    LAPSE = 4
    LOSE_TRACK = 5
    """The outcome of a send cannot be told: no answer in time, connection lost, crash."""
    REQUEST_CANCEL = 6

    RECEIVE = 10
    ACKNOWLEDGE = 11
    PARTIAL_FILL = 12
    FILL = 13
    CANCEL = 14
    REJECT = 15
    EXPIRE = 16
    REFUSE_CANCEL = 17

    @property
    def label(self) -> str:
        return self.name.lower().replace("_", " ")


_S = OrderState
_T = OrderTrigger

TRANSITIONS: Final[dict[tuple[OrderState, OrderTrigger], OrderState]] = {
    (_S.PROPOSED, _T.DENY): _S.DENIED,
    (_S.PROPOSED, _T.COMMIT): _S.COMMITTED,
    (_S.COMMITTED, _T.SEND): _S.SENDING,
    (_S.COMMITTED, _T.LAPSE): _S.LAPSED,
    (_S.SENDING, _T.RECEIVE): _S.PENDING_NEW,
    (_S.SENDING, _T.ACKNOWLEDGE): _S.ACCEPTED,
    (_S.SENDING, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,  # a fill may overtake its acknowledgement
    (_S.SENDING, _T.FILL): _S.FILLED,
    (_S.SENDING, _T.CANCEL): _S.CANCELED,  # an immediate-or-cancel order that found nothing
    (_S.SENDING, _T.REJECT): _S.REJECTED,
    (_S.SENDING, _T.EXPIRE): _S.EXPIRED,
    (_S.SENDING, _T.LOSE_TRACK): _S.UNKNOWN,
    # UNKNOWN ends by evidence alone. No trigger of ours leads to REJECTED: a rejection that a timer guessed is how
    # orphan positions are made.
    (_S.UNKNOWN, _T.RECEIVE): _S.PENDING_NEW,
    (_S.UNKNOWN, _T.ACKNOWLEDGE): _S.ACCEPTED,
    (_S.UNKNOWN, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,
    (_S.UNKNOWN, _T.FILL): _S.FILLED,
    (_S.UNKNOWN, _T.CANCEL): _S.CANCELED,
    (_S.UNKNOWN, _T.REJECT): _S.REJECTED,
    (_S.UNKNOWN, _T.EXPIRE): _S.EXPIRED,
    (_S.UNKNOWN, _T.SEND): _S.SENDING,  # the same id again, after the venue said that it does not know it
    (_S.UNKNOWN, _T.LAPSE): _S.LAPSED,  # on the same evidence, when the deadline has passed
    (_S.PENDING_NEW, _T.RECEIVE): _S.PENDING_NEW,
    (_S.PENDING_NEW, _T.ACKNOWLEDGE): _S.ACCEPTED,
    (_S.PENDING_NEW, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,
    (_S.PENDING_NEW, _T.FILL): _S.FILLED,
    (_S.PENDING_NEW, _T.CANCEL): _S.CANCELED,
    (_S.PENDING_NEW, _T.REJECT): _S.REJECTED,
    (_S.PENDING_NEW, _T.EXPIRE): _S.EXPIRED,
    (_S.PENDING_NEW, _T.LOSE_TRACK): _S.UNKNOWN,
    (_S.ACCEPTED, _T.RECEIVE): _S.ACCEPTED,
    (_S.ACCEPTED, _T.ACKNOWLEDGE): _S.ACCEPTED,
    (_S.ACCEPTED, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,
    (_S.ACCEPTED, _T.FILL): _S.FILLED,
    (_S.ACCEPTED, _T.CANCEL): _S.CANCELED,
    (_S.ACCEPTED, _T.REJECT): _S.REJECTED,  # venues may still refuse after they acknowledged
    (_S.ACCEPTED, _T.EXPIRE): _S.EXPIRED,
    (_S.ACCEPTED, _T.REQUEST_CANCEL): _S.PENDING_CANCEL,
    (_S.ACCEPTED, _T.LOSE_TRACK): _S.UNKNOWN,  # the venue no longer knows an order that it acknowledged
    (_S.PARTIALLY_FILLED, _T.RECEIVE): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _T.ACKNOWLEDGE): _S.PARTIALLY_FILLED,  # the acknowledgement was overtaken by the fill
    (_S.PARTIALLY_FILLED, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,
    (_S.PARTIALLY_FILLED, _T.FILL): _S.FILLED,
    (_S.PARTIALLY_FILLED, _T.CANCEL): _S.CANCELED,
    (_S.PARTIALLY_FILLED, _T.EXPIRE): _S.EXPIRED,
    (_S.PARTIALLY_FILLED, _T.REQUEST_CANCEL): _S.PENDING_CANCEL,
    (_S.PARTIALLY_FILLED, _T.LOSE_TRACK): _S.UNKNOWN,
    (_S.PENDING_CANCEL, _T.RECEIVE): _S.PENDING_CANCEL,
    (_S.PENDING_CANCEL, _T.ACKNOWLEDGE): _S.PENDING_CANCEL,
    (_S.PENDING_CANCEL, _T.PARTIAL_FILL): _S.PENDING_CANCEL,  # filled while the cancel was under way: still pending
    (_S.PENDING_CANCEL, _T.FILL): _S.FILLED,
    (_S.PENDING_CANCEL, _T.CANCEL): _S.CANCELED,
    (_S.PENDING_CANCEL, _T.EXPIRE): _S.EXPIRED,
    (_S.PENDING_CANCEL, _T.REFUSE_CANCEL): _S.ACCEPTED,  # and PARTIAL_FILL on top of it where there are fills
    (_S.PENDING_CANCEL, _T.LOSE_TRACK): _S.UNKNOWN,
    (_S.FILLED, _T.RECEIVE): _S.FILLED,
    (_S.FILLED, _T.ACKNOWLEDGE): _S.FILLED,
    (_S.FILLED, _T.FILL): _S.FILLED,  # overfill: more than was asked for is real exposure and is kept
    # A late fill raced the cancel or the expiry. It is exposure and counts; what was left of the order stays dead, so
    # a part of it does not reopen the order.
    (_S.CANCELED, _T.RECEIVE): _S.CANCELED,
    (_S.CANCELED, _T.ACKNOWLEDGE): _S.CANCELED,
    (_S.CANCELED, _T.CANCEL): _S.CANCELED,
    (_S.CANCELED, _T.PARTIAL_FILL): _S.CANCELED,
    (_S.CANCELED, _T.FILL): _S.FILLED,
    (_S.EXPIRED, _T.RECEIVE): _S.EXPIRED,
    (_S.EXPIRED, _T.ACKNOWLEDGE): _S.EXPIRED,
    (_S.EXPIRED, _T.EXPIRE): _S.EXPIRED,
    (_S.EXPIRED, _T.PARTIAL_FILL): _S.EXPIRED,
    (_S.EXPIRED, _T.FILL): _S.FILLED,
    (_S.REJECTED, _T.REJECT): _S.REJECTED,
    (_S.REJECTED, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,  # the venue contradicts itself: the order is alive after all
    (_S.REJECTED, _T.FILL): _S.FILLED,
    # The venue had said that it never received the order, and it arrived afterwards. What the venue holds is true.
    (_S.LAPSED, _T.RECEIVE): _S.PENDING_NEW,
    (_S.LAPSED, _T.ACKNOWLEDGE): _S.ACCEPTED,
    (_S.LAPSED, _T.PARTIAL_FILL): _S.PARTIALLY_FILLED,
    (_S.LAPSED, _T.FILL): _S.FILLED,
    (_S.LAPSED, _T.REJECT): _S.REJECTED,
}
"""(state, trigger) -> state. A pair that is missing is a protocol error: counted, never raised."""

TERMINAL: Final = frozenset({_S.DENIED, _S.FILLED, _S.CANCELED, _S.REJECTED, _S.EXPIRED, _S.LAPSED})
"""Nothing more is expected. Only a late word of the venue can still change such an order, and it raises an alarm."""

WORKING: Final = frozenset({_S.PENDING_NEW, _S.ACCEPTED, _S.PARTIALLY_FILLED, _S.PENDING_CANCEL})
"""The venue holds the order."""

UNRESOLVED: Final = frozenset({_S.SENDING, _S.UNKNOWN})
"""Bytes may have left and the venue's answer is missing. Such an order keeps its full worst-case exposure."""


def render_mermaid() -> str:
    """The table as a Mermaid state diagram, one line per pair of states, triggers in their own order."""
    labels: dict[tuple[OrderState, OrderState], list[str]] = {}
    for (state, trigger), target in sorted(TRANSITIONS.items()):
        labels.setdefault((state, target), []).append(trigger.label)
    lines = ["stateDiagram-v2", f"    [*] --> {OrderState.PROPOSED.name}"]
    lines += [f"    {state.name} --> {target.name}: {', '.join(names)}" for (state, target), names in labels.items()]
    lines += [f"    {state.name} --> [*]" for state in sorted(TERMINAL)]
    return "\n".join(lines)
