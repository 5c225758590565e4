"""Random pairs to compare: all sorts of values and lengths, seeded."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

LENGTH_MAX = 60


class Case(NamedTuple):
    """Two series ``(n,)`` and ``(m,)``, or ``(n, channels)`` and ``(m, channels)``, and a band in samples."""

    a: Any
    b: Any
    band: int | None


def random_cases(count: int, seed: int, channels: int | None = None) -> list[Case]:
    """Lengths 1 to ``LENGTH_MAX`` and bands, small ones more often; half of the pairs equally long, a third without."""
    rng = np.random.default_rng(seed)
    return [_case(rng, channels) for _ in range(count)]


def _case(rng: np.random.Generator, channels: int | None) -> Case:
    n, m = (1 + (rng.random(2) ** 2 * LENGTH_MAX).astype(int)).tolist()
    if rng.integers(2):
        m = n
    band = None if rng.integers(3) == 0 else int(rng.random() ** 2 * (max(n, m) + 2))
    kind = KINDS[int(rng.integers(len(KINDS)))]
    a, b = (kind(rng, (size,) if channels is None else (size, channels)) for size in (n, m))
    return Case(a, b, band)


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape)


def _walk(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape).cumsum(axis=0)


def _levels(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Few values, so that many paths cost the same."""
    return rng.integers(-2, 3, shape).astype(np.float64)


def _flat(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return np.full(shape, float(rng.integers(-1, 2)))


def _prices(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    """Far from zero: the differences lose digits, the same ones everywhere."""
    return 1e6 + rng.standard_normal(shape).cumsum(axis=0)


def _spikes(rng: np.random.Generator, shape: tuple[int, ...]) -> Any:
    return rng.standard_normal(shape) * 10.0 ** rng.integers(-8, 9, shape)


KINDS = (_noise, _walk, _levels, _flat, _prices, _spikes)
