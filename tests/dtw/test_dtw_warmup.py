"""Warm-up compiles all there is, a second process loads it, and the cache directory follows the stated rule."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from dtw import api, cache
from dtw.errors import InvalidArgument
from dtw.library import WindowLibrary
from dtw.warmup import ENTRIES, warmup

ROOT = Path(__file__).parents[2]
SECOND_PROCESS = """
import json, time
from dtw.warmup import ENTRIES, warmup
began = time.process_time()
report = warmup(everything=True)
print(json.dumps([time.process_time() - began, report.compiled, len(report.kernels)]))
"""


def test_progress_counts_up_to_the_total() -> None:
    calls: list[tuple[int, int, str]] = []
    report = warmup(lambda ready, total, name: calls.append((ready, total, name)))
    assert [ready for ready, _, _ in calls] == list(range(1, len(report.kernels) + 1))
    assert {total for _, total, _ in calls} == {len(report.kernels)}
    assert tuple(name for _, _, name in calls) == report.kernels
    assert len(set(report.kernels)) == len(report.kernels)
    assert report.seconds > 0


def test_nothing_is_compiled_after_the_warm_up() -> None:
    warmup(everything=True)
    before = [len(entry.signatures) for entry in ENTRIES]
    series = np.cumsum(np.random.default_rng(0).standard_normal(100))
    for dtype in (np.float32, np.float64):
        library = WindowLibrary(series, 8, dtype)
        for method in ("lanes", "scalar"):
            found = library.nearest(series[-8:], np.int32(3), 1, np.int32(50), 9.0, method, exclusion=np.int16(2))  # type: ignore[arg-type]
        library.nearest(series[-8:], 1, None, 50, threads=2)
        library.verify_nearest(series[-8:], found.starts, found.distances, 1, 50, 2)
        rows = np.lib.stride_tricks.sliding_window_view(series, 9).astype(dtype)
        api.one_to_many(rows[0], rows, 1, 5.0)
        api.one_to_many(rows[0], rows, 1, method="scalar")
        api.pairwise(rows)
        api.nearest(rows[3], rows, 2, threads=2)
        api.nearest(rows[3][:5], rows, 2)
    api.distance(series[:5], series[5:12])
    api.distance(series, series[::-1])
    api.fastdtw(series, series[5:], 2)
    api.search(series[:9], series, 2)
    api.lower_bounds(series[:9], rows.astype(float))
    assert [len(entry.signatures) for entry in ENTRIES] == before


def test_a_second_process_loads_from_the_disk_cache() -> None:
    """Counted in processor seconds, since machines are busy; the first process only makes sure that all is stored."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", SECOND_PROCESS]
    for _ in range(2):
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True, timeout=90
        )
        cpu_seconds, compiled, count = json.loads(done.stdout)
    assert compiled == 0
    assert count == len(warmup(everything=True).kernels)
    assert cpu_seconds < 2.0


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(InvalidArgument):
        warmup(dtypes=(np.float16,))


def test_one_dtype_warms_no_search_in_the_other() -> None:
    report = warmup(dtypes=(np.float32,))
    assert "window search[float32]" in report.kernels
    assert "window search[float64]" not in report.kernels
    assert "distance_pairs[float64]" in report.kernels


def test_a_chosen_cache_directory_wins(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "mine"))
    assert cache.configure_cache_directory() == tmp_path / "mine" / f"parts-{cache.parts_digest()}"
    assert not (tmp_path / "mine").exists()


def test_the_parts_name_the_directory_since_numba_does_not_see_them(tmp_path: Path) -> None:
    """An entry that inlines a part of another file would be loaded from the cache although the part has changed."""
    for name in cache.PARTS:
        (tmp_path / name).write_bytes((ROOT / "dtw" / name).read_bytes())
    assert cache.parts_digest(tmp_path) == cache.parts_digest()
    (tmp_path / cache.PARTS[0]).write_text("changed")
    assert cache.parts_digest(tmp_path) != cache.parts_digest()


def test_only_the_named_files_hold_parts_that_others_inline() -> None:
    for path in sorted((ROOT / "dtw").glob("*.py")):
        imported = set(re.findall(r"^from dtw\.(\w+) import", path.read_text(), re.M))
        kernels_of = {
            name
            for name in imported
            if re.search(r"^(@|_?\w+ = )(part|exact_part|_part|njit)", (ROOT / "dtw" / f"{name}.py").read_text(), re.M)
        }
        if "njit(" in path.read_text():
            assert kernels_of <= {Path(name).stem for name in cache.PARTS}, path.name


def run_import(environment: dict[str, str]) -> str:
    kept = {key: value for key, value in os.environ.items() if key not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", "import dtw, os; print(os.environ.get('NUMBA_CACHE_DIR', ''))"],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout.strip()


def test_the_default_is_private_to_the_user_and_keyed_by_versions(tmp_path: Path) -> None:
    chosen = Path(run_import({"HOME": str(tmp_path)}))
    assert chosen.parents[1] == tmp_path / ".cache" / "trading-swarm" / "numba"
    assert chosen.is_dir()
    assert chosen.stat().st_mode & 0o077 == 0
    assert f"numba-{cache.version('numba')}" in chosen.parent.name


def test_an_unwritable_home_leaves_numba_to_its_default(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert run_import({"HOME": str(tmp_path / "file")}) == ""
