"""One evaluation from a data set to a verdict, and its JSON form. Pure."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Final

import msgspec
import numpy as np

from agents.config import PatternSection
from agents.data.dataset import Dataset
from agents.evaluation import skill, walk
from agents.evaluation.bootstrap import CONFIDENCE, RESAMPLES, BlockBootstrap, Floats
from agents.evaluation.figures import Figures, Panel, figures
from agents.evaluation.verdict import Verdict, judge
from protocol.errors import RunFailure

BARS_CHECKED: Final = 3
"""Bars at which every evaluation replaces the future and looks whether a forecast moved."""

DIGITS: Final = 6


@dataclass(frozen=True, slots=True)
class Plan:
    """What is asked for. ``step`` and ``last`` count bars; ``cost_bps`` is a round trip's."""

    section: PatternSection
    step: int
    last: int | None
    cost_bps: float
    seed: int


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a plan on a data set."""

    data: Dataset
    plan: Plan
    first: int
    """Bar of the first forecast; the last one is at ``last``."""
    last: int
    dates: int
    block: int
    """Dates that are resampled together."""
    blocks: float
    bars_checked: tuple[int, ...]
    pooled: Figures
    symbols: tuple[Figures, ...]
    """In the order of ``data.symbols``."""
    verdict: Verdict


def evaluate(data: Dataset, plan: Plan, threads: int, progress: walk.Progress) -> Evaluation:
    """Forecast at every planned bar, with and without warping, and judge the forecasts.

    Raises ``UsageError`` for too little data and ``RunFailure`` should a forecast ever depend on a later price.
    """
    section, rng = plan.section, np.random.Generator(np.random.PCG64(plan.seed))
    bars = walk.query_bars(data, section, plan.step, plan.last)
    checked = tuple(int(bar) for bar in np.sort(rng.choice(bars, BARS_CHECKED, replace=False)))
    _check_no_look_ahead(data, section, checked, rng)
    panel = Panel(
        walk.realised(data, section.horizon, bars),
        walk.forecasts(data, section, bars, threads, progress),
        walk.forecasts(data, euclidean(section), bars, threads, progress),
        skill.past_majority(data.log_closes, section.horizon, bars),
        plan.step,
        section.horizon,
    )
    bootstrap = BlockBootstrap(len(bars), block_dates(section, plan.step, len(bars)), rng)
    pooled = figures(panel, bootstrap, plan.cost_bps)
    symbols = tuple(figures(panel.of(symbol), bootstrap, plan.cost_bps) for symbol in range(len(data.symbols)))
    return Evaluation(
        data=data,
        plan=plan,
        first=int(bars[0]),
        last=int(bars[-1]),
        dates=len(bars),
        block=bootstrap.block,
        blocks=bootstrap.blocks,
        bars_checked=checked,
        pooled=pooled,
        symbols=symbols,
        verdict=judge(pooled, symbols, bootstrap.blocks),
    )


def euclidean(section: PatternSection) -> PatternSection:
    """The same search without warping."""
    return msgspec.structs.replace(section, band=0)


def block_dates(section: PatternSection, step: int, dates: int) -> int:
    """Dates in a block: as many as queries share samples or outcomes over, and not less than the cube root of all."""
    overlap = -(-(section.window + section.horizon) // step)
    return max(overlap, math.ceil(math.cbrt(dates)))


def _check_no_look_ahead(
    data: Dataset, section: PatternSection, bars: tuple[int, ...], rng: np.random.Generator
) -> None:
    def forecaster(known: Dataset, bar: int) -> Floats:
        majority = skill.past_majority(known.log_closes, section.horizon, np.array([bar]))
        return np.concatenate([walk.forecasts(known, section, [bar], 1, lambda _: None), majority])

    seeing = walk.bars_that_see_the_future(forecaster, data, bars, rng)
    if seeing:
        raise RunFailure(
            f"the forecast at bar {seeing[0]} of {data.name} depends on later prices; report this as a bug"
        )


def as_dict(found: Evaluation) -> dict[str, Any]:
    """Everything as plain objects for JSON; figures that are not defined are null."""
    data, plan = found.data, found.plan
    return {
        "evaluation": "pattern",
        "data": data.describe()
        | {
            "symbols": list(data.symbols),
            "bars": data.bars,
            "first": data.dates[found.first].isoformat(),
            "last": data.dates[found.last].isoformat(),
        },
        "pattern": msgspec.to_builtins(plan.section),
        "cost_bps": plan.cost_bps,
        "sampling": {
            "step": plan.step,
            "dates": found.dates,
            "block_dates": found.block,
            "blocks": round(found.blocks, 1),
            "resamples": RESAMPLES,
            "confidence": CONFIDENCE,
            "seed": plan.seed,
        },
        "look_ahead": {"bars_checked": list(found.bars_checked), "forecasts_changed": 0},
        "verdict": asdict(found.verdict),
        "pooled": _figures_dict(found.pooled),
        "symbols": {name: _figures_dict(each) for name, each in zip(data.symbols, found.symbols, strict=True)},
    }


def _figures_dict(found: Figures) -> dict[str, Any]:
    return {key: _plain(value) for key, value in asdict(found).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return round(value, DIGITS) if isinstance(value, float) else value
