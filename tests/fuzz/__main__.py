"""`python -m tests.fuzz --seed 1 --frames 10000000 --workers 2`: exit 1 and a replay line if anything must not be."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from tests.fuzz.judge import Wrong, judge
from tests.fuzz.run import Outcome, run, shrink

CORPUS = Path(__file__).parent / "corpus.txt"


def main() -> int:
    """Run, or judge one input again."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--frames", type=int, default=100_000)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--write-corpus", action="store_true", help="keep the smallest input of every outcome")
    parser.add_argument("--replay", nargs=3, metavar=("CODEC", "TARGET", "HEX"))
    options = parser.parse_args()
    if options.replay is not None:
        codec_name, target, encoded = options.replay
        try:
            print(judge(codec_name, target, bytes.fromhex(encoded)))
        except Wrong as wrong:
            print(f"wrong: {wrong}")
            return 1
        return 0
    share = options.frames // options.workers
    numbers = [options.seed * 1000 + worker for worker in range(options.workers)]
    with ProcessPoolExecutor(options.workers) as pool:
        outcomes = list(pool.map(run, numbers, [share] * options.workers))
    if options.write_corpus:
        _write_corpus(outcomes)
    return _report(outcomes, options.json)


def _write_corpus(outcomes: list[Outcome]) -> None:
    smallest: dict[tuple[str, str], tuple[str, bytes]] = {}
    for outcome in outcomes:
        for (codec_name, target, reason), data in outcome.corpus.items():
            known = smallest.get((codec_name, reason))
            if known is None or len(data) < len(known[1]):
                smallest[codec_name, reason] = (target, data)
    lines = [f"{codec} {target} {reason} {data.hex() or '-'}" for (codec, reason), (target, data) in smallest.items()]
    CORPUS.write_text("\n".join(sorted(lines)) + "\n")


def _report(outcomes: list[Outcome], as_json: bool) -> int:
    reasons = sum((outcome.reasons for outcome in outcomes), Counter[str]())
    frames, seconds = sum(outcome.frames for outcome in outcomes), max(outcome.seconds for outcome in outcomes)
    figures = {
        "frames": frames,
        "seconds": round(seconds, 1),
        "frames_per_s": round(frames / max(seconds, 1e-9)),
        "growth_bytes": max(outcome.growth_bytes for outcome in outcomes),
        "reasons": dict(reasons.most_common()),
    }
    if as_json:
        print(json.dumps(figures))
    else:
        print(f"{frames:,} frames in {seconds:.1f} s, {figures['frames_per_s']:,} a second")
        for reason, count in reasons.most_common():
            print(f"  {reason:28} {count:>12,}")
    failures = [outcome.failure for outcome in outcomes if outcome.failure is not None]
    for case, what in failures:
        codec_name, target, data = shrink(case)
        print(f"wrong: {what}\n  python -m tests.fuzz --replay {codec_name} {target} {data.hex()}", file=sys.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
