"""The closed vocabulary of the profiler: eight stages of a cycle, and the operations inside them.

One enumeration serves every process, so that a record can carry a number and still mean the same thing everywhere.
Append new operations at the end of their stage's block; values are stored in ring files.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class Stage(IntEnum):
    """The stages of one cycle, in the order in which a decision passes through them."""

    MARKET_DATA = 1
    PATTERN_MATCHING = 2
    RISK_CALCULATION = 3
    STRATEGY_SIGNAL = 4
    COORDINATION = 5
    CONSENSUS = 6
    ORDER_EXECUTION = 7
    ORDER_CONFIRMATION = 8

    @property
    def label(self) -> str:
        """The name used in reports and on the command line, for example ``pattern_matching``."""
        return self.name.lower()


class Operation(IntEnum):
    """A named step inside a stage. ``value // 100`` is the stage it belongs to."""

    # market_data
    FEED_NEXT = 101
    FEED_VALIDATE = 102
    MARK_POSITIONS = 103
    # pattern_matching
    DTW_SEARCH = 202
    ANALOGUE_FORECAST = 203
    STRESS_MATCH = 204
    # risk_calculation
    VOLATILITY = 301
    VALUE_AT_RISK = 302
    EXPOSURE = 303
    SIZING = 304
    # strategy_signal
    SIGNAL_DECIDE = 401
    CRITICALITY_ROUTE = 402
    FRAME_ENCODE = 403
    FRAME_SIGN = 404
    # coordination
    FRAME_BROADCAST = 501
    SIGNATURE_VERIFY = 502
    FRAME_DECODE = 503
    RISK_CHECK = 504
    CLAIM_REPEAT = 505
    FRAME_VERIFIED = 507
    # consensus
    LOG_PERSIST = 602
    RAFT_STEP = 603
    PBFT_STEP = 604
    VOTE_SIGN = 605
    VOTE_VERIFY = 606
    CERTIFIED = 607
    DECISION_APPLY = 608
    # order_execution
    GATE_CHECK = 701
    CURVE_MATCH = 702
    JOURNAL_WRITE = 703
    ORDER_RELEASE = 704
    VENUE_MATCH = 705
    RELEASED = 706
    # order_confirmation
    REPORT_JOURNAL = 801
    REPORT_APPLY = 802
    POSITION_UPDATE = 803
    CONFIRMED = 804
    # the wire: charged to the stage whose messages it carries
    BATCH_ENCODE = 551
    BATCH_DECODE = 552
    BATCH_FLUSH = 553

    @property
    def stage(self) -> Stage:
        return Stage(self.value // 100)

    @property
    def label(self) -> str:
        return self.name.lower()


MARKS: Final = (Operation.FRAME_VERIFIED, Operation.CERTIFIED, Operation.RELEASED, Operation.CONFIRMED)
"""Operations that mark where one stage of a cycle ends and the next begins, in processes other than the trader.

A mark's interval runs from the start of the work it closes to the moment that it was reached; its end is what counts.
"""
