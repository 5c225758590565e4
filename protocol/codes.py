"""Numbers that travel: paths, command kinds, FIX codes and the stable deny codes.

Values are part of the wire and of every journal: append, never renumber.
"""

from __future__ import annotations

from enum import IntEnum


class Path(IntEnum):
    """How a frame is ordered: the Raft lane for routine decisions, the PBFT spine for critical ones."""

    LANE = 1
    SPINE = 2


class CommandKind(IntEnum):
    """What a signed command asks for."""

    FRAME = 1
    SLICE_GRANT = 2


class EntryKind(IntEnum):
    """What a lane entry carries."""

    NOOP = 0
    FRAME = 1
    OUTCOME = 2
    MEMBERSHIP = 3


class Side(IntEnum):
    """FIX tag 54."""

    BUY = 1
    SELL = 2

    @property
    def sign(self) -> int:
        return 1 if self is Side.BUY else -1


class TimeInForce(IntEnum):
    """FIX tag 59, by its number."""

    DAY = 0
    IOC = 3


class ExecType(IntEnum):
    """FIX 4.4 tag 150, by the code point of its character."""

    NEW = ord("0")
    CANCELED = ord("4")
    REJECTED = ord("8")
    EXPIRED = ord("C")
    TRADE = ord("F")
    ORDER_STATUS = ord("I")


class OrdStatus(IntEnum):
    """FIX 4.4 tag 39, by the code point of its character."""

    NEW = ord("0")
    PARTIALLY_FILLED = ord("1")
    FILLED = ord("2")
    CANCELED = ord("4")
    REJECTED = ord("8")
    PENDING_NEW = ord("A")
    EXPIRED = ord("C")


class RejectReason(IntEnum):
    """FIX tag 103 (``OrdRejReason``) as far as the paper venue uses it."""

    NONE = 0
    UNKNOWN_SYMBOL = 1
    EXCHANGE_CLOSED = 2
    EXCEEDS_LIMIT = 3
    UNKNOWN_ORDER = 5
    DUPLICATE_ORDER = 6
    INVALID_QUANTITY = 13
    INVALID_PRICE = 16
    FAULT_INJECTED = 99


class DenyCode(IntEnum):
    """Why a decision was denied. ``CATEGORY_CONDITION`` names are stable: reports, logs and scripts rely on them."""

    APPROVED = 0
    # the frame
    SIGNATURE_INVALID = 1
    FRAME_MALFORMED = 2
    FRAME_EXPIRED = 3
    FRAME_REPLAYED = 4
    TRADER_UNKNOWN = 5
    # risk rows 1 to 10
    INSTRUMENT_RESTRICTED = 20
    INVALID_PRICE = 21
    INVALID_QUANTITY = 22
    INVALID_SIDE = 23
    ORDER_QUANTITY_LIMIT = 24
    ORDER_NOTIONAL_LIMIT = 25
    POSITION_NOTIONAL_LIMIT = 26
    GROSS_NOTIONAL_LIMIT = 27
    OPEN_ORDERS_LIMIT = 28
    PRICE_COLLAR = 29
    REFERENCE_STALE = 30
    SUBMIT_RATE = 31
    # the DTW claim
    CLAIM_MISSING = 40
    CLAIM_NOT_REPRODUCED = 41
    CLAIM_DATA_DIFFERS = 42
    # budget and routing
    SLICE_UNKNOWN = 50
    SLICE_EXHAUSTED = 51
    ROUTE_CRITICAL = 52
    INTENT_REPEATED = 53
    # no agreement in time
    QUORUM_MISSING = 60
    LANE_UNAVAILABLE = 61
    SPINE_UNAVAILABLE = 62
    # the gate
    GATE_EXPIRED = 70
