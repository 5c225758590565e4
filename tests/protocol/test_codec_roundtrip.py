"""What goes in comes out, in both codecs and against pycapnp in both directions; and the bytes never change."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import CODEC_NAMES, Codec, codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import LocalMisuse, UsageError
from protocol.fields import ALL_TYPES, MESSAGES_PER_BATCH_MAX
from protocol.layout import batch_columns
from protocol.messages import (
    WIRE_TYPES,
    AppendEntries,
    Claim,
    Denial,
    Entry,
    Frame,
    FrameVote,
    Intent,
    Intents,
    MarketAdvance,
    Message,
    Refused,
)
from protocol.rows import Windows
from tests.oracles import capnp_twin
from tests.oracles.codec_examples import batch_example, batches, example, messages

GOLDEN = Path(__file__).parent / "golden"
LATEST = 2
"""The release that is being made; once it is out, its files stay as they are (see ``test_codec_releases``)."""
HEADER = BatchHeader(1, 2, 3, 4)

every_codec = pytest.mark.parametrize("codec", [codec_for(name) for name in CODEC_NAMES], ids=CODEC_NAMES)
every_type = pytest.mark.parametrize("message_type", ALL_TYPES, ids=lambda t: t.__name__)


@every_codec
@every_type
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_every_body_comes_back(codec: Codec, message_type: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(message_type))
    encoded = codec.encode_body(message)
    assert codec.decode_body(message_type, encoded) == message
    assert codec.encode_body(message) == encoded


@every_codec
@settings(max_examples=60, deadline=None)
@given(batch=batches())
def test_every_batch_comes_back_in_order(codec: Codec, batch: tuple[BatchHeader, list[Envelope]]) -> None:
    header, envelopes = batch
    assert codec.decode_batch(codec.encode_batch(header, envelopes)) == (header, envelopes)


@every_type
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_pycapnp_writes_the_same_body_and_reads_it(message_type: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages(message_type))
    encoded = codec_for("capnp").encode_body(message)
    assert capnp_twin.write(message) == encoded
    assert capnp_twin.read(message_type, encoded) == message


@settings(max_examples=60, deadline=None)
@given(batch=batches())
def test_pycapnp_reads_our_batches_and_we_read_its(batch: tuple[BatchHeader, list[Envelope]]) -> None:
    header, envelopes = batch
    codec = codec_for("capnp")
    assert capnp_twin.read_batch(codec.encode_batch(header, envelopes)) == (header, envelopes)
    assert codec.decode_batch(capnp_twin.write_batch(header, envelopes)) == (header, envelopes)


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 20, 1024])
def test_long_lists_of_rows(rows: int) -> None:
    intents = Intents.of(*[example(Intent, seed) for seed in range(rows)])
    claims = tuple(example(Claim, seed) for seed in range(rows))
    template = example(Frame)
    windows = Windows.of(np.arange(rows * 64) / 8)
    frame = replace(template, intents=intents, claims=claims, windows=windows, window_length=64)
    for codec in map(codec_for, CODEC_NAMES):
        assert codec.decode_body(Frame, codec.encode_body(frame)) == frame
    assert capnp_twin.read(Frame, codec_for("capnp").encode_body(frame)) == frame


def test_entries_that_were_written_before_are_the_same_bytes_anywhere() -> None:
    """A leader's followers get the same entries in different batches; the second time they are copied."""
    codec = codec_for("capnp")
    header = BatchHeader(epoch=1, sender=0, sequence=1, sent_at_ns=1, acknowledged_sequence=0)

    def batch(entries: tuple[Entry, ...], before: int) -> bytes:
        append = AppendEntries(5, 0, 9, 4, 3, entries, 7)
        messages = [Refused("x" * before), append, append]
        return codec.encode_batch(header, [Envelope(trace, message) for trace, message in enumerate(messages)])

    entries = tuple(Entry(5, index, 1, bytes(index)) for index in range(10, 40))
    batch(entries, 3)
    for before in (1, 17):
        copied = batch(entries, before)
        assert copied == batch(tuple(replace(entry) for entry in entries), before)
        assert codec.decode_batch(copied)[1][1].message == AppendEntries(5, 0, 9, 4, 3, entries, 7)


@every_codec
def test_largest_batch(codec: Codec) -> None:
    envelopes = [Envelope(index, MarketAdvance(index)) for index in range(MESSAGES_PER_BATCH_MAX)]
    assert codec.decode_batch(codec.encode_batch(HEADER, envelopes)) == (HEADER, envelopes)
    with pytest.raises(LocalMisuse, match="at most"):
        codec.encode_batch(HEADER, [*envelopes, envelopes[0]])


def test_empty_columns_at_the_end_take_no_room() -> None:
    first = min(WIRE_TYPES, key=lambda t: batch_columns()[t])
    last = max(WIRE_TYPES, key=lambda t: batch_columns()[t])
    codec = codec_for("capnp")
    assert len(codec.encode_batch(HEADER, [Envelope(0, example(first))])) < 400
    everything = codec.encode_batch(HEADER, [Envelope(0, example(first)), Envelope(0, example(last))])
    assert codec.decode_batch(everything)[1][1].message == example(last)


@every_codec
def test_golden_bytes(codec: Codec) -> None:
    """The bytes of every type are committed: a difference breaks the wire and every journal."""
    lines = [f"{t.__name__} {codec.encode_body(example(t)).hex()}" for t in ALL_TYPES]
    lines.append(f"Batch {codec.encode_batch(*batch_example()).hex()}")
    text, path = "\n".join(lines) + "\n", GOLDEN / f"{codec.name}-release-{LATEST}.txt"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(text)
    assert path.read_text() == text


def test_unknown_codec_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="capnp, msgpack"):
        codec_for("json")


def vote(**changes: object) -> FrameVote:
    values = {name: getattr(example(FrameVote), name) for name in FrameVote.__struct_fields__}
    return FrameVote(**{**values, **changes})


@pytest.mark.parametrize(
    "message",
    [
        vote(replica=2**16),
        vote(path=-1),
        vote(term=1.5),
        vote(digest=b"short"),
        vote(digest=bytearray(32)),
        vote(denials=(Denial(0, 2**16),)),
        vote(denials=(Denial(0, 0),) * 1025),
        vote(denials=(None,)),
        Claim(1, 2, 3, (-1,), (1.0,), 0),
        Claim(1, 2, 3, (1,), (float("nan"),), 0),
        Claim(1, 2, 3, (1,) * 257, (), 0),
        Refused("x" * 1025),
        Refused("\ud800"),
    ],
    ids=lambda m: type(m).__name__,
)
def test_our_own_mistakes_are_ours(message: Message) -> None:
    with pytest.raises(LocalMisuse):
        codec_for("capnp").encode_body(message)


@every_codec
def test_a_body_type_does_not_travel_alone(codec: Codec) -> None:
    with pytest.raises(LocalMisuse, match="Frame does not travel"):
        codec.encode_batch(HEADER, [Envelope(0, example(Frame))])


@every_codec
def test_a_trace_out_of_range_is_ours(codec: Codec) -> None:
    with pytest.raises(LocalMisuse):
        codec.encode_batch(HEADER, [Envelope(2**64, MarketAdvance(1))])
