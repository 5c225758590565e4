"""Plots of a measured result, as SVG: the peers by length, the ladder, FastDTW's error against its time."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from profiling.bench.plots import COLOURS, Row, write_figures

BATCH: Final = re.compile(r"1 x N, length (\d+), no band, float32, \d+ threads")
LADDER: Final = "ladder: "
APPROXIMATE: Final = re.compile(r"(FastDTW radius \d+|exact within a band of \d+), length ([\d,]+)(: excess distance)?")


def write_plots(found: dict[str, Any], directory: Path) -> list[Path]:
    """``dtw-peers.svg``, ``dtw-ladder.svg`` and ``dtw-fastdtw.svg`` of what the result has rows for.

    Raises ``UsageError`` where the plotting library is not installed.
    """
    figures = {"dtw-peers": _peers, "dtw-ladder": _ladder, "dtw-fastdtw": _fastdtw}
    return write_figures(found["rows"], directory, figures)


def _peers(rows: list[Row], axes: Any) -> bool:
    """Microseconds per pair by length; both axes logarithmic."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        match = BATCH.fullmatch(row["case"])
        if match:
            length = int(match.group(1))
            lines.setdefault("ours", []).append((length, row["ours"]))
            lines.setdefault(row["peer"], []).append((length, row["peer_value"]))
    if not lines:
        return False
    for colour, (name, points) in zip(COLOURS, lines.items(), strict=False):
        lengths, times = zip(*sorted(dict(points).items()), strict=True)
        axes.plot(lengths, times, marker="o", color=colour, label=name, linewidth=2.5 if name == "ours" else 1.2)
    axes.set(xscale="log", yscale="log", xlabel="length", ylabel="microseconds per pair")
    axes.set_title("One query against many rows, float32, no band, all cores")
    axes.set_xticks([64, 128, 256, 1024], ["64", "128", "256", "1,024"])
    axes.legend(frameon=False)
    return True


def _ladder(rows: list[Row], axes: Any) -> bool:
    """A bar per rung, from the plain loop down, on a logarithmic axis."""
    rungs = [row for row in rows if row["case"].startswith(LADDER) and row["case"] != "ladder: all of it"]
    if not rungs:
        return False
    names = [rungs[0]["peer"], *(row["case"].removeprefix(LADDER) for row in rungs)]
    times = [rungs[0]["peer_value"], *(row["ours"] for row in rungs)]
    bars = axes.barh(names, times, color=COLOURS[1])
    axes.bar_label(bars, [f"{time:,.0f} µs" if time >= 100 else f"{time:.3g} µs" for time in times], padding=4)
    axes.invert_yaxis()
    axes.set(xscale="log", xlabel="microseconds per pair of length 128", xlim=(min(times) / 2, max(times) * 6))
    axes.set_title("The ladder, rung by rung")
    return True


def _fastdtw(rows: list[Row], axes: Any) -> bool:
    """Each way to an approximate or banded distance: its time and how far above the exact one it comes out."""
    errors: dict[tuple[str, str], float] = {}
    times: dict[tuple[str, str], float] = {}
    for row in rows:
        match = APPROXIMATE.fullmatch(row["case"])
        if match:
            key = (match.group(2), match.group(1).replace("exact within a ", "").replace("FastDTW ", ""))
            (errors if match.group(3) else times)[key] = row["ours"]
    if not errors:
        return False
    for colour, length in zip(COLOURS, dict.fromkeys(length for length, _ in errors), strict=False):
        points = [(times[key], errors[key], key[1]) for key in errors if key[0] == length and key in times]
        axes.plot([t for t, _, _ in points], [e for _, e, _ in points], "o", color=colour, label=f"length {length}")
        for time, error, name in points:
            axes.annotate(name, (time, error), (4, 5), textcoords="offset points", fontsize=7)
    axes.set_yscale("symlog", linthresh=0.01)
    axes.set(xscale="log", xlabel="milliseconds", ylabel="excess distance, %", ylim=(-0.003, 1000))
    axes.set_title("FastDTW and exact DTW within a band: error against time")
    axes.legend(frameon=False)
    return True
