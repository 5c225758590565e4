"""Reports and comparisons as tables for a terminal. The only module of this room that needs ``rich``."""

from __future__ import annotations

import io
from typing import Any, Final

from rich import box
from rich.bar import Bar
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from profiling.share import tenths_adding_up

BAR_CELLS_MAX: Final = 20
TROUBLE: Final = ("rejected", "unknown", "duplicate", "lost")


def report_view(report: dict[str, Any], operation_limit: int = 12) -> Group:
    """The whole report: summary, stage table with its remarks, and the operations with the largest totals."""
    stages: list[RenderableType] = [stage_table(report), *_remarks(report)]
    return Group(summary_table(report), "", *stages, "", operation_table(report, operation_limit))


def comparison_view(comparison: dict[str, Any]) -> Group:
    """The comparison and, if the runs differ in more than their mode, a warning that says in what."""
    lines: list[RenderableType] = [comparison_table(comparison)]
    if comparison["differences"]:
        names = ", ".join(comparison["differences"])
        lines.append(Text(f"The runs also differ in {names}: the ratios do not speak of the code alone.", "yellow"))
    return Group(*lines)


def render_text(view: RenderableType, width: int = 100) -> str:
    """The view as plain text without colour, lines stripped of trailing blanks."""
    console = Console(file=io.StringIO(), width=width, color_system=None, force_terminal=False, legacy_windows=False)
    with console.capture() as capture:
        console.print(view)
    return "".join(f"{line.rstrip()}\n" for line in capture.get().splitlines())


def stage_table(report: dict[str, Any]) -> Table:
    """The eight stages with their share of the cycle time, and the whole cycle as the last row."""
    table = _table("Stages")
    for heading in ("count", "total ms", "mean ms", "p50 ms", "p99 ms", "share %"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("", max_width=BAR_CELLS_MAX)  # the only column that a narrow terminal shrinks
    stages, cycle = report["stages"], report["cycle"]
    shares = tenths_adding_up([row["share_percent"] for row in stages])
    for row, share in zip(stages, shares, strict=True):
        bar = Bar(100.0, 0.0, row["share_percent"], color="cyan")
        table.add_row(row["stage"], f"{row['count']:,}", *_times(row, "total_ms"), f"{share:.1f}", bar)
    table.add_section()
    total_ms = sum(row["total_ms"] for row in stages)
    count = f"{cycle['count']:,}" if "count" in cycle else ""
    whole = _times({**cycle, "total_ms": total_ms}, "total_ms")
    table.add_row("cycle", count, *whole, f"{sum(shares):.1f}", "", style="bold")
    return table


def operation_table(report: dict[str, Any], limit: int = 12) -> Table:
    """The operations with the largest totals. They overlap, so they do not add up to the cycle."""
    operations = report["operations"]
    shown = operations[:limit]
    table = _table(f"Operations ({len(shown)} of {len(operations)}, overlapping)", "operation")
    table.add_column("stage", no_wrap=True)
    table.add_column("agent", no_wrap=True)
    for heading in ("count", "total ms", "mean ms"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in shown:
        mean_ms = row["total_ms"] / row["count"] if row["count"] else 0.0
        table.add_row(
            row["operation"],
            row["stage"],
            Text(row["agent"]),
            f"{row['count']:,}",
            *_milliseconds(row["total_ms"], mean_ms),
        )
    return table


def comparison_table(comparison: dict[str, Any]) -> Table:
    """Mean times side by side, their ratio a/b and its 95 % interval; the rate of cycles as the last row."""
    table = _table("Comparison")
    for run in ("a", "b"):
        heading = Text(f"{run}: {comparison[run]['id']} ({comparison[run]['mode']}) ms")
        table.add_column(heading, justify="right")
    table.add_column("a/b", justify="right", no_wrap=True)
    table.add_column("95 %", justify="right", no_wrap=True)
    for row in comparison["stages"]:
        table.add_row(row["stage"], *_compared(row))
    table.add_section()
    cycle = comparison["cycle"]
    table.add_row("cycle", *_compared(cycle), style="bold")
    for name in ("p50_ms", "p99_ms"):
        times = _milliseconds(cycle[f"a_{name}"], cycle[f"b_{name}"])
        table.add_row(f"cycle {name.removesuffix('_ms')}", *times, _ratio(cycle[f"{name}_ratio"]), "")
    rates = f"{cycle['a_per_s']:,.1f}", f"{cycle['b_per_s']:,.1f}"
    table.add_row("cycles/s (b/a)", *rates, _ratio(cycle["per_s_ratio"]), "")
    return table


def summary_table(report: dict[str, Any]) -> Table:
    """Run, decisions, orders and portfolio, one line each."""
    run, data = report["run"], report["run"]["data"]
    origin = "synthetic" if data["synthetic"] else f"sha256 {(data['sha256'] or 'unknown')[:12]}"
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    seed = "" if run["seed"] is None else f", seed {run['seed']}"
    table.add_row(
        "run", Text(f"{run['id']}, mode {run['mode']}, {run['cycles']:,} cycles, {len(run['agents'])} agents")
    )
    if run.get("rate_per_s"):
        table.add_row("market", Text(f"{run['rate_per_s']:g} bars a second, {run['late_cycles']:,} taken late"))
    if run.get("network"):
        table.add_row("network", Text(f"impaired: {run['network']}"))
    table.add_row("data", Text(f"{data['name']} ({origin}){seed}"))
    if run.get("windows_searched"):
        refused = 1.0 - run["windows_compared"] / run["windows_searched"]
        text = f"{run['windows_searched']:,} windows searched, {refused:.1%} of them refused by their bounds"
        table.add_row("patterns", Text(text))
    table.add_row("decisions", Text(_decisions(report["decisions"])))
    table.add_row("orders", _orders(report["orders"]))
    portfolio = report["portfolio"]
    pnl = f"realized {portfolio['realized_pnl']:,.2f}, unrealized {portfolio['unrealized_pnl']:,.2f}"
    table.add_row("portfolio", Text(pnl))
    table.add_row("positions", Text(_positions(portfolio["positions"])))
    return table


def _table(title: str, first_column: str = "stage") -> Table:
    table = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True
    )
    table.add_column(first_column, no_wrap=True)
    return table


def _remarks(report: dict[str, Any]) -> list[Text]:
    remarks = []
    stages, cycle = report["stages"], report["cycle"]
    largest = max(stages, key=lambda row: row["share_percent"], default=None)
    if largest is not None and largest["share_percent"] > 0:
        most = f"most of the time, {largest['share_percent']:.1f} %, goes to {largest['stage']}"
        remarks.append(Text(f"{cycle['per_s']:,.1f} cycles/s; {most}."))
    incomplete = report.get("incomplete_cycles", 0)
    if incomplete:
        reasons = ", ".join(f"{name} {count:,}" for name, count in report.get("incomplete_reasons", {}).items())
        remarks.append(Text(f"{incomplete:,} incomplete cycles are not in the table ({reasons}).", "yellow"))
    remarks.extend(_loss_remarks(report.get("loss", {})))
    return remarks


def _loss_remarks(loss: dict[str, Any]) -> list[Text]:
    names = ("overwritten", "torn", "other_boot", "unknown_operations")
    parts = [f"{name.replace('_', ' ')} {loss[name]:,}" for name in names if loss.get(name)]
    remarks = (
        [Text(f"Records missing from {loss['written']:,} written: {', '.join(parts)}.", "yellow")] if parts else []
    )
    remarks += [Text(f"Unreadable: {ring['path']}: {ring['reason']}.", "yellow") for ring in loss.get("unreadable", ())]
    return remarks


def _times(row: dict[str, Any], first: str) -> list[str]:
    return _milliseconds(row[first], row["mean_ms"], row["p50_ms"], row["p99_ms"])


def _milliseconds(*values: float) -> list[str]:
    return [f"{value:,.3f}" for value in values]


def _compared(row: dict[str, Any]) -> list[str | Text]:
    ratio, low, high = row["ratio"], row["ratio_low"], row["ratio_high"]
    style = ""
    if low is not None and low > 1.0:
        style = "green"
    elif high is not None and high < 1.0:
        style = "red"
    interval = "" if low is None else f"{low:.2f} to {high:.2f}"
    return [*_milliseconds(row["a_mean_ms"], row["b_mean_ms"]), Text(_ratio(ratio), style), interval]


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:,.2f}x"


def _decisions(decisions: dict[str, Any]) -> str:
    by_code = ", ".join(f"{code} {count:,}" for code, count in sorted(decisions["by_code"].items()))
    return (
        f"{decisions['proposed']:,} proposed, {decisions['committed']:,} committed "
        f"({decisions['routine']:,} routine, {decisions['critical']:,} critical), "
        f"{decisions['denied']:,} denied" + (f" ({by_code})" if by_code else "")
    )


def _orders(orders: dict[str, Any]) -> Text:
    text = Text(f"{orders['sent']:,} sent, {orders['filled']:,} filled")
    for name in TROUBLE:
        text.append(f", {orders[name]:,} {name}", "red" if orders[name] and name != "rejected" else "")
    return text


def _positions(positions: dict[str, Any]) -> str:
    def one(value: Any) -> str:
        if isinstance(value, dict):
            return " ".join(f"{key} {item}" for key, item in value.items())
        return f"{value:,}"

    return ", ".join(f"{symbol} {one(value)}" for symbol, value in sorted(positions.items())) or "none"
