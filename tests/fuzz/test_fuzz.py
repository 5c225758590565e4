"""The corpus, a short run of the fuzzer, and the ten million frames of the soak; the judge itself can fail."""

from __future__ import annotations

from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

from protocol.codec import CODEC_NAMES, codec_for
from protocol.errors import PeerViolation
from tests.fuzz.judge import REASONS, Wrong, judge
from tests.fuzz.run import cases, run, seeds, shrink

CORPUS = [line.split() for line in (Path(__file__).parent / "corpus.txt").read_text().splitlines()]


@pytest.mark.parametrize(("codec_name", "target", "outcome", "encoded"), CORPUS, ids=lambda text: text[:24])
def test_corpus_is_judged_as_ever(codec_name: str, target: str, outcome: str, encoded: str) -> None:
    assert judge(codec_name, target, bytes.fromhex(encoded.strip("-"))) == outcome


def test_corpus_knows_every_reason_that_fuzzing_finds() -> None:
    found = {outcome for _, _, outcome, _ in CORPUS}
    assert found - {"accepted"} <= REASONS
    assert len(found) >= 15


def test_valid_bytes_are_accepted() -> None:
    for (codec_name, target), known in seeds().items():
        for data in known:
            assert judge(codec_name, target, data) == "accepted"


def test_a_short_run() -> None:
    outcome = run(seed=1, frames=60_000)
    assert outcome.failure is None, outcome.failure
    assert outcome.frames == 60_000
    assert outcome.reasons["accepted"] > 5_000
    assert len(outcome.reasons) >= 18


def test_a_seed_is_a_run() -> None:
    first, second, other = ([case for case, _ in zip(cases(seed), range(200), strict=False)] for seed in (5, 5, 6))
    assert first == second != other


@pytest.mark.parametrize("error", [ValueError("no refusal"), PeerViolation("made_up", "")])
def test_the_judge_sees_what_must_not_be(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """A reader with a defect: one word decides, and shrinking finds it."""
    codec = codec_for("capnp")
    kind = type(codec)
    original = kind.decode_body

    def broken(self: object, message_type: type, data: bytes) -> object:
        if b"\x2a" in data:
            raise error
        return original(self, message_type, data)  # type: ignore[arg-type]

    monkeypatch.setattr(kind, "decode_body", broken)
    failing = bytes(64) + b"\x2a" + bytes(63)
    with pytest.raises(Wrong):
        judge("capnp", "Frame", failing)
    assert shrink(("capnp", "Frame", failing))[2] == b"\x2a"


@pytest.mark.soak
@pytest.mark.timeout(3600)
def test_ten_million_frames() -> None:
    with ProcessPoolExecutor(2) as pool:
        outcomes = list(pool.map(run, [11_000, 11_001], [5_000_000, 5_000_000]))
    assert [outcome.failure for outcome in outcomes] == [None, None]
    assert sum(outcome.frames for outcome in outcomes) == 10_000_000


def test_both_codecs_are_fuzzed() -> None:
    assert {codec_name for codec_name, _ in seeds()} == set(CODEC_NAMES)
