"""The whole system: mode optimized against mode baseline, and each switch thrown alone, in turn on one machine.

Every block is a run of its own with real processes: ``swarm up`` with fresh state. A and B alternate, so that whatever
else the machine does hits both.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from agents.switches import MODES
from profiling.bench.result import Ratio, Result, at_least, paired_ratio, variation
from protocol.errors import RunFailure

RUN_TIMEOUT_S: Final = 900
DELAYED: Final = "rtt=4ms"
AGREEMENT_STAGES: Final = ("coordination", "consensus")
EXECUTION_STAGES: Final = ("order_execution", "order_confirmation")

Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured. Cycles differ per side because a slow side needs fewer for the same spread."""

    blocks: int
    cycles: int
    baseline_cycles: int
    ladder_blocks: int
    """0 leaves the ladder out."""


FULL: Final = Plan(blocks=10, cycles=40, baseline_cycles=8, ladder_blocks=3)
QUICK: Final = Plan(blocks=2, cycles=10, baseline_cycles=2, ladder_blocks=0)


def measure(plan: Plan, progress: Progress) -> Result:
    """Run the plan; ``progress`` gets a line per run."""
    result = Result("system")
    with tempfile.TemporaryDirectory(prefix="swarm-bench-") as scratch:
        runner = _Runner(Path(scratch), progress)
        runner.run("warm-up", ["--cycles", "2"])
        pairs = _pairs(runner, plan, ())
        agreement = _whole_system(result, pairs)
        result.claim("system.cycles_ratio_rtt0", at_least(5), _rates_row(result, "on this host's loopback", pairs))
        delayed = _pairs(runner, plan, ("--network", DELAYED))
        ratio = _rates_row(result, f"at a round trip of 4 ms ({DELAYED})", delayed)
        result.claim("system.cycles_ratio_rtt4ms", at_least(5), ratio)
        result.claim("system.quic_and_consensus_ratio", at_least(8), agreement)
        if plan.ladder_blocks:
            for name in MODES["baseline"].__struct_fields__:
                value = str(getattr(MODES["baseline"], name))
                cycles = plan.baseline_cycles if name == "dtw" else plan.cycles
                _rung(result, runner, plan, f"{name} = {value}", [f"--{name.replace('_', '-')}", value], cycles)
            _rung(result, runner, plan, "transport = qh3", ["--transport", "qh3"], plan.cycles)
    return result


def _pairs(runner: _Runner, plan: Plan, options: Sequence[str]) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Reports of both modes, run in turn."""
    where = f" {' '.join(options)}" if options else ""
    return [
        (
            runner.run(f"optimized{where} {block + 1}/{plan.blocks}", ["--cycles", str(plan.cycles), *options]),
            runner.run(
                f"baseline{where} {block + 1}/{plan.blocks}",
                ["--cycles", str(plan.baseline_cycles), "--mode", "baseline", *options],
            ),
        )
        for block in range(plan.blocks)
    ]


class _Runner:
    def __init__(self, scratch: Path, progress: Progress) -> None:
        self._scratch = scratch
        self._progress = progress

    def run(self, label: str, arguments: Sequence[str]) -> dict[str, Any]:
        """One ``swarm up`` in the scratch directory; its report."""
        self._progress(label)
        command = [sys.executable, "-m", "agents.cli", "up", "--json", "--quiet", *arguments]
        done = subprocess.run(
            command, cwd=self._scratch, capture_output=True, text=True, timeout=RUN_TIMEOUT_S, check=False
        )
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise RunFailure(f"benchmark run '{label}' failed: {reason}; try `swarm up {' '.join(arguments)}`")
        report: dict[str, Any] = json.loads(done.stdout)
        return report


def _rates_row(result: Result, where: str, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Ratio:
    rates = [(a["cycle"]["per_s"], b["cycle"]["per_s"]) for a, b in pairs]
    ours, theirs = [rate for rate, _ in rates], [rate for _, rate in rates]
    cycles = paired_ratio(ours, theirs)
    case = f"cycles per second, all switches, {where}"
    result.row(case, _mean(ours), "cycles/s", "mode baseline", _mean(theirs), cycles)
    result.variations.append(variation(ours))
    return cycles


def _whole_system(result: Result, pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]) -> Ratio:
    """Stage by stage; returns the agreement's ratio."""
    agreement = _stage_row(result, "coordination and consensus per cycle", AGREEMENT_STAGES, pairs)
    _stage_row(result, "order execution and confirmation per cycle", EXECUTION_STAGES, pairs)
    _stage_row(result, "pattern matching per cycle", ("pattern_matching",), pairs)
    return agreement


def _rung(result: Result, runner: _Runner, plan: Plan, name: str, option: Sequence[str], their_cycles: int) -> None:
    """One thing changed alone in mode optimized."""
    pairs = []
    for block in range(plan.ladder_blocks):
        label = f"{block + 1}/{plan.ladder_blocks}"
        own = runner.run(f"optimized {label}", ["--cycles", str(plan.cycles)])
        pairs.append((own, runner.run(f"{name} {label}", ["--cycles", str(their_cycles), *option])))
    ours = [float(a["cycle"]["per_s"]) for a, _ in pairs]
    theirs = [float(b["cycle"]["per_s"]) for _, b in pairs]
    case = f"cycles per second, only {name}"
    result.row(case, _mean(ours), "cycles/s", name, _mean(theirs), paired_ratio(ours, theirs))


def _stage_row(
    result: Result, case: str, stages: Sequence[str], pairs: Sequence[tuple[dict[str, Any], dict[str, Any]]]
) -> Ratio:
    """Time in these stages, as the baseline's over ours: above 1 is in our favour."""
    ours = [_stage_ms(a, stages) for a, _ in pairs]
    theirs = [_stage_ms(b, stages) for _, b in pairs]
    ratio = paired_ratio(theirs, ours)
    result.row(case, _mean(ours), "ms", "mode baseline", _mean(theirs), ratio)
    return ratio


def _stage_ms(report: dict[str, Any], stages: Sequence[str]) -> float:
    """Mean time per cycle in the named stages."""
    return sum(float(row["mean_ms"]) for row in report["stages"] if row["stage"] in stages)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
