"""Plots of a measured transport result, as SVG: round trips by way, and what a message costs by batch."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from profiling.bench.plots import COLOURS, Row, write_figures

ROUND_TRIP: Final = re.compile(r"round trip of ([\d,]+) B, p50")
COST: Final = re.compile(r"processor time of a message in batches of (\d+), (.+)")


def write_plots(found: dict[str, Any], directory: Path) -> list[Path]:
    """``transport-round-trips.svg`` and ``transport-batches.svg``. Raises ``UsageError`` without matplotlib."""
    figures = {"transport-round-trips": _round_trips, "transport-batches": _batches}
    return write_figures(found["rows"], directory, figures)


def _round_trips(rows: list[Row], axes: Any) -> bool:
    """Median microseconds by size, one line a way; both axes logarithmic."""
    lines: dict[str, dict[int, float]] = {}
    for row in rows:
        match = ROUND_TRIP.fullmatch(row["case"])
        if match:
            size = int(match.group(1).replace(",", ""))
            lines.setdefault("ours", {})[size] = row["ours"]
            lines.setdefault(row["peer"], {})[size] = row["peer_value"]
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        sizes, times = zip(*sorted(points.items()), strict=True)
        axes.plot(sizes, times, marker="o", color=colour, label=name, linewidth=2.5 if name.startswith("ours") else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="bytes of a message", ylabel="round trip, us, median")
    axes.legend(fontsize=8, frameon=False)
    return bool(lines)


def _batches(rows: list[Row], axes: Any) -> bool:
    """Microseconds of processor time per message, both ends, by messages in a batch."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        match = COST.fullmatch(row["case"])
        if match:
            lines.setdefault(match.group(2), []).append((int(match.group(1)), row["ours"]))
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        batches, costs = zip(*sorted(points), strict=True)
        axes.plot(batches, costs, marker="o", color=colour, label=name)
    axes.set(xlabel="messages in a batch", ylabel="processor time of a message, us, both ends")
    axes.set_ylim(bottom=0)
    axes.legend(fontsize=8, frameon=False)
    return bool(lines)
