"""One wish to trade in plain Python numbers; frames hold many of them as rows, see ``rows``."""

from __future__ import annotations

from protocol.structs import I64, U8, U32, U64, Message


class Intent(Message, frozen=True):
    """A wish to trade. Pointer-free. ``limit_price`` 0 means a market order, which the gate turns into a marketable
    limit at the collar."""

    sequence: U64
    """Unique per trader for ever: the intent's id is (trader, sequence)."""
    symbol: U32
    side: U8
    time_in_force: U8
    quantity: I64
    limit_price: I64
    reference_price: I64
