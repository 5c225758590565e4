"""How a client and a node of the measured lane cut what they say into frames."""

from __future__ import annotations

import msgspec
import pytest

from profiling.bench.lane.requests import REQUEST_BYTES_MAX, Request, Verb
from profiling.bench.lane.store import MESSAGES_PER_FRAME, Deframer, frames

ENCODER = msgspec.msgpack.Encoder()


def requests(count: int, size: int) -> list[Request]:
    return [Request(number, Verb.PUT, b"key", bytes(size)) for number in range(count)]


def read(data: bytes, step: int) -> list[list[Request]]:
    found: list[list[Request]] = []
    deframer = Deframer(lambda frame: found.append(msgspec.msgpack.decode(frame, type=list[Request])))
    for start in range(0, len(data), step):
        deframer.receive(data[start : start + step])
    return found


@pytest.mark.parametrize("step", [1, 3, 1000, 10**6])
def test_messages_come_back_in_order_however_they_arrive(step: int) -> None:
    said = requests(150, 5)
    heard = read(frames(ENCODER, said, REQUEST_BYTES_MAX), step)
    assert [len(frame) for frame in heard] == [MESSAGES_PER_FRAME, MESSAGES_PER_FRAME, 22]
    assert [request for frame in heard for request in frame] == said


def test_large_messages_are_cut_into_frames_that_a_node_takes() -> None:
    said = requests(7, REQUEST_BYTES_MAX // 3)
    heard = read(frames(ENCODER, said, REQUEST_BYTES_MAX), 2**16)
    assert len(heard) > 3 and [request for frame in heard for request in frame] == said


def test_a_message_beyond_the_bound_is_refused() -> None:
    with pytest.raises(ValueError, match="at most"):
        read(frames(ENCODER, requests(1, REQUEST_BYTES_MAX), REQUEST_BYTES_MAX), 2**16)
