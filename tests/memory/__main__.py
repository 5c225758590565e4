"""`python -m tests.memory --seconds 600 --transport aioquic`: figures as JSON; exit 1 if memory rises."""

from __future__ import annotations

import argparse
import json
import sys

from protocol.quic.backend import TRANSPORTS
from tests.memory.run import run


def main() -> int:
    """One run."""
    parser = argparse.ArgumentParser(prog="python -m tests.memory", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--transport", choices=TRANSPORTS, default=TRANSPORTS[0])
    options = parser.parse_args()
    outcome = run(options.seconds, options.transport)
    print(json.dumps(outcome.figures(), indent=2))
    return int(outcome.failure is not None)


if __name__ == "__main__":
    sys.exit(main())
