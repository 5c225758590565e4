"""What the plots of all benchmarks share: the look, and figures written as SVG."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from protocol.errors import UsageError

Row = dict[str, Any]
Draw = Callable[[list[Row], Any], bool]
"""Draws rows on axes; false where there is nothing to draw."""

# Okabe and Ito's palette, told apart by colour-blind readers too.
COLOURS: Final = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999")
STYLE: Final[Any] = {"svg.hashsalt": "swarm", "font.size": 10, "axes.spines.top": False, "axes.spines.right": False}


def plotting(directory: Path) -> Any:
    """The plotting library, and a directory that exists from now on.

    Raises ``UsageError`` where the library is not installed or the directory cannot be made.
    """
    try:
        import matplotlib
    except ImportError:
        raise UsageError("plots need matplotlib, which is not installed; run `make setup`") from None
    matplotlib.use("svg")
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{directory} cannot be made ({error.strerror}); choose another folder for plots") from None
    return matplotlib


def write_figures(rows: list[Row], directory: Path, figures: Mapping[str, Draw]) -> list[Path]:
    """One SVG file for each name that has something to draw; the same rows give the same bytes.

    Raises ``UsageError`` as ``plotting`` does.
    """
    matplotlib = plotting(directory)
    written = []
    with matplotlib.rc_context(STYLE):
        from matplotlib.figure import Figure

        for name, draw in figures.items():
            figure = Figure(figsize=(8, 4.2), layout="constrained")
            if draw(rows, figure.add_subplot()):
                path = directory / f"{name}.svg"
                figure.savefig(path, metadata={"Date": None})
                written.append(path)
    return written
