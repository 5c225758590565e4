"""`python -m tests.hostile --seed 1 --runs 10 --steps 200`: exit 1 and how to run it again if anything must not be."""

from __future__ import annotations

import argparse
import json
import logging
import sys

from protocol.quic.backend import TRANSPORTS
from tests.hostile.run import ATTACKS, Plan, run


def main() -> int:
    """Runs with successive seeds; a line of figures each."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    parser.add_argument("--virtual", action="store_true", help="in memory and in virtual time, not on loopback")
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS), metavar="NAME")
    options = parser.parse_args()
    logging.getLogger("quic").setLevel(logging.ERROR)
    failed = 0
    for seed in range(options.seed, options.seed + options.runs):
        outcome = run(Plan(seed, options.steps, options.transport, options.virtual, tuple(options.attacks)))
        print(json.dumps(outcome.figures()), flush=True)
        if outcome.failure is not None:
            failed = 1
            print(f"wrong: {outcome.failure}\n  {outcome.command}", file=sys.stderr)
    return failed


if __name__ == "__main__":
    sys.exit(main())
