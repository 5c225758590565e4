"""What is written and read: twenty orders of one cycle, their windows, the votes on them, the frame that holds all."""

from __future__ import annotations

import hashlib
from typing import Any, Final

import numpy as np
from msgspec import to_builtins

from protocol.codes import Path, Side, TimeInForce
from protocol.envelope import BatchHeader, Envelope, kind_of
from protocol.messages import PRICE_SCALE, Claim, Frame, FrameVote, Intents
from protocol.rows import Windows

ORDERS: Final = 20
WINDOW: Final = 64
NEIGHBOURS: Final = 8
VOTES: Final = 20
_WALL_NS: Final = 1_700_000_000_000_000_000


def frame() -> Frame:
    """Twenty symbols, an intent and a claim each, with the windows that were searched for."""
    rng = np.random.default_rng(20)
    closes = 100 * np.exp(np.cumsum(rng.normal(0, 0.01, (ORDERS, WINDOW)), axis=1))
    prices = np.round(closes[:, -1] * PRICE_SCALE).astype(np.int64)
    columns = {
        "sequence": np.arange(ORDERS) + 1_000 * 64,
        "symbol": np.arange(ORDERS),
        "side": rng.choice([Side.BUY, Side.SELL], ORDERS),
        "time_in_force": np.full(ORDERS, TimeInForce.DAY),
        "quantity": rng.integers(1, 500, ORDERS),
        "limit_price": prices + prices // 200,
        "reference_price": prices,
    }
    claims = tuple(
        Claim(
            symbol,
            700,
            WINDOW,
            tuple(rng.integers(0, 560, NEIGHBOURS).tolist()),
            tuple(np.sort(rng.uniform(2, 30, NEIGHBOURS)).tolist()),
            int(rng.integers(-900_000, 900_000)),
        )
        for symbol in range(ORDERS)
    )
    times = (_WALL_NS, _WALL_NS + 2_000_000_000)
    return Frame(
        b"c" * 16, 0, Path.LANE, 1, 1, 3, 8_000, 1_000, 700, *times,
        Intents.of_columns(columns, ORDERS), claims, Windows.of(np.log(closes)), WINDOW,
    )  # fmt: skip


def vote_batch() -> tuple[BatchHeader, list[Envelope]]:
    """One replica's approvals of twenty frames in one flush."""
    votes = [
        FrameVote(2, Path.LANE, 4, 900 + row, _bytes(row, 32), (), _bytes(row, 32) + _bytes(~row, 32))
        for row in range(VOTES)
    ]
    return BatchHeader(7, 2, 55, _WALL_NS, 54), [Envelope(1_000 + row, vote) for row, vote in enumerate(votes)]


def plain_orders(source: Frame) -> list[dict[str, Any]]:
    """Each order as a map of its fields, as most programs hold it."""
    names = source.intents.array.dtype.names
    assert names is not None
    return [dict(zip(names, row, strict=True)) for row in source.intents.array.tolist()]


def plain_orders_with_windows(source: Frame) -> list[dict[str, Any]]:
    """... and its window as a list of numbers."""
    windows = source.windows.array.reshape(ORDERS, WINDOW).tolist()
    return [{**order, "window": window} for order, window in zip(plain_orders(source), windows, strict=True)]


def plain_frame(source: Frame) -> dict[str, Any]:
    """A frame as nested maps and lists."""
    return {name: _plain(getattr(source, name), source) for name in Frame.__struct_fields__}


def plain_batch(batch: tuple[BatchHeader, list[Envelope]]) -> dict[str, Any]:
    """A batch as nested maps and lists."""
    header, envelopes = batch
    messages = [
        {"kind": kind_of(each.message), "trace": each.trace, "body": _built(each.message)} for each in envelopes
    ]
    return {"header": _built(header), "messages": messages}


def _plain(value: Any, source: Frame) -> Any:
    if isinstance(value, Intents):
        return plain_orders(source)
    return value.array.tolist() if isinstance(value, Windows) else _built(value)


def _built(value: Any) -> Any:
    return _lists(to_builtins(value, builtin_types=(bytes,)))


def _lists(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _lists(each) for name, each in value.items()}
    return [_lists(each) for each in value] if isinstance(value, tuple | list) else value


def _bytes(seed: int, count: int) -> bytes:
    return hashlib.sha256(repr(seed).encode()).digest()[:count]
