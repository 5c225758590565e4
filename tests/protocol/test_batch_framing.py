"""A stream cuts into the same payloads however it arrives, and a bad header is refused before its body."""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.codec import codec_for
from protocol.errors import LocalMisuse, PeerViolation
from protocol.fields import BATCH_BYTES_MAX
from protocol.framing import FRAME_VERSION, HEADER, FrameReader, frame
from tests.oracles.codec_examples import batch_example

payload_lists = st.lists(st.binary(min_size=1, max_size=40), max_size=6)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *[cut % (len(data) + 1) for cut in cuts]})
    return [data[start:end] for start, end in pairwise(edges)]


@settings(max_examples=80, deadline=None)
@given(payloads=payload_lists, cuts=st.lists(st.integers(0, 1000), max_size=20))
def test_any_cut_gives_the_same_payloads(payloads: list[bytes], cuts: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    whole, cut, single = FrameReader(), FrameReader(), FrameReader()
    assert whole.receive(stream) == payloads
    assert [payload for piece in pieces(stream, cuts) for payload in cut.receive(piece)] == payloads
    assert [payload for byte in stream for payload in single.receive(bytes([byte]))] == payloads
    assert whole.buffered_bytes == cut.buffered_bytes == single.buffered_bytes == 0


def test_a_batch_through_the_stream() -> None:
    codec = codec_for("capnp")
    data = codec.encode_batch(*batch_example())
    assert [codec.decode_batch(payload) for payload in FrameReader().receive(frame(data))] == [batch_example()]


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (struct.pack("<IHH", 65, FRAME_VERSION, 0), "frame_too_large"),
        (struct.pack("<IHH", 2**32 - 1, FRAME_VERSION, 0), "frame_too_large"),
        (struct.pack("<IHH", 0, FRAME_VERSION, 0), "frame_empty"),
        (struct.pack("<IHH", 8, FRAME_VERSION + 1, 0), "frame_version"),
        (struct.pack("<IHH", 8, 0, 0), "frame_version"),
        (struct.pack("<IHH", 8, FRAME_VERSION, 1), "frame_flags"),
        (b"trailing", "frame_version"),
    ],
)
def test_bad_headers_after_good_frames(header: bytes, reason: str) -> None:
    good = frame(b"good") + frame(b"better")
    reader = FrameReader(limit_bytes=64)
    assert [payload for byte in good for payload in reader.receive(bytes([byte]))] == [b"good", b"better"]
    for byte in header[:-1]:
        assert reader.receive(bytes([byte])) == []
    with pytest.raises(PeerViolation) as caught:
        reader.receive(header[-1:])  # before a byte of the body
    assert caught.value.reason == reason
    assert reader.buffered_bytes == 0
    with pytest.raises(PeerViolation) as again:
        reader.receive(frame(b"late"))
    assert again.value.reason == reason
    with pytest.raises(PeerViolation) as at_once:
        FrameReader(limit_bytes=64).receive(good + header)
    assert at_once.value.reason == reason


@pytest.mark.parametrize("limit_bytes", [1, 2, 3])
def test_limit(limit_bytes: int) -> None:
    reader = FrameReader(limit_bytes)
    assert reader.receive(frame(b"x" * limit_bytes)) == [b"x" * limit_bytes]
    with pytest.raises(PeerViolation) as caught:
        reader.receive(frame(b"x" * (limit_bytes + 1)))
    assert caught.value.reason == "frame_too_large"


def test_memory_stays_within_one_frame() -> None:
    reader = FrameReader(limit_bytes=100)
    stream = frame(b"x" * 100) * 20
    for start in range(0, len(stream), 7):
        reader.receive(stream[start : start + 7])
        assert reader.buffered_bytes <= HEADER.size + 100


def test_what_no_reader_takes_is_not_framed() -> None:
    for payload in (b"", bytes(BATCH_BYTES_MAX + 1)):
        with pytest.raises(LocalMisuse):
            frame(payload)
    with pytest.raises(LocalMisuse):
        FrameReader(limit_bytes=0)
