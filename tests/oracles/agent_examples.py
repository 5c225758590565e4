"""Small data sets, cluster files and order events for tests of the agents."""

from __future__ import annotations

import dataclasses
from datetime import date, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from agents.cluster_init import init_cluster
from agents.data.dataset import Dataset, parse_csv
from agents.data.synthetic import synthetic_csv
from orders.states import OrderState
from protocol.codes import ExecType, OrdStatus, Side
from protocol.messages import PRICE_SCALE, ExecutionReport, OrderEvent

SYMBOLS = tuple(f"SYN{number:02d}" for number in range(20))


def table(rows: int = 210, header: str = "Date,AAA,BBB", cells: str = "10.5,20.25") -> list[str]:
    """Lines of a good table, weekdays from 2001 on; line number ``n`` of the file is ``table()[n - 1]``."""
    lines, day = [header], date(2001, 1, 1)
    for _ in range(rows):
        lines.append(f"{day.isoformat()},{cells}")
        day += timedelta(days=3 if day.weekday() == 4 else 1)
    return lines


def content(lines: list[str]) -> bytes:
    return ("\n".join(lines) + "\n").encode()


def synthetic(bars: int = 600, symbols: int = 3, seed: int = 5) -> Dataset:
    return parse_csv(f"synthetic-{seed}", synthetic_csv(seed, symbols, bars), synthetic=True)


def with_log_closes(data: Dataset, log_closes: NDArray[np.float64], **changes: object) -> Dataset:
    """The same data set with other prices."""
    closes = np.rint(np.exp(log_closes) * PRICE_SCALE).astype(np.int64)
    return dataclasses.replace(data, closes=closes, log_closes=log_closes, **changes)  # type: ignore[arg-type]


def shuffled_after(data: Dataset, market_index: int, seed: int) -> Dataset:
    """Every bar after ``market_index`` changed and out of order; the bars up to it untouched."""
    rng = np.random.default_rng(seed)
    log_closes = data.log_closes.copy()
    future = log_closes[market_index + 1 :]
    log_closes[market_index + 1 :] = rng.permutation(future) + rng.normal(0, 0.3, future.shape)
    return with_log_closes(data, log_closes)


def make_cluster_file(directory: Path, base_port: int = 17401, **changes: object) -> Path:
    """A cluster on generated data."""
    known: dict[str, object] = {
        "name": "testing",
        "base_port": base_port,
        "hosts": "127.0.0.1",
        "valid_hours": 24.0,
        "data": "synthetic",
        "force": False,
        "symbols": SYMBOLS,
    }
    return init_cluster(directory, **{**known, **changes})  # type: ignore[arg-type]


def order_event(
    sequence: int,
    state: OrderState = OrderState.ACCEPTED,
    *,
    intent: int = 1,
    leg: int = 0,
    filled: int = 0,
    quantity: int = 100,
    side: Side = Side.BUY,
    symbol: int = 0,
    price: int = 100 * PRICE_SCALE,
    executor: int = 2,
    exec_id: int | None = None,
) -> OrderEvent:
    """An event of trader 3; ``filled`` > 0 makes it a trade of so many shares."""
    report = ExecutionReport(
        cl_ord_id=f"ORDER{intent:010d}{leg}",
        order_id=intent,
        exec_id=sequence if exec_id is None else exec_id,
        exec_type=ExecType.TRADE if filled else ExecType.NEW,
        ord_status=OrdStatus.NEW,
        symbol=symbol,
        side=side,
        order_quantity=quantity,
        last_quantity=filled,
        last_price=price if filled else 0,
        cumulative_quantity=filled,
        leaves_quantity=quantity - filled,
        reason=0,
        market_index=300,
    )
    return OrderEvent(executor, sequence, 3, intent, 7, leg, state, report)
