"""What the intervals allow to be said, and nothing beyond. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agents.evaluation.bootstrap import CONFIDENCE, Estimate
from agents.evaluation.figures import Figures

BLOCKS_MIN: Final = 10.0
"""With fewer blocks of dates an interval is itself a guess, and no verdict rests on it."""

SIDES: Final = {1: "lies above 0", -1: "lies below 0", 0: "contains 0"}


@dataclass(frozen=True, slots=True)
class Verdict:
    """``skill`` is None where none can be given. ``reasons`` are one line each."""

    skill: bool | None
    text: str
    reasons: tuple[str, ...]


def judge(pooled: Figures, symbols: Sequence[Figures], blocks: float) -> Verdict:
    """Skill is shown only if hit rate minus majority and the information coefficient both lie above 0.

    Asking for both keeps the chance of a false alarm below that of either alone; the symbols' own intervals are
    counted, but decide nothing.
    """
    direction, rank = pooled.hit_rate_minus["majority"], pooled.rank_ic["dtw"]
    return Verdict(*_skill(direction, rank, blocks), _reasons(pooled, symbols))


def _skill(direction: Estimate | None, rank: Estimate | None, blocks: float) -> tuple[bool | None, str]:
    if blocks < BLOCKS_MIN:
        return None, f"no verdict: {blocks:.1f} blocks of dates, {BLOCKS_MIN:.0f} are needed; evaluate more bars"
    if direction is None or rank is None:
        return None, "no verdict: forecasts or outcomes never differ, so no hit rate or rank correlation is defined"
    names = ("hit rate minus majority", direction), ("the information coefficient", rank)
    missing = [f"the interval of {name} {SIDES[figure.side]}" for name, figure in names if figure.side <= 0]
    if missing:
        return False, f"no skill shown: {' and '.join(missing)}"
    return True, "skill shown: hit rate minus majority and the information coefficient both lie above 0"


def _reasons(pooled: Figures, symbols: Sequence[Figures]) -> tuple[str, ...]:
    direction, rank = pooled.hit_rate_minus["majority"], pooled.rank_ic["dtw"]
    money, beyond = pooled.net_bps["dtw"], pooled.net_bps_minus["always_long"]
    lines = [
        _line("direction: hit rate minus that of the past majority side", direction, 4),
        _line("rank: information coefficient", rank, 4),
        _line("after costs: return per horizon, bp", money, 1),
        _line("after costs: the same minus always long, bp", beyond, 1),
        _line("timing: return before costs beyond its own average side, held, bp", pooled.gross_bps["timing"], 1),
        _line("warping: hit rate of DTW minus that of Euclidean neighbours", pooled.hit_rate_minus["euclidean"], 4),
    ]
    if direction is not None:
        lines.append(
            f"power: a true difference in hit rate below about {direction.reach:.3f} would not show in this data"
        )
    if len(symbols) > 1:
        above = sum(
            figure is not None and figure.side > 0 for figure in (each.hit_rate_minus["majority"] for each in symbols)
        )
        chance = len(symbols) * (1 - CONFIDENCE) / 2
        lines.append(
            f"symbols: {above} of {len(symbols)} have a hit rate above their majority's; chance gives {chance:.1f}"
        )
    return tuple(lines)


def _line(name: str, figure: Estimate | None, digits: int) -> str:
    if figure is None:
        return f"{name}: not defined"
    value, low, high = (f"{number:+.{digits}f}" for number in (figure.value, figure.low, figure.high))
    return f"{name}: {value} ({low} to {high}) {SIDES[figure.side]}"
