"""Plots of a measured lane, as SVG: latency against throughput, and what more nodes cost."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from profiling.bench.plots import COLOURS, Row, write_figures

BESIDE: Final = re.compile(r"(.+), (\d+) in flight, (p50|throughput)")
NODES: Final = re.compile(r"(\d+) nodes, (?:1|256) in flight, (p50|throughput)")


def write_plots(found: dict[str, Any], directory: Path) -> list[Path]:
    """``lane-load.svg`` and ``lane-nodes.svg``. Raises ``UsageError`` without matplotlib."""
    return write_figures(found["rows"], directory, {"lane-load": _load, "lane-nodes": _nodes})


def _load(rows: list[Row], axes: Any) -> bool:
    """Median latency over throughput at 1, 64 and 256 writes in flight, one line a side; both axes logarithmic."""
    points: dict[str, dict[int, dict[str, float]]] = {}
    for row in rows:
        match = BESIDE.fullmatch(row["case"])
        if match and row["peer"] != "3 nodes":
            side, in_flight, what = match.group(1), int(match.group(2)), match.group(3)
            for name, value in ((side, row["ours"]), (row["peer"], row["peer_value"])):
                points.setdefault(name, {}).setdefault(in_flight, {})[what] = value
    for colour, (name, line) in zip(COLOURS, points.items(), strict=False):
        rates, times = zip(*((each["throughput"], each["p50"]) for _, each in sorted(line.items())), strict=True)
        axes.plot(rates, times, marker="o", color=colour, label=name)
    axes.set(xscale="log", yscale="log", xlabel="durable writes a second", ylabel="latency, us, median")
    axes.legend(fontsize=7, frameon=False)
    return bool(points)


def _nodes(rows: list[Row], axes: Any) -> bool:
    """Median latency of one write at a time by the number of nodes."""
    matches = [(NODES.fullmatch(row["case"]), row) for row in rows]
    line = sorted((int(match.group(1)), row["ours"]) for match, row in matches if match and match.group(2) == "p50")
    if line:
        nodes, times = zip(*line, strict=True)
        axes.plot(nodes, times, marker="o", color=COLOURS[0])
        axes.set(xlabel="nodes", ylabel="latency of one write at a time, us, median", xticks=nodes)
        axes.set_ylim(bottom=0)
    return bool(line)
