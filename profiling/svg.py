"""The stage shares as one stacked bar in SVG, written by hand: the same report gives the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final
from xml.sax.saxutils import escape

from profiling.share import tenths_adding_up
from profiling.stages import Stage

WIDTH: Final = 800
MARGIN: Final = 16
BAR_TOP: Final = 40
BAR_HEIGHT: Final = 44
LEGEND_TOP: Final = 112
LEGEND_ROW: Final = 22
LEGEND_COLUMNS: Final = 2
LABEL_SHARE_MIN: Final = 6.0
"""Narrower segments carry their figure in the legend only, because the text would run over its neighbours."""

# Okabe and Ito's palette, told apart by colour-blind readers too; with the colour of the text that is legible on each.
COLOURS: Final = {
    Stage.MARKET_DATA.label: ("#999999", "#000000"),
    Stage.PATTERN_MATCHING.label: ("#e69f00", "#000000"),
    Stage.RISK_CALCULATION.label: ("#f0e442", "#000000"),
    Stage.STRATEGY_SIGNAL.label: ("#009e73", "#ffffff"),
    Stage.COORDINATION.label: ("#56b4e9", "#000000"),
    Stage.CONSENSUS.label: ("#0072b2", "#ffffff"),
    Stage.ORDER_EXECUTION.label: ("#d55e00", "#ffffff"),
    Stage.ORDER_CONFIRMATION.label: ("#cc79a7", "#000000"),
}


def stage_bar_svg(stages: Sequence[dict[str, Any]], title: str) -> str:
    """An SVG document of the stage rows (``stage``, ``share_percent``, ``mean_ms``), in the order given."""
    shares = tenths_adding_up([row["share_percent"] for row in stages])
    rows = -(-len(stages) // LEGEND_COLUMNS)
    height = LEGEND_TOP + rows * LEGEND_ROW + MARGIN // 2
    summary = ", ".join(f"{row['stage']} {share:.1f} %" for row, share in zip(stages, shares, strict=True))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f"<desc>{escape(summary)}</desc>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
        f'<text x="{MARGIN}" y="26" font-size="16" font-weight="bold" fill="#000000">{escape(title)}</text>',
        *_segments(stages, shares),
        *_legend(stages, shares, rows),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _segments(stages: Sequence[dict[str, Any]], shares: Sequence[float]) -> list[str]:
    scale = (WIDTH - 2 * MARGIN) / 100.0
    lines = []
    left = float(MARGIN)
    for row, share in zip(stages, shares, strict=True):
        width = row["share_percent"] * scale
        fill, ink = COLOURS[row["stage"]]
        if width > 0:
            lines.append(
                f'<rect x="{left:.2f}" y="{BAR_TOP}" width="{width:.2f}" height="{BAR_HEIGHT}" fill="{fill}"/>'
            )
        if share >= LABEL_SHARE_MIN:
            middle = f'x="{left + width / 2:.2f}" y="{BAR_TOP + BAR_HEIGHT / 2 + 5:.0f}"'
            lines.append(f'<text {middle} text-anchor="middle" fill="{ink}">{share:.1f} %</text>')
        left += width
    return lines


def _legend(stages: Sequence[dict[str, Any]], shares: Sequence[float], rows: int) -> list[str]:
    lines = []
    column_width = (WIDTH - 2 * MARGIN) // LEGEND_COLUMNS
    for index, (row, share) in enumerate(zip(stages, shares, strict=True)):
        left = MARGIN + index // rows * column_width
        base = LEGEND_TOP + index % rows * LEGEND_ROW
        fill, _ = COLOURS[row["stage"]]
        label = f"{row['stage']}  {share:.1f} %  ({row['mean_ms']:.3f} ms)"
        lines.append(f'<rect x="{left}" y="{base - 11}" width="12" height="12" fill="{fill}"/>')
        lines.append(f'<text x="{left + 20}" y="{base}" fill="#000000">{escape(label)}</text>')
    return lines
