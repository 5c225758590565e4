"""A run of the fuzzer: everything from one number, with what came of it."""

from __future__ import annotations

import random
import resource
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from protocol.codec import CODEC_NAMES, codec_for
from protocol.fields import ALL_TYPES
from protocol.messages import WIRE_TYPES
from tests.fuzz.judge import BATCH, TYPES, Wrong, framed, judge, judge_stream
from tests.fuzz.mutate import mutate
from tests.oracles.codec_examples import batch_example, example

Case = tuple[str, str, bytes]
"""Codec, target (a type's name or ``BATCH``), bytes."""
STREAM_SHARE = 0.1
REPAIR_SHARE = 0.85
STREAM_LIMIT_BYTES = 4096
GROWTH_BYTES_MAX = 64 * 1024 * 1024


@dataclass
class Outcome:
    """What a run found; ``failure`` is the first thing that must not happen."""

    frames: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    corpus: dict[tuple[str, str, str], bytes] = field(default_factory=dict)
    """Smallest bytes by codec, target and outcome."""
    failure: tuple[Case, str] | None = None
    growth_bytes: int = 0


def seeds() -> dict[tuple[str, str], list[bytes]]:
    """Valid bytes by codec and target."""
    found: dict[tuple[str, str], list[bytes]] = {}
    for name in CODEC_NAMES:
        codec, (header, envelopes) = codec_for(name), batch_example()
        whole = [codec.encode_batch(header, envelopes[:count]) for count in (1, 7, len(envelopes))]
        singles = [codec.encode_batch(header, [e]) for e in envelopes[: len(WIRE_TYPES)]]
        found[name, BATCH] = whole + singles
        for each in ALL_TYPES:
            found[name, each.__name__] = [codec.encode_body(example(each, number)) for number in range(3)]
    return found


def cases(seed: int) -> Iterator[Case]:
    """Endless. Half of them are batches, the others bodies and parts of bodies; the own codec three times as often."""
    rng, valid = random.Random(seed), seeds()
    targets = [*TYPES]
    while True:
        codec_name = "capnp" if rng.random() < 0.75 else "msgpack"
        target = BATCH if rng.random() < 0.5 else rng.choice(targets)
        known = valid[codec_name, target]
        repair_share = REPAIR_SHARE if codec_name == "capnp" else 0.0
        yield codec_name, target, mutate(rng, rng.choice(known), known, repair_share)


def run(seed: int, frames: int, progress: Callable[[Outcome], None] = lambda outcome: None) -> Outcome:
    """Stops at the first failure."""
    outcome, began, rng = Outcome(), time.perf_counter(), random.Random(seed + 1)
    baseline = 0
    for case in cases(seed):
        codec_name, target, data = case
        try:
            reason = judge(*case)
            if rng.random() < STREAM_SHARE:
                outcome.reasons[f"stream: {judge_stream(_pieces(rng, data), STREAM_LIMIT_BYTES)}"] += 1
        except Wrong as wrong:
            outcome.failure = case, str(wrong)
            break
        outcome.reasons[reason] += 1
        smallest = outcome.corpus.get((codec_name, target, reason))
        if smallest is None or len(data) < len(smallest):
            outcome.corpus[codec_name, target, reason] = data
        outcome.frames += 1
        if outcome.frames % 10_000 == 0:
            outcome.seconds = time.perf_counter() - began
            baseline = baseline or _memory()
            outcome.growth_bytes = _memory() - baseline
            progress(outcome)
        if outcome.frames >= frames:
            break
    outcome.seconds = time.perf_counter() - began
    if outcome.failure is None and outcome.growth_bytes > GROWTH_BYTES_MAX:
        outcome.failure = (case, f"{outcome.growth_bytes:,} bytes more than after the first ten thousand frames")
    return outcome


def shrink(case: Case) -> Case:
    """Smaller bytes with the same failure: words taken out, then bytes zeroed, until nothing more goes."""
    codec_name, target, data = case
    wanted = _failure(case)
    changed = True
    while changed:
        changed = False
        for smaller in _smaller(data):
            if _failure((codec_name, target, smaller)) == wanted:
                data, changed = smaller, True
                break
    return codec_name, target, data


def _smaller(data: bytes) -> Iterator[bytes]:
    for size in (64, 8, 1):
        for start in range(0, len(data), size):
            yield data[:start] + data[start + size :]
    for place, value in enumerate(data):
        if value:
            yield data[:place] + b"\0" + data[place + 1 :]


def _failure(case: Case) -> str | None:
    try:
        judge(*case)
    except Wrong as wrong:
        return str(wrong).partition(":")[0]
    return None


def _pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """A frame or two on a stream, some of it damaged, cut anywhere."""
    stream = framed(data) + framed(data[: rng.randint(0, 64)])
    if rng.random() < 0.5:
        stream = mutate(rng, stream, [stream])
    cuts = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.randint(0, 5)))
    return [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]


def _memory() -> int:
    """Peak resident memory of this process, bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
