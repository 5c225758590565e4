"""The one JSON shape of every benchmark, and the statistics behind its ratios."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import numpy as np

from protocol.native import in_use

RESAMPLES: Final = 2_000
NOISE_MAX: Final = 0.20
"""Coefficient of variation of our own side above which no verdict is given."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """Median of paired block ratios with a bootstrap 95 % interval."""

    median: float
    low: float
    high: float
    runs: int

    def as_dict(self) -> dict[str, float | int]:
        return {
            "median": round(self.median, 3),
            "low": round(self.low, 3),
            "high": round(self.high, 3),
            "runs": self.runs,
        }


@dataclass(frozen=True, slots=True)
class Goal:
    """What a claim asks of a ratio: ``at_least`` a bound, or ``at_most``."""

    bound: float
    at_most: bool = False

    def met_by(self, ratio: Ratio) -> bool:
        return ratio.high <= self.bound if self.at_most else ratio.low >= self.bound

    def __str__(self) -> str:
        return f"{'<=' if self.at_most else '>='} {self.bound:g}"


def at_least(bound: float) -> Goal:
    """The ratio must not be smaller."""
    return Goal(bound)


def at_most(bound: float) -> Goal:
    """The ratio must not be larger."""
    return Goal(bound, at_most=True)


@dataclass(slots=True)
class Result:
    """Rows and claims of one benchmark run."""

    benchmark: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    claims: list[dict[str, Any]] = field(default_factory=list)
    variations: list[float] = field(default_factory=list)
    load_before: float = field(default_factory=lambda: round(os.getloadavg()[0], 2))

    def row(self, case: str, ours: float, unit: str, peer: str, peer_value: float, ratio: Ratio) -> None:
        self.rows.append(
            {
                "case": case,
                "ours": round(ours, 3),
                "unit": unit,
                "peer": peer,
                "peer_value": round(peer_value, 3),
                "ratio": ratio.as_dict(),
            }
        )

    def claim(self, claim_id: str, goal: Goal, ratio: Ratio | None, why_not: str | None = None) -> None:
        """A goal for a ratio; it holds only if the interval's bad end does."""
        measured = None
        if ratio is not None:
            measured = {"median": round(ratio.median, 3), "low": round(ratio.low, 3), "high": round(ratio.high, 3)}
        self.claims.append(
            {
                "id": claim_id,
                "goal": str(goal),
                "measured": measured,
                "holds": None if ratio is None else goal.met_by(ratio),
                "why_not": why_not,
            }
        )

    def as_dict(self) -> dict[str, Any]:
        variation = max(self.variations, default=0.0)
        refused = variation > NOISE_MAX
        if refused:
            for claim in self.claims:
                claim["holds"] = None
        return {
            "benchmark": self.benchmark,
            "commit": commit(),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": machine(self.load_before),
            "rows": self.rows,
            "claims": self.claims,
            "noise": {
                "verdict": "refused" if refused else "ok",
                "coefficient_of_variation": round(variation, 3),
            },
        }


def paired_ratio(numerators: Sequence[float], denominators: Sequence[float], seed: int = 0) -> Ratio:
    """Ratio of two sides that were measured in turn, block by block; blocks are resampled whole."""
    ratios = np.asarray(numerators, float) / np.asarray(denominators, float)
    rng = np.random.Generator(np.random.PCG64(seed))
    medians = np.median(rng.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return Ratio(float(np.median(ratios)), float(low), float(high), len(ratios))


def variation(values: Sequence[float]) -> float:
    """Coefficient of variation: standard deviation over mean."""
    array = np.asarray(values, float)
    return float(np.std(array) / np.mean(array)) if len(array) > 1 and np.mean(array) else 0.0


def commit() -> str:
    """The checked-out commit, with a mark when the tree differs from it; empty outside a repository."""
    root = Path(__file__).resolve().parents[2]
    try:
        named = subprocess.run(
            ["git", "describe", "--always", "--dirty"], cwd=root, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return named.stdout.strip()


def machine(load_before: float) -> dict[str, Any]:
    """What a reader needs to know of the machine; no names."""
    return {
        "cpu": _processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "hot_modules_compiled": in_use(),
        "load_before": load_before,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")
