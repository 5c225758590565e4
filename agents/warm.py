"""Compiled kernels before the first agent starts: seen once per machine and version, with a progress bar."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from protocol.errors import RunFailure


def warm_with_progress(console: Console, everything: bool = False) -> dict[str, Any]:
    """Make the agents' kernels, or all, ready in this process; compiles what the disk cache does not have."""
    from dtw.warmup import warmup

    columns = (TextColumn("compiling kernels"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("", total=None)

        def step(ready: int, total: int, name: str) -> None:
            progress.update(task, completed=ready, total=total, description=name)

        report = warmup(step, everything=everything)
    return {"kernels": len(report.kernels), "seconds": report.seconds, "compiled": report.compiled}


def ensure_warm(marker_dir: Path) -> None:
    """Compile in a process of its own unless this was done before for the same code, versions and processor.

    The marker only saves the supervisor an import of the compiler; agents load or compile what they need regardless.
    """
    marker = marker_dir / f"kernels-{_fingerprint()}"
    if marker.exists():
        return
    done = subprocess.run([sys.executable, "-m", "agents.cli", "warmup"], stdout=subprocess.DEVNULL, check=False)
    if done.returncode != 0:
        raise RunFailure("compiling the DTW kernels failed; run `swarm warmup` to see why")
    marker_dir.mkdir(parents=True, exist_ok=True)
    marker.touch()


def _fingerprint() -> str:
    hasher = hashlib.sha256()
    for name in ("numba", "llvmlite", "numpy"):
        hasher.update(version(name).encode())
    hasher.update(sys.version.encode())
    hasher.update(_processor().encode())
    for source in sorted((Path(__file__).parent.parent / "dtw").glob("*.py")):
        hasher.update(source.read_bytes())
    return hasher.hexdigest()[:16]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return "".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))
