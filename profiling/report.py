"""Turn a run's rings into the profile part of its report, and keep each cycle's stage times beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import numpy as np

from profiling.collect import Trace, collect
from profiling.cycles import CycleSamples, Rules, cut_cycles
from profiling.stage_table import cycle_row, operation_rows, stage_rows, unknown_operation_count

SAMPLES_NAME: Final = "cycles.npz"
NO_ORDER_COUNTS: Final[Mapping[int, int]] = MappingProxyType({})


def build_profile(
    trace: Trace,
    *,
    trader_ids: Collection[str],
    executor_ids: Collection[str],
    quorum: int,
    denied_frames: Collection[int] = frozenset(),
    orders_by_cycle: Mapping[int, int] = NO_ORDER_COUNTS,
) -> dict[str, Any]:
    """The profile: ``stages, operations, cycle, loss, incomplete_cycles, incomplete_reasons``. See ``Rules``."""
    rules = Rules(trader_ids, executor_ids, quorum, denied_frames, orders_by_cycle)
    return profile_of(trace, cut_cycles(trace, rules))


def profile_run(
    run_dir: Path,
    *,
    trader_ids: Collection[str],
    executor_ids: Collection[str],
    quorum: int,
    denied_frames: Collection[int] = frozenset(),
    orders_by_cycle: Mapping[int, int] = NO_ORDER_COUNTS,
) -> dict[str, Any]:
    """Collect the rings below ``run_dir``, write ``cycles.npz`` there and return the profile."""
    trace = collect(run_dir)
    samples = cut_cycles(trace, Rules(trader_ids, executor_ids, quorum, denied_frames, orders_by_cycle))
    write_samples(run_dir, samples)
    return profile_of(trace, samples)


def profile_of(trace: Trace, samples: CycleSamples) -> dict[str, Any]:
    """The profile of cycles that are already cut."""
    return {
        "stages": stage_rows(samples),
        "operations": operation_rows(trace),
        "cycle": cycle_row(samples),
        "loss": {**trace.loss_report(), "unknown_operations": unknown_operation_count(trace)},
        "incomplete_cycles": sum(samples.incomplete.values()),
        "incomplete_reasons": samples.incomplete,
    }


def write_samples(run_dir: Path, samples: CycleSamples) -> Path:
    """Write ``cycles.npz`` (arrays as in ``CycleSamples``), whole or not at all."""
    path = run_dir / SAMPLES_NAME
    partial = run_dir / f"{SAMPLES_NAME}.partial"
    with partial.open("wb") as file:
        np.savez_compressed(
            file,
            trace=samples.trace,
            start_ns=samples.start_ns,
            stage_ns=samples.stage_ns,
            passed=samples.passed,
            incomplete_reasons=np.array(list(samples.incomplete), dtype=np.str_),
            incomplete_counts=np.array(list(samples.incomplete.values()), np.int64),
        )
    return partial.replace(path)


def read_samples(run_dir: Path) -> CycleSamples:
    """Read what ``write_samples`` wrote. Raises ``FileNotFoundError``, or ``ValueError`` that says what is wrong."""
    path = run_dir / SAMPLES_NAME
    try:
        # Opened here, because numpy leaves a file that it cannot make sense of open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            counts = zip(arrays["incomplete_reasons"].tolist(), arrays["incomplete_counts"].tolist(), strict=True)
            return CycleSamples(arrays["trace"], arrays["start_ns"], arrays["stage_ns"], arrays["passed"], dict(counts))
    except FileNotFoundError:
        raise
    except (KeyError, ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: not the cycle samples of a run: {error}") from error
