"""Where tables go: as wide as the terminal, and never narrower than they need when it is not one."""

from __future__ import annotations

from typing import Final

from rich.console import Console, RenderableType

WIDTH_WITHOUT_TERMINAL: Final = 120


def show(view: RenderableType) -> None:
    """Print a table or a group of them on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH_WITHOUT_TERMINAL)
    console.print(view)
