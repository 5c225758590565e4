"""`python -m tests.nemesis --seed 1 --runs 10 --seconds 60`: exit 1 and how to run it again if anything is wrong."""

from __future__ import annotations

import argparse
import asyncio
import faulthandler
import json
import sys
import tempfile
from pathlib import Path
from typing import Final

from tests.nemesis.campaign import Plan, run
from tests.nemesis.faults import FAULTS
from tests.nemesis.node import BROKEN

GRACE_S: Final = 120.0


def main() -> int:
    """Runs with successive seeds; a line of figures each."""
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--nodes", type=int, default=3)
    parser.add_argument("--clients", type=int, default=5)
    parser.add_argument("--snapshot-every", type=int, default=0)
    parser.add_argument("--transport", default="aioquic")
    parser.add_argument("--broken", choices=["", *BROKEN], default="")
    parser.add_argument("--spares", type=int, default=0)
    parser.add_argument("--lease-reads", action="store_true")
    parser.add_argument("--drift-ppm", type=int, default=200_000)
    parser.add_argument("--skew-ppm", type=int, default=200_000)
    parser.add_argument("--small-disks", action="store_true")
    parser.add_argument("--faults", nargs="*", choices=FAULTS, default=FAULTS)
    options = vars(parser.parse_args())
    if not all(0 <= options[name] < 1_000_000 for name in ("drift_ppm", "skew_ppm")):
        parser.error("--drift-ppm and --skew-ppm are millionths of a second's difference: use 0 to 999999")
    if options["nodes"] < 1 or options["spares"] < 0:
        parser.error("use at least one node, and no negative number of spares")
    runs, first = options.pop("runs"), options.pop("seed")
    plans = [Plan(seed, **options | {"faults": tuple(options["faults"])}) for seed in range(first, first + runs)]
    return max(one_run(plan) for plan in plans)


def one_run(plan: Plan) -> int:
    """0 when nothing is wrong. A run that hangs says where, and ends."""
    faulthandler.dump_traceback_later(plan.seconds + GRACE_S, exit=True)
    with tempfile.TemporaryDirectory() as directory:
        outcome = asyncio.run(run(Path(directory), plan))
        wrong = outcome.wrong()
    faulthandler.cancel_dump_traceback_later()
    print(json.dumps(outcome.figures() | {"wrong": wrong}), flush=True)
    return int(wrong is not None)


if __name__ == "__main__":
    sys.exit(main())
