"""Two reports side by side: how much faster is B, by stage, and how sure may we be of it."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiling.cycles import CycleSamples
from profiling.stages import Stage

RESAMPLE_COUNT: Final = 1000
CYCLES_MIN: Final = 8
"""Fewer cycles than this give no interval: a bootstrap cannot show spread that it has not seen."""

Interval = tuple[float, float] | None

LIKE_WITH_LIKE: Final = (
    "run.agents",
    "run.cycles",
    "run.data.name",
    "run.data.sha256",
    "run.data.synthetic",
    "run.seed",
)


def compare_reports(
    a: dict[str, Any],
    b: dict[str, Any],
    *,
    a_samples: CycleSamples | None = None,
    b_samples: CycleSamples | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two valid reports. Ratios are a/b: above 1 means that b takes less time.

    Returns ``{"a", "b"`` (run ids and modes)``, "differences", "stages", "cycle"}``. A stage row holds ``stage,
    a_mean_ms, b_mean_ms, ratio, ratio_low, ratio_high``; the ratio is null where b's mean is 0, the interval (95 %) is
    null without samples of both runs. ``cycle`` holds the same plus percentiles and rates, with ``per_s_ratio`` b/a so
    that above 1 is again in favour of b. ``differences`` names what else differs between the runs, because a ratio
    between unlike runs says nothing about the code.
    """
    intervals = _intervals(a_samples, b_samples, seed)
    a_stages = {row["stage"]: row for row in a["stages"]}
    b_stages = {row["stage"]: row for row in b["stages"]}
    stages = []
    for column, stage in enumerate(Stage):
        if stage.label in a_stages and stage.label in b_stages:
            means = a_stages[stage.label]["mean_ms"], b_stages[stage.label]["mean_ms"]
            stages.append({"stage": stage.label, **_means_row(*means, intervals[column])})
    return {
        "a": {"id": a["run"]["id"], "mode": a["run"]["mode"]},
        "b": {"id": b["run"]["id"], "mode": b["run"]["mode"]},
        "differences": [key for key in LIKE_WITH_LIKE if _lookup(a, key) != _lookup(b, key)],
        "stages": stages,
        "cycle": _cycle_row(a["cycle"], b["cycle"], intervals[-1]),
    }


def ratio_intervals(a: CycleSamples, b: CycleSamples, seed: int = 0) -> list[Interval]:
    """95 % intervals of the ratio of mean times, a over b: one per stage, and one for the whole cycle as the last.

    A circular block bootstrap: cycles that follow each other share caches, queues and noise, so whole blocks of n^(1/3)
    neighbours are drawn. Drawing single cycles would promise intervals that are too narrow. None where either run
    passed the stage fewer than 8 times or b's mean can be 0.
    """
    rng = np.random.default_rng(seed)
    a_means, b_means = _resampled_means(a, rng), _resampled_means(b, rng)
    enough = (_columns(a)[1].sum(axis=0) >= CYCLES_MIN) & (_columns(b)[1].sum(axis=0) >= CYCLES_MIN)
    intervals: list[Interval] = []
    for column, is_enough in enumerate(enough.tolist()):
        usable = is_enough and bool(np.all(b_means[:, column] > 0)) and bool(np.all(np.isfinite(a_means[:, column])))
        if not usable:
            intervals.append(None)
            continue
        low, high = np.percentile(a_means[:, column] / b_means[:, column], (2.5, 97.5))
        intervals.append((float(low), float(high)))
    return intervals


def _intervals(a: CycleSamples | None, b: CycleSamples | None, seed: int) -> list[Interval]:
    if a is None or b is None:
        return [None] * (len(Stage) + 1)
    return ratio_intervals(a, b, seed)


def _columns(samples: CycleSamples) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Durations in ns, 0 where the stage was not passed, and weights, both (n, 9): the eight stages, then the cycle."""
    durations = np.column_stack((samples.stage_ns, samples.duration_ns)).astype(np.float64)
    weights = np.column_stack((samples.passed, np.ones(len(samples.trace)))).astype(np.float64)
    return durations, weights


def _resampled_means(samples: CycleSamples, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Means of ``RESAMPLE_COUNT`` resamples, shape (resamples, 9), NaN where a resample holds no passage."""
    durations, weights = _columns(samples)
    count = len(durations)
    if count == 0:
        return np.full((RESAMPLE_COUNT, durations.shape[1]), np.nan)
    length = max(1, round(count ** (1 / 3)))
    starts = rng.integers(count, size=(RESAMPLE_COUNT, -(-count // length)))
    totals = _block_sums(durations, length)[starts].sum(axis=1)
    passages = _block_sums(weights, length)[starts].sum(axis=1)
    means: npt.NDArray[np.float64] = np.divide(totals, passages, out=np.full_like(totals, np.nan), where=passages > 0)
    return means


def _block_sums(values: npt.NDArray[np.float64], length: int) -> npt.NDArray[np.float64]:
    """Sums of ``length`` neighbouring rows from each row on, wrapping around at the end. Shape as ``values``."""
    sums = values.copy()
    for shift in range(1, length):
        sums += np.roll(values, -shift, axis=0)
    return sums


def _means_row(a_mean_ms: float, b_mean_ms: float, interval: Interval) -> dict[str, Any]:
    low, high = interval if interval is not None else (None, None)
    return {
        "a_mean_ms": a_mean_ms,
        "b_mean_ms": b_mean_ms,
        "ratio": _ratio(a_mean_ms, b_mean_ms),
        "ratio_low": low,
        "ratio_high": high,
    }


def _cycle_row(a: dict[str, Any], b: dict[str, Any], interval: Interval) -> dict[str, Any]:
    row = _means_row(a["mean_ms"], b["mean_ms"], interval)
    for name in ("p50_ms", "p99_ms"):
        row |= {f"a_{name}": a[name], f"b_{name}": b[name], f"{name}_ratio": _ratio(a[name], b[name])}
    return row | {"a_per_s": a["per_s"], "b_per_s": b["per_s"], "per_s_ratio": _ratio(b["per_s"], a["per_s"])}


def _ratio(upper: float, lower: float) -> float | None:
    return upper / lower if lower else None


def _lookup(report: dict[str, Any], dotted: str) -> Any:
    value: Any = report
    for key in dotted.split("."):
        value = value[key]
    return value
