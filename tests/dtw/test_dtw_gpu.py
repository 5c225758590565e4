"""The optional GPU backend: refused with the mend where it is missing, the same answers where it, or its simulator, is
there. The kernels' own tests are ``gpu_cases.py``, which a process of its own runs, since numba must know of the
simulator before it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from dtw import gpu

ROOT = Path(__file__).parents[2]
LOADED = """
import sys
import numpy as np
import dtw.api, dtw.warmup
dtw.api.one_to_many(np.zeros(2), np.zeros((1, 2)))
print([name for name in sys.modules if name.startswith(("numba.cuda", "numba_cuda", "dtw.gpu_kernels"))])
"""
REFUSED = """
import sys
import numpy as np
{before}
from dtw import api, gpu
from dtw.errors import InvalidArgument
assert not gpu.available()
calls = (
    lambda: api.one_to_many(np.zeros(2), np.zeros((1, 2)), method="gpu"),
    lambda: gpu.pairwise(np.zeros((1, 2))),
    lambda: gpu.GpuRows(np.zeros((1, 2))),
)
for call in calls:
    try:
        call()
    except InvalidArgument as error:
        assert str(error) == gpu.why_not()
    else:
        raise AssertionError("not refused")
print(gpu.why_not())
"""
SIMULATOR = "NUMBA_ENABLE_CUDASIM"
BACKENDS = ["simulator", "device"] if SIMULATOR not in os.environ and gpu.available() else ["simulator"]
"""The device's tests run where there is one, and nothing is skipped elsewhere."""


def run(*command: str, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if key != SIMULATOR}
    done = subprocess.run(
        [sys.executable, *command],
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_nothing_of_it_is_loaded_before_it_is_asked_for() -> None:
    assert run("-c", LOADED) == "[]"


@pytest.mark.parametrize(
    ("before", "reason"),
    [
        ("sys.modules['numba.cuda'] = None", gpu.MISSING),
        ("from numba import cuda; cuda.implementation = 'Built-in'", gpu.MISSING),
        ("from numba import cuda; cuda.implementation = 'NVIDIA'; cuda.is_available = lambda: False", gpu.NO_DEVICE),
    ],
)
def test_what_is_missing_is_said_in_one_line(before: str, reason: str) -> None:
    assert run("-c", REFUSED.format(before=before)) == reason
    assert "\n" not in reason


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_kernels(backend: str) -> None:
    simulated = {SIMULATOR: "1"} if backend == "simulator" else {}
    report = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/dtw/gpu_cases.py", **simulated)
    assert " passed" in report
    assert "skipped" not in report
