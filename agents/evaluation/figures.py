"""All figures of a symbol or of a pool of symbols, from one panel of forecasts and one set of resamples. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from agents.evaluation import skill
from agents.evaluation.bootstrap import BlockBootstrap, Estimate, Floats

Named = dict[str, Estimate | None]
"""By forecaster or rival; None where the figure is not defined."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Forecasts and outcomes, each ``(dates, symbols)``; dates are ``step`` bars apart, outcomes ``horizon`` long."""

    realised: Floats
    dtw: Floats
    euclidean: Floats
    majority: Floats
    """The side known in advance; see ``skill.past_majority``."""
    step: int
    horizon: int

    def of(self, symbol: int) -> Panel:
        """One symbol's columns."""
        column = [symbol]
        return Panel(
            self.realised[:, column],
            self.dtw[:, column],
            self.euclidean[:, column],
            self.majority[:, column],
            self.step,
            self.horizon,
        )

    @property
    def stride(self) -> int:
        """Dates from one trade to the next that does not overlap it."""
        return -(-self.horizon // self.step)

    @property
    def joined(self) -> bool:
        """Whether one trade begins as the one before it ends."""
        return self.stride * self.step == self.horizon

    @property
    def rivals(self) -> dict[str, Floats]:
        """What asks for no analogues: the sides that are known in advance or afterwards, and holding."""
        return {
            "majority": self.majority,
            "majority_in_sample": skill.sample_majority(self.realised),
            "always_long": np.ones_like(self.realised),
        }


@dataclass(frozen=True, slots=True)
class Figures:
    """Rates and correlations are pure numbers, ``*_bps`` basis points of the notional per horizon."""

    forecasts: int
    outcomes_zero: int
    """Nothing moved: in no hit rate."""
    forecasts_zero: int
    """No side taken: half a hit, no trade."""
    non_overlapping: float
    effective: float
    trades: int
    joined: bool
    """Whether each traded horizon begins as the one before it ends: a side that stays is held on."""
    hit_rate: Named
    hit_rate_minus: Named
    """DTW's minus the named one's."""
    rank_ic: Named
    gross_bps: Named
    net_bps: Named
    net_bps_minus: Named


def figures(panel: Panel, bootstrap: BlockBootstrap, cost_bps: float) -> Figures:
    """Everything about a panel of one symbol or of many."""
    realised = panel.realised
    known = {"dtw": panel.dtw, "euclidean": panel.euclidean, **panel.rivals}
    outcomes = int(skill.counted(realised).sum())
    non_overlapping = outcomes * min(1.0, panel.step / panel.horizon)
    rates = {name: skill.hit_rate(bootstrap, forecast, realised) for name, forecast in known.items()}
    return Figures(
        forecasts=realised.size,
        outcomes_zero=realised.size - outcomes,
        forecasts_zero=int((panel.dtw == 0).sum()),
        non_overlapping=non_overlapping,
        effective=_effective(rates["dtw"], non_overlapping, realised.shape[1]),
        trades=int(_traded(panel).sum()),
        joined=panel.joined,
        hit_rate=rates,
        hit_rate_minus=_differences(panel, bootstrap, known),
        rank_ic=_rank_figures(panel, bootstrap),
        **_money(panel, bootstrap, known, cost_bps),
    )


def _differences(panel: Panel, bootstrap: BlockBootstrap, known: dict[str, Floats]) -> Named:
    realised, rivals = panel.realised, ("majority", "majority_in_sample", "euclidean")
    found = {name: skill.hit_rate_difference(bootstrap, panel.dtw, known[name], realised) for name in rivals}
    chance = skill.timing(bootstrap, panel.dtw, np.sign(realised) / 2, skill.counted(realised))
    return found | {"own_average": chance}


def _effective(rate: Estimate | None, non_overlapping: float, symbols: int) -> float:
    """One series: forecasts whose outcomes share no bar. A pool: what its resamples say, for symbols move together."""
    if rate is None or symbols == 1:
        return non_overlapping
    return skill.effective_count(rate, non_overlapping)


def _rank_figures(panel: Panel, bootstrap: BlockBootstrap) -> Named:
    dtw, euclidean, realised = panel.dtw, panel.euclidean, panel.realised
    return {
        "dtw": skill.rank_correlation(bootstrap, dtw, realised),
        "euclidean": skill.rank_correlation(bootstrap, euclidean, realised),
        "dtw_minus_euclidean": skill.rank_correlation_difference(bootstrap, dtw, euclidean, realised),
        "dtw_across_symbols": skill.rank_correlation_across(bootstrap, dtw, realised),
        "euclidean_across_symbols": skill.rank_correlation_across(bootstrap, euclidean, realised),
    }


def _traded(panel: Panel) -> Floats:
    """1 on the dates that open a trade, 0 on those whose horizon overlaps one."""
    found = np.zeros_like(panel.realised)
    found[:: panel.stride] = 1.0
    return found


def _money(panel: Panel, bootstrap: BlockBootstrap, known: dict[str, Floats], cost_bps: float) -> dict[str, Named]:
    traded = _traded(panel)

    def returns(name: str, cost: float) -> Floats:
        found = np.zeros_like(panel.realised)
        dates = slice(None, None, panel.stride)
        found[dates] = skill.net_returns(known[name][dates], panel.realised[dates], cost, panel.joined)
        return found

    gross = {name: returns(name, 0.0) for name in ("dtw", "always_long")}
    timing = skill.timing(bootstrap, panel.dtw, np.expm1(panel.realised) * skill.BPS, traded)
    net = {name: returns(name, cost_bps) for name in ("dtw", "euclidean", "majority", "always_long")}
    beyond = {name: net["dtw"] - each for name, each in net.items() if name != "dtw"}
    groups = {"gross_bps": gross, "net_bps": net, "net_bps_minus": beyond}
    found = {
        key: {name: skill.mean(bootstrap, each, traded) for name, each in group.items()}
        for key, group in groups.items()
    }
    found["gross_bps"]["timing"] = timing
    return found
