"""What a person sees, against golden files.

After a wanted change run this file with ``REWRITE_GOLDEN=1`` and read the difference before keeping it.
"""

from __future__ import annotations

import os
import xml.etree.ElementTree
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiling.compare import compare_reports
from profiling.render import comparison_view, render_text, report_view, stage_table
from profiling.share import tenths_adding_up
from profiling.svg import stage_bar_svg
from tests.oracles.profiling_traces import example_report

GOLDEN = Path(__file__).parent / "golden"


def check_golden(name: str, actual: str) -> None:
    path = GOLDEN / name
    if os.environ.get("REWRITE_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(actual, encoding="utf-8")
    assert actual == path.read_text(encoding="utf-8")


def test_a_clean_report() -> None:
    check_golden("report.txt", render_text(report_view(example_report())))


def test_a_report_with_losses_says_so() -> None:
    report = example_report() | {
        "incomplete_cycles": 3,
        "incomplete_reasons": {"consensus": 2, "start_lost": 1},
        "loss": {
            "written": 90_000,
            "overwritten": 1200,
            "torn": 1,
            "other_boot": 0,
            "unknown_operations": 0,
            "unreadable": [{"path": "runs/7/risk-1/trace-2.ring", "reason": "0 bytes, shorter than a header of 64"}],
        },
    }
    report["orders"] |= {"unknown": 2, "lost": 1}
    report["portfolio"]["positions"] = {}
    check_golden("report_with_losses.txt", render_text(report_view(report)))


def test_a_comparison() -> None:
    a, b = example_report(), example_report()
    a["run"] |= {"id": "run-6", "mode": "baseline"}
    for row in a["stages"]:
        row["mean_ms"] *= 6
    a["cycle"] = {"mean_ms": 120.0, "p50_ms": 117.0, "p99_ms": 300.0, "per_s": 8.125}
    b["run"]["seed"] = 8
    comparison = compare_reports(a, b)
    comparison["stages"][5] |= {"ratio_low": 5.4321, "ratio_high": 6.789}
    comparison["cycle"] |= {"ratio_low": 5.5, "ratio_high": 6.5}
    check_golden("comparison.txt", render_text(comparison_view(comparison)))


def test_names_are_shown_as_they_are_not_as_markup() -> None:
    report = example_report()
    report["run"]["id"] = "[bold]run[/bold]"
    report["operations"][0]["agent"] = "[red]x"
    text = render_text(report_view(report))
    assert "[bold]run[/bold]" in text and "[red]x" in text


@pytest.mark.parametrize("width", [80, 120, 200])
def test_columns_line_up_and_nothing_is_cut_off(width: int) -> None:
    lines = render_text(stage_table(example_report()), width).splitlines()
    assert max(map(len, lines)) <= width and "…" not in "".join(lines)
    right_edge = lines[1].index("share %") + len("share %")
    rows = [line for line in lines[3:] if line.strip()]
    assert len(rows) == 9
    for row in rows:
        assert row[right_edge - 1].isdigit() and row[right_edge : right_edge + 2].strip() == ""


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8).filter(lambda parts: sum(parts) > 0.01))
def test_printed_shares_add_up_to_a_hundred(parts: list[float]) -> None:
    shares = [100 * part / sum(parts) for part in parts]
    printed = tenths_adding_up(shares)
    assert round(sum(printed), 6) == 100.0
    assert all(abs(printed - share) < 0.1 + 1e-9 for printed, share in zip(printed, shares, strict=True))


def test_shares_of_nothing_stay_nothing() -> None:
    assert tenths_adding_up([0.0] * 8) == [0.0] * 8
    assert tenths_adding_up([]) == []


def test_the_picture_is_the_same_bytes_every_time() -> None:
    stages = example_report()["stages"]
    picture = stage_bar_svg(stages, "One cycle, 20 ms <optimized>")
    assert picture == stage_bar_svg(stages, "One cycle, 20 ms <optimized>")
    check_golden("stages.svg", picture)
    root = xml.etree.ElementTree.fromstring(picture)
    name = "{http://www.w3.org/2000/svg}"
    widths = [float(rect.attrib["width"]) for rect in root.iter(f"{name}rect") if rect.attrib.get("height") == "44"]
    assert sum(widths) == pytest.approx(768, abs=0.05)
    assert len([text for text in root.iter(f"{name}text") if "ms)" in (text.text or "")]) == 8
