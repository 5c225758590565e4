"""The plot of a measured storage result, as SVG: a commit by its size."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from profiling.bench.plots import COLOURS, Row, write_figures

COMMIT: Final = re.compile(r"commit of (\d+), (p50|p99)")
LINES: Final = {"p50": "solid", "p99": "dotted"}


def write_plots(found: dict[str, Any], directory: Path) -> list[Path]:
    """``storage-commits.svg``. Raises ``UsageError`` without matplotlib."""
    return write_figures(found["rows"], directory, {"storage-commits": _commits})


def _commits(rows: list[Row], axes: Any) -> bool:
    """Microseconds by entries in a commit; the median solid, p99 dotted."""
    lines: dict[str, dict[str, dict[int, float]]] = {}
    for row in rows:
        match = COMMIT.fullmatch(row["case"])
        if match:
            group, quantile = int(match.group(1)), match.group(2)
            for name, value in (("ours: SQLite", row["ours"]), (row["peer"], row["peer_value"])):
                lines.setdefault(name, {}).setdefault(quantile, {})[group] = value
    for colour, (name, quantiles) in zip(COLOURS, lines.items(), strict=False):
        for quantile, points in quantiles.items():
            label = name if quantile == "p50" else None
            axes.plot(*zip(*sorted(points.items()), strict=True), marker="o", color=colour, label=label,
                      linestyle=LINES[quantile])  # fmt: skip
    axes.set(
        xscale="log", yscale="log", xlabel="entries of 200 B in a commit", ylabel="commit, us, p50 and p99 (dotted)"
    )
    axes.legend(fontsize=8, frameon=False)
    return bool(lines)
