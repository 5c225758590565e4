"""A seeded generator of daily closes. Its output is called synthetic wherever it appears."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np


def synthetic_csv(seed: int, symbols: int, bars: int) -> bytes:
    """Closes with a common factor, volatility clustering and weekday dates, as ``agents.data.dataset`` reads them.

    The same arguments give the same bytes on every machine: PCG64 draws, and prices rounded to 1/10,000.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    volatility = np.empty(bars)
    level = 0.01
    for bar in range(bars):
        level = 0.0005 + 0.92 * level + 0.03 * abs(rng.standard_normal()) * level + 0.0003 * rng.random()
        volatility[bar] = level
    market = rng.standard_normal(bars) * volatility
    own = rng.standard_normal((bars, symbols)) * volatility[:, None] * 1.2
    beta = 0.6 + 0.8 * rng.random(symbols)
    returns = 0.0002 + beta * market[:, None] + own
    prices = (20 + 180 * rng.random(symbols)) * np.exp(np.cumsum(np.clip(returns, -0.2, 0.2), axis=0))
    prices = np.clip(prices, 0.5, 100_000.0)
    lines = ["Date," + ",".join(f"SYN{symbol:02d}" for symbol in range(symbols))]
    day = date(1995, 1, 2)
    for row in prices:
        lines.append(day.isoformat() + "," + ",".join(f"{price:.4f}" for price in row))
        day += timedelta(days=3 if day.weekday() == 4 else 1)
    return ("\n".join(lines) + "\n").encode()
