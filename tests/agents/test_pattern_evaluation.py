"""The evaluation as a whole: it sees no future, finds skill that is there, and claims none that is not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from agents.cli import main
from agents.config import PatternSection
from agents.data.dataset import Dataset
from agents.data.synthetic import synthetic_csv
from agents.evaluation import evaluation, skill, walk
from agents.evaluation.evaluation import Evaluation, Plan, as_dict, block_dates, evaluate
from agents.evaluation.verdict import judge
from agents.trader.patterns import PatternSearch
from dtw.library import WindowLibrary
from protocol.errors import RunFailure, UsageError
from tests.oracles.agent_examples import content, synthetic, table, with_log_closes
from tests.oracles.source_tree import ROOT

Floats = NDArray[np.float64]

SECTION = PatternSection(window=16, band=2, neighbours=4, horizon=5, exclusion=3)
PLAN = Plan(SECTION, step=5, last=None, cost_bps=5.0, seed=7)
DATA = synthetic(bars=900)
BARS = [80, 200, 333, 600, 894]


def evaluated(data: Dataset, **changes: object) -> Evaluation:
    return evaluate(data, dataclasses.replace(PLAN, **changes), 1, lambda _: None)  # type: ignore[arg-type]


# --- no look-ahead ---------------------------------------------------------------------------------------------------


def honest(data: Dataset, bar: int) -> Floats:
    return walk.forecasts(data, SECTION, [bar], 1, lambda _: None)


def majority(data: Dataset, bar: int) -> Floats:
    return skill.past_majority(data.log_closes, SECTION.horizon, np.array([bar]))


def tomorrow(data: Dataset, bar: int) -> Floats:
    """The plainest leak: a price after the bar."""
    return data.log_closes[bar + 1] - data.log_closes[bar]


def whole_sample(data: Dataset, bar: int) -> Floats:
    """A common leak: scaled by what is known only at the end."""
    return (data.log_closes[bar] - data.log_closes.mean(axis=0)) / data.log_closes.std(axis=0)


def analogues_up_to_the_present(data: Dataset, bar: int) -> Floats:
    """The leak of analogue forecasting: windows whose outcome is not over yet."""
    closes, found = data.log_closes, []
    for column in range(len(data.symbols)):
        query = closes[bar - SECTION.window + 1 : bar + 1, column]
        library = WindowLibrary(closes[:, column], SECTION.window)
        starts = library.nearest(query, 4, SECTION.band, bar - SECTION.window).starts
        ends = starts + SECTION.window - 1
        found.append(np.mean(closes[ends + SECTION.horizon, column] - closes[ends, column]))
    return np.array(found)


@pytest.mark.parametrize("forecaster", [honest, majority])
def test_forecasts_stay_the_same_to_the_last_bit_when_the_future_is_replaced(forecaster: walk.Forecaster) -> None:
    assert walk.bars_that_see_the_future(forecaster, DATA, BARS, np.random.default_rng(1)) == []


@pytest.mark.parametrize("leak", [tomorrow, whole_sample, analogues_up_to_the_present])
def test_a_forecaster_that_leaks_is_caught_at_every_bar(leak: walk.Forecaster) -> None:
    assert walk.bars_that_see_the_future(leak, DATA, BARS, np.random.default_rng(1)) == BARS


def test_another_future_leaves_the_past_alone() -> None:
    other = walk.with_another_future(DATA, 300, np.random.default_rng(2))
    for name in ("closes", "log_closes"):
        before, after = getattr(DATA, name), getattr(other, name)
        assert np.array_equal(before[:301], after[:301])
        assert (before[301:] != after[301:]).all()


def test_an_evaluation_that_sees_the_future_fails_instead_of_reporting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skill, "past_majority", lambda closes, horizon, bars: closes[bars + 1])
    with pytest.raises(RunFailure, match="depends on later prices"):
        evaluated(DATA)


# --- the code that trades --------------------------------------------------------------------------------------------


def test_forecasts_are_those_of_the_traders_search() -> None:
    found = walk.forecasts(DATA, SECTION, BARS, 1, lambda _: None)
    search, symbols = PatternSearch(DATA, SECTION, "lanes"), [0, 1, 2]
    for row, bar in enumerate(BARS):
        for each in search.forecasts(symbols, bar, search.neighbours(bar, symbols)):
            assert found[row, each.symbol] == each.forecast


def test_threads_change_nothing_and_progress_adds_up() -> None:
    bars, steps = np.arange(80, 880, 10), list[int]()
    alone = walk.forecasts(DATA, SECTION, bars, 1, lambda _: None)
    assert np.array_equal(walk.forecasts(DATA, SECTION, bars, 3, steps.append), alone)
    assert sum(steps) == len(bars)


@pytest.mark.parametrize("exclusion", [0, 1, 5])
def test_from_the_first_bar_on_there_are_as_many_analogues_as_asked_for(exclusion: int) -> None:
    section = PatternSection(window=16, band=2, neighbours=6, horizon=5, exclusion=exclusion)
    first = walk.first_bar(section)
    search = PatternSearch(DATA, section, "lanes")
    assert [len(found.starts) for found in search.neighbours(first, [0, 1, 2])] == [6, 6, 6]


def test_every_forecast_has_an_outcome_and_last_takes_the_last_of_them() -> None:
    bars = walk.query_bars(DATA, SECTION, 1, None)
    assert (bars[0], bars[-1]) == (walk.first_bar(SECTION), DATA.bars - 1 - SECTION.horizon)
    outcomes = walk.realised(DATA, SECTION.horizon, bars)
    assert np.array_equal(outcomes[-1], DATA.log_closes[-1] - DATA.log_closes[-1 - SECTION.horizon])
    assert np.array_equal(walk.query_bars(DATA, SECTION, 1, 100), bars[-100:])
    with pytest.raises(UsageError, match="29 forecasts a symbol"):
        walk.query_bars(DATA, SECTION, 1, 29)


# --- the verdict -----------------------------------------------------------------------------------------------------


def planted(seed: int, bars: int = 1_600) -> Dataset:
    """Two shapes that come again and again, one followed by a rise, the other by a fall, with noise around them."""
    rng = np.random.default_rng(seed)
    shapes = rng.normal(0, 0.012, (2, 16))
    shapes -= shapes.mean(axis=1, keepdims=True)
    columns = []
    for _ in range(3):
        steps: list[float] = []
        while len(steps) < bars:
            which = rng.integers(2)
            move = np.full(6, 0.008 if which else -0.008)
            steps += [*shapes[which], *move, *rng.normal(0, 0.004, rng.integers(1, 6))]
        columns.append(np.cumsum(steps[:bars] + rng.normal(0, 0.002, bars)))
    return matching(np.log(100) + np.column_stack(columns))


def matching(log_closes: Floats) -> Dataset:
    return with_log_closes(synthetic(bars=len(log_closes)), log_closes)


def random_walk(seed: int, bars: int = 900, drift: float = 0.0) -> Dataset:
    steps = np.random.default_rng(seed).normal(drift, 0.01, (bars, 3))
    return matching(np.log(100) + np.cumsum(steps, axis=0))


@pytest.mark.parametrize("seed", range(3))
def test_planted_skill_is_found(seed: int) -> None:
    found = evaluated(planted(seed), step=2)
    assert found.verdict.skill is True
    assert found.verdict.text.startswith("skill shown")
    assert found.pooled.net_bps_minus["always_long"].side == 1  # type: ignore[union-attr]


@pytest.mark.parametrize("seed", range(10))
def test_a_random_walk_shows_no_skill(seed: int) -> None:
    found = evaluated(random_walk(seed))
    assert found.verdict.skill is False
    assert found.verdict.text.startswith("no skill shown: the interval of")


@pytest.mark.soak
def test_false_alarms_are_no_more_frequent_than_the_intervals_promise() -> None:
    alarms, beside = 0, 0
    for seed in range(100, 400):
        found = evaluated(random_walk(seed))
        direction = found.pooled.hit_rate_minus["majority"]
        assert direction is not None
        beside += direction.side != 0
        alarms += found.verdict.skill is True
    assert 6 <= beside <= 27, "5 % of 300 are 15"
    assert alarms <= 15, "skill needs two intervals above 0, of which each is there by chance in 2.5 %"


def test_drift_makes_hits_and_money_but_no_skill() -> None:
    found = evaluated(random_walk(1, drift=0.006))
    rate, money = found.pooled.hit_rate["dtw"], found.pooled.net_bps["dtw"]
    assert rate is not None
    assert money is not None
    assert rate.low > 0.6
    assert money.low > 0
    assert found.verdict.skill is False
    assert found.pooled.gross_bps["timing"].side == 0  # type: ignore[union-attr]


def test_warping_that_is_off_differs_from_euclidean_in_nothing() -> None:
    found = evaluated(DATA, section=PatternSection(window=16, band=0, neighbours=4, horizon=5, exclusion=3))
    difference = found.pooled.hit_rate_minus["euclidean"]
    assert difference is not None
    assert (difference.low, difference.high) == (0, 0)


def test_with_few_blocks_there_are_figures_but_no_verdict() -> None:
    found = evaluated(DATA, last=170)
    assert found.blocks < 10
    assert found.verdict.skill is None
    assert "no verdict" in found.verdict.text
    assert found.pooled.hit_rate["dtw"] is not None


def test_one_sign_of_skill_is_not_enough() -> None:
    found = evaluated(planted(0), step=2)
    for group, name in (("hit_rate_minus", "majority"), ("rank_ic", "dtw")):
        kept = getattr(found.pooled, group)
        weak = dataclasses.replace(kept[name], low=-0.01)
        half = dataclasses.replace(found.pooled, **{group: {**kept, name: weak}})
        verdict = judge(half, found.symbols, found.blocks)
        assert verdict.skill is False
        assert "contains 0" in verdict.text


def test_blocks_are_as_long_as_queries_overlap() -> None:
    assert block_dates(SECTION, step=1, dates=1_000) == SECTION.window + SECTION.horizon
    assert block_dates(SECTION, step=5, dates=1_000) * 5 >= SECTION.window + SECTION.horizon
    assert block_dates(SECTION, step=100, dates=1_000) == 10


def test_overlapping_horizons_count_for_less_and_are_traded_once() -> None:
    dense = evaluated(DATA, step=1)
    sparse = evaluated(DATA, step=5)
    assert dense.symbols[0].effective == pytest.approx(sparse.symbols[0].effective, rel=0.02)
    assert dense.pooled.trades == sparse.pooled.trades
    assert dense.pooled.effective <= dense.pooled.non_overlapping < dense.pooled.forecasts / 4


def test_prices_that_never_move_are_no_verdict_and_no_crash() -> None:
    found = evaluated(matching(np.full((900, 3), np.log(50.0))))
    assert found.verdict.skill is None
    printed = json.dumps(as_dict(found), allow_nan=False)
    assert json.loads(printed)["pooled"]["hit_rate"]["dtw"] is None


# --- the command -----------------------------------------------------------------------------------------------------

SMALL = ["--window", "16", "--band", "2", "--neighbours", "4", "--exclusion", "3"]


@pytest.fixture
def prices(tmp_path: Path) -> str:
    path = tmp_path / "prices.csv"
    path.write_bytes(synthetic_csv(5, 3, 700))
    return str(path)


def run(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["pattern", "evaluate", *arguments])
    captured = capsys.readouterr()
    return int(ended.value.code or 0), captured.out, captured.err


def test_json_is_one_object_that_only_the_clock_changes(prices: str, capsys: pytest.CaptureFixture[str]) -> None:
    found = []
    for threads in ("1", "2"):
        code, out, _ = run(["--data", prices, *SMALL, "--json", "--threads", threads], capsys)
        assert code == 0
        found.append(json.loads(out))
    for each in found:
        assert each.pop("date").endswith("+00:00")
        assert each.pop("seconds") > 0
        assert each.pop("threads") in (1, 2)
    assert found[0] == found[1]
    assert set(found[0]["symbols"]) == {"SYN00", "SYN01", "SYN02"}
    assert found[0]["sampling"]["step"] == found[0]["pattern"]["horizon"], "the default step"
    rate = found[0]["pooled"]["hit_rate"]["dtw"]
    assert rate["low"] <= rate["value"] <= rate["high"]
    assert found[0]["look_ahead"]["forecasts_changed"] == 0


def test_the_table_lines_up_and_ends_with_the_verdict(prices: str, capsys: pytest.CaptureFixture[str]) -> None:
    symbols = ["--symbol", "SYN02", "--symbol", "SYN00", "--symbol", "SYN02"]
    code, out, _ = run(["--data", prices, *SMALL, *symbols], capsys)
    assert code == 0
    lines = out.splitlines()
    assert "prices.csv" in lines[0]
    assert "symbols 2," in lines[0]
    assert any(line.startswith("verdict: ") for line in lines[-3:])
    rows = [line for line in lines if line.startswith(("symbol ", "SYN", "all "))]
    assert [row.split()[0] for row in rows] == ["symbol", "SYN02", "SYN00", "all"]
    assert len({len(row) for row in rows}) == 1
    assert max(len(line) for line in lines) <= 120


def test_the_default_step_follows_the_horizon(prices: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(["--data", prices, *SMALL, "--horizon", "8", "--last", "400", "--json"], capsys)
    found = json.loads(out)
    assert (found["sampling"]["step"], found["sampling"]["dates"]) == (8, 50)


BAD = {
    "--symbol MOON": ("--symbol MOON", "SYN00, SYN01, SYN02"),
    "--window 4": ("--window 4", ">= 8", "--help"),
    "--window 1025": ("--window 1025", "<= 1024", "--help"),
    "--horizon 0": ("--horizon 0", ">= 1", "--help"),
    "--neighbours 0": ("--neighbours 0", ">= 1", "--help"),
    "--exclusion -1": ("--exclusion -1", ">= 0", "--help"),
    "--band -1": ("--band -1", ">= 0", "--help"),
    "--window 16 --band 16": ("--band 16", "window of 16", "at most 15"),
    "--window 600": ("prices.csv: 0 forecasts a symbol", "--window"),
    "--last 100": ("prices.csv: 20 forecasts a symbol", "raise --last"),
    "--step 0": ("--step 0", "between 1 and"),
    f"--step {10**30}": ("--step", "between 1 and"),
    "--last 0": ("--last 0", "between 1 and"),
    "--threads 0": ("--threads 0", "between 1 and"),
    "--cost-bps nan": ("--cost-bps nan", "between 0 and"),
    "--cost-bps -1": ("--cost-bps -1", "between 0 and"),
    "--seed -1": ("--seed -1", "from 0"),
    "--data moon": ("--data moon", "us-large-caps, synthetic", "CSV file"),
    "--data none.csv": ("--data none.csv", "no such file"),
}


@pytest.mark.parametrize("arguments", BAD)
def test_bad_input_is_one_line_with_the_thing_and_the_mend(
    arguments: str, prices: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(["--data", prices, *arguments.split()], capsys)
    assert code == 2
    assert out == ""
    assert err.startswith("error: ")
    assert len(err.splitlines()) == 1
    for words in BAD[arguments]:
        assert words in err


def test_a_table_of_ones_own_that_is_too_short_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "short.csv"
    path.write_bytes(content(table()))
    code, _, err = run(["--data", str(path)], capsys)
    assert code == 2
    assert "short.csv: 2 forecasts a symbol, from bar 195 of 210 on, are too few" in err


def test_the_page_quotes_the_committed_run() -> None:
    committed = json.loads((ROOT / "docs/benchmarks/pattern-skill.json").read_text())
    page = " ".join((ROOT / "docs/pattern-skill.md").read_text().split())
    for line in (committed["verdict"]["text"], *committed["verdict"]["reasons"]):
        assert line in page
    for name in ("dtw", "majority"):
        assert f"{committed['pooled']['hit_rate'][name]['value']:.3f}" in page


def test_every_evaluation_checks_several_bars() -> None:
    found = evaluated(DATA)
    assert len(set(found.bars_checked)) == evaluation.BARS_CHECKED
    assert all(found.first <= bar <= found.last for bar in found.bars_checked)
