"""An evaluation of the pattern search as tables for a terminal."""

from __future__ import annotations

from typing import Final

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agents.evaluation.bootstrap import RESAMPLES, Estimate
from agents.evaluation.evaluation import Evaluation
from agents.evaluation.figures import Figures, Named

NAMES: Final = {
    "dtw": "DTW analogues",
    "euclidean": "Euclidean analogues (band 0)",
    "majority": "majority side, past only",
    "majority_in_sample": "majority side, in sample",
    "own_average": "its own average side, by chance",
    "always_long": "always long",
    "timing": "DTW minus its own average side, held",
    "dtw_minus_euclidean": "DTW minus Euclidean",
    "dtw_across_symbols": "DTW, across symbols, mean of dates",
    "euclidean_across_symbols": "Euclidean, across symbols, likewise",
}
UNDEFINED: Final = "-"


def evaluation_view(found: Evaluation) -> Group:
    """What was evaluated, the pooled figures, each symbol's, and the verdict."""
    return Group(
        *_heading(found), "", pooled_table(found), "", symbols_table(found), *_counts(found), "", *_verdict(found)
    )


def pooled_table(found: Evaluation) -> Table:
    """One figure a line: value and 95 % interval."""
    title = "One symbol" if len(found.symbols) == 1 else f"All {len(found.symbols)} symbols together"
    table = Table(title=title, title_justify="left", box=None, pad_edge=False)
    table.add_column("figure", no_wrap=True)
    for heading in ("value", "95 %"):
        table.add_column(heading, justify="right", no_wrap=True)
    pooled, cost = found.pooled, found.plan.cost_bps
    _section(table, "hit rate", pooled.hit_rate, 3)
    _section(table, "hit rate of DTW minus that of", pooled.hit_rate_minus, 3)
    _section(table, "information coefficient (Spearman)", pooled.rank_ic, 3)
    _section(table, "return per horizon before costs, bp", pooled.gross_bps, 1)
    _section(table, f"return per horizon after {cost:g} bp a round trip, bp", pooled.net_bps, 1)
    _section(table, "return after costs of DTW minus that of, bp", pooled.net_bps_minus, 1)
    return table


def symbols_table(found: Evaluation) -> Table:
    """One symbol a line, its main figures. An interval in 20 misses the truth by chance."""
    table = Table(title="Symbol by symbol (DTW)", title_justify="left", box=None, pad_edge=False)
    table.add_column("symbol", no_wrap=True)
    headings = ("eff. n", "hit rate", "majority", "difference, 95 %", "IC", "95 %", "net bp", "95 %")
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for name, each in [*zip(found.data.symbols, found.symbols, strict=True), ("all", found.pooled)]:
        table.add_row(Text(name), *_symbol_cells(each))
    return table


def _symbol_cells(each: Figures) -> list[str]:
    difference, rank, money = each.hit_rate_minus["majority"], each.rank_ic["dtw"], each.net_bps["dtw"]
    return [
        f"{each.effective:,.0f}",
        _value(each.hit_rate["dtw"], 3),
        _value(each.hit_rate["majority"], 3),
        _interval(difference, 3),
        _value(rank, 3),
        _interval(rank, 3),
        _value(money, 1),
        _interval(money, 1),
    ]


def _section(table: Table, title: str, named: Named, digits: int) -> None:
    table.add_row(Text(title, "bold"), "", "")
    for name, figure in named.items():
        table.add_row(f"  {NAMES[name]}", _value(figure, digits), _interval(figure, digits))


def _value(figure: Estimate | None, digits: int) -> str:
    return UNDEFINED if figure is None else f"{figure.value:.{digits}f}"


def _interval(figure: Estimate | None, digits: int) -> str:
    return UNDEFINED if figure is None else f"{figure.low:.{digits}f} to {figure.high:.{digits}f}"


def _heading(found: Evaluation) -> list[Text]:
    data, plan, section = found.data, found.plan, found.plan.section
    origin = "synthetic" if data.synthetic else f"sha256 {data.sha256[:12]}"
    return [
        Text(
            f"{data.name} ({origin}): symbols {len(data.symbols)}, dates {found.dates:,} from "
            f"{data.dates[found.first]} to {data.dates[found.last]}, step {plan.step}"
        ),
        Text(
            f"window {section.window}, band {section.band}, neighbours {section.neighbours}, "
            f"horizon {section.horizon}, exclusion {section.exclusion}"
        ),
        Text(f"intervals: {RESAMPLES:,} resamples of blocks of {found.block} dates with all symbols, seed {plan.seed}"),
    ]


def _counts(found: Evaluation) -> list[Text]:
    pooled = found.pooled
    return [
        Text(),
        Text(
            f"{pooled.forecasts:,} forecasts, {pooled.non_overlapping:,.0f} that do not overlap in time, worth "
            f"{pooled.effective:,.0f} independent ones (eff. n); {pooled.trades:,} horizons traded"
        ),
        Text(
            f"{pooled.outcomes_zero:,} outcomes of zero are in no hit rate; {pooled.forecasts_zero:,} forecasts of "
            "zero are half a hit and no trade"
        ),
        Text(
            "one horizon joins the next, so always long is buy and hold"
            if pooled.joined
            else "horizons leave gaps, so every trade pays a round trip, always long too"
        ),
        Text("one interval in 20 misses the truth by chance; the verdict rests on two that were chosen beforehand"),
        Text(
            f"look-ahead: forecasts at {len(found.bars_checked)} bars stayed the same to the last bit when all later "
            "prices were replaced"
        ),
    ]


def _verdict(found: Evaluation) -> list[Text]:
    verdict = found.verdict
    style = {True: "green", False: "yellow", None: "yellow"}[verdict.skill]
    return [*(Text(reason) for reason in verdict.reasons), Text(f"verdict: {verdict.text}", f"bold {style}")]
