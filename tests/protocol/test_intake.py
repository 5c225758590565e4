"""Streams cut into frames before and after the greeting; over real connections: ``test_endpoint_refusals``."""

from __future__ import annotations

import pytest

from protocol.batch import frame
from protocol.errors import PeerViolation
from protocol.intake import EARLY_BYTES_MAX, GREETING_BYTES_MAX, Intake


def refusal(intake: Intake, stream_id: int, data: bytes) -> str:
    with pytest.raises(PeerViolation) as caught:
        intake.read(stream_id, data)
    return caught.value.reason


def test_a_listener_reads_one_greeting_and_then_batches() -> None:
    intake = Intake(dialled=False)
    for stream_id in (4, 8, 12):
        assert intake.read(stream_id, bytes([stream_id // 4])) == []
    assert intake.read(0, b"\x00" + frame(b"hello")) == [b"hello"]
    intake.greeted()
    assert intake.read(8, frame(b"one") + frame(b"two")) == [b"one", b"two"]
    assert intake.take_early() == [(4, b""), (8, b""), (12, b"")]


@pytest.mark.parametrize(
    ("stream_id", "data", "reason"),
    [
        (2, b"", "stream_unknown"),
        (16, b"\x04", "stream_unknown"),
        (4, b"", "greeting_malformed"),  # a stream that only ends
        (4, b"\x02", "greeting_malformed"),
        (4, b"\x01!", "before_greeting"),
        (0, b"\x00" + frame(b"hello") * 2, "before_greeting"),
        (0, b"\x00" + frame(b"hello") + b"!", "before_greeting"),
        (0, b"\x00" + frame(bytes(GREETING_BYTES_MAX + 1)), "frame_too_large"),
    ],
)
def test_what_a_dialler_may_not_do_before_its_greeting(stream_id: int, data: bytes, reason: str) -> None:
    assert refusal(Intake(dialled=False), stream_id, data) == reason


def test_a_dialler_keeps_what_overtakes_the_greeting_up_to_a_bound() -> None:
    intake = Intake(dialled=True)
    assert intake.read(4, frame(b"early")) == [] and intake.take_early() == []
    assert refusal(intake, 8, bytes(EARLY_BYTES_MAX)) == "before_greeting"
    intake.greeted()
    assert intake.take_early()[0] == (4, frame(b"early")) and intake.take_early() == []
