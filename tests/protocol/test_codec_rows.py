"""Hot lists as arrays: the same bytes and values as pycapnp's own, zero copies in, one copy out, and never a change."""

from __future__ import annotations

from pathlib import Path

import capnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec import CODEC_NAMES, Codec, codec_for
from protocol.codec_capnp import CapnpCodec
from protocol.errors import LocalMisuse, PeerViolation
from protocol.fields import INTENTS_PER_FRAME_MAX, WINDOW_SAMPLES_PER_FRAME_MAX
from protocol.layout import SCHEMA, layout_of, row_type
from protocol.messages import Denial, Frame, Intent, MarketAdvance, StatusRequest
from protocol.rows import INTENT_ROW, NO_WINDOWS, Intents, Windows
from tests.oracles import capnp_twin
from tests.oracles.codec_examples import example, messages

CODEC = CapnpCodec()
FRAME = replace(example(Frame), claims=())
every_codec = pytest.mark.parametrize("codec", [codec_for(name) for name in CODEC_NAMES], ids=CODEC_NAMES)


@settings(max_examples=60, deadline=None)
@given(st.lists(messages(Intent), max_size=5))
def test_rows_are_the_structs(intents: list[Intent]) -> None:
    rows = Intents.of(*intents)
    assert [rows[position] for position in range(len(rows))] == intents
    frame = replace(FRAME, intents=rows)
    assert capnp_twin.write(frame) == CODEC.encode_body(frame)
    read = CODEC.decode_body(Frame, CODEC.encode_body(frame))
    assert read == frame == capnp_twin.read(Frame, CODEC.encode_body(frame))
    assert hash(read) == hash(frame)
    assert repr(read.intents) == repr(rows)


@pytest.mark.parametrize("message_type", [Intent, Denial, MarketAdvance, StatusRequest])
def test_dtype_is_the_schema(message_type: type) -> None:
    dtype, node = row_type(message_type), getattr(SCHEMA, message_type.__name__).schema.node.struct
    assert dtype.itemsize == node.dataWordCount * 8
    assert dtype.fields is not None
    slots = zip(node.fields, message_type.__struct_fields__, strict=True)
    offsets = [slot.slot.offset * dtype.fields[name][0].itemsize for slot, name in slots]
    assert offsets == [dtype.fields[name][1] for name in message_type.__struct_fields__]
    assert row_type(Intent) == INTENT_ROW


def test_padding_never_leaves() -> None:
    dirty = Intents(b"\xff" * 40 * 3, 0, 3)
    clean = Intents.of(*[dirty[position] for position in range(3)])
    sent = CODEC.encode_body(replace(FRAME, intents=dirty))
    assert sent == CODEC.encode_body(replace(FRAME, intents=clean))
    assert (dirty, hash(dirty)) == (clean, hash(clean))
    assert dirty.take([0, 1, 2]).packed() == dirty.take([0, 1, 2]).array.tobytes()
    assert layout_of(Intent).row.pack(*[0] * 7) == bytes(40)


def test_padding_from_the_wire_goes_no_further() -> None:
    body = bytearray(CODEC.encode_body(FRAME))
    first = bytes(body).index(FRAME.intents.packed())
    body[first + 14 : first + 16] = b"\xff\xff"
    read = CODEC.decode_body(Frame, bytes(body))
    assert read == FRAME
    assert CODEC.encode_body(read) == CODEC.encode_body(FRAME)


def test_some_rows_are_a_copy_in_the_order_that_is_asked() -> None:
    rows = Intents.of(*[example(Intent, seed) for seed in range(6)])
    assert rows.take([3, 1]) == Intents.of(example(Intent, 3), example(Intent, 1))
    assert rows.take([3, 1])[0] == example(Intent, 3)


def test_reading_copies_nothing_and_nobody_can_write() -> None:
    body = CODEC.encode_body(replace(FRAME, windows=Windows.of([1.0, 2.0]), window_length=2))
    frame = CODEC.decode_body(Frame, body)
    for array in (frame.intents.array, frame.windows.array, Intents.of(example(Intent)).array, NO_WINDOWS.array):
        assert not array.flags.writeable
        with pytest.raises(ValueError, match="cannot set WRITEABLE"):
            array.flags.writeable = True
    assert np.shares_memory(frame.intents.array, np.frombuffer(body, np.uint8))
    assert np.shares_memory(frame.windows.array, np.frombuffer(body, np.uint8))


@pytest.mark.sources
def test_a_frame_outlives_the_buffer_that_it_came_in() -> None:
    received = bytearray(CODEC.encode_body(FRAME))
    frame = CODEC.decode_body(Frame, received)  # type: ignore[arg-type]
    received[:] = b"\xff" * len(received)
    assert frame == FRAME


@pytest.mark.parametrize("rows", [Intents, Windows])
def test_rows_beyond_their_bytes_are_refused(rows: type[Intents] | type[Windows]) -> None:
    with pytest.raises(TypeError, match="buffer is too small"):
        rows(bytes(40), 0, 11)


@pytest.mark.parametrize(
    "changes",
    [{"quantity": 2**63}, {"sequence": -1}, {"side": 256}, {"symbol": "AAPL"}, {"symbol": [1, 2, 3]}, {"colour": 1}],
)
def test_a_column_that_does_not_fit_is_ours(changes: dict[str, object]) -> None:
    with pytest.raises(LocalMisuse):
        Intents.of_columns({name: [value] for name, value in changes.items()}, 1)  # type: ignore[misc]


@pytest.mark.parametrize("changes", [{"intents": (example(Intent),)}, {"windows": (1.0,)}, {"intents": NO_WINDOWS}])
def test_lists_of_objects_are_no_hot_list(changes: dict[str, object]) -> None:
    with pytest.raises(LocalMisuse):
        CODEC.encode_body(replace(FRAME, **changes))


def test_truncated_bytes() -> None:
    body = CODEC.encode_body(FRAME)
    for size in range(len(body)):
        with pytest.raises(PeerViolation):
            CODEC.decode_body(Frame, body[:size])


@every_codec
def test_windows_travel_bit_for_bit(codec: Codec) -> None:
    values = np.array([0.0, -0.0, 1 / 3, np.finfo(np.float32).max, np.finfo(np.float32).tiny], np.float32)
    frame = replace(FRAME, windows=Windows.of(values), window_length=5)
    read = codec.decode_body(Frame, codec.encode_body(frame))
    assert read.windows.array.tobytes() == values.tobytes()
    assert read == frame != replace(frame, windows=Windows.of(np.abs(values)))


@every_codec
def test_windows_are_evidence_whatever_their_bits(codec: Codec) -> None:
    frame = replace(FRAME, windows=Windows.of([1.0, np.inf, -np.inf, np.nan]))
    read = codec.decode_body(Frame, codec.encode_body(frame))
    assert read == frame
    assert codec.encode_body(read) == codec.encode_body(frame)


def test_a_double_that_no_window_holds_is_refused() -> None:
    codec = codec_for("msgpack")
    good = codec.encode_body(replace(FRAME, windows=Windows.of([2.5])))
    old, new = (b"\xcb" + np.array(x, ">f8").tobytes() for x in (2.5, 1e300))
    with pytest.raises(PeerViolation) as caught:
        codec.decode_body(Frame, good.replace(old, new))
    assert caught.value.reason == "field_range"


@every_codec
def test_bounds_of_the_arrays(codec: Codec) -> None:
    largest = replace(
        FRAME,
        intents=Intents.of_columns({"sequence": range(INTENTS_PER_FRAME_MAX)}, INTENTS_PER_FRAME_MAX),
        windows=Windows.of(np.ones(WINDOW_SAMPLES_PER_FRAME_MAX)),
    )
    assert codec.decode_body(Frame, codec.encode_body(largest)) == largest
    long = Windows.of(np.ones(WINDOW_SAMPLES_PER_FRAME_MAX + 1))
    with pytest.raises(LocalMisuse):
        CODEC.encode_body(replace(FRAME, windows=long))
    builder = SCHEMA.Frame.new_message(num_first_segment_words=2**17, clusterId=b"c")
    builder.init("windows", len(long))
    with pytest.raises(PeerViolation) as caught:
        CODEC.decode_body(Frame, builder.to_bytes())
    assert caught.value.reason == "list_length"
    maps = codec_for("msgpack")
    with pytest.raises(PeerViolation):
        maps.decode_body(Frame, maps.encode_body(replace(FRAME, windows=long)))


def test_older_and_newer_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.capnp"
    fields = (
        "clusterId @0 :Data; trader @1 :UInt16; path @2 :UInt8; epoch @3 :UInt32; sliceId @4 :UInt32; "
        "sliceVersion @5 :UInt32; sequence @6 :UInt64; cycle @7 :UInt64; marketIndex @8 :UInt32; "
        "createdAtNs @9 :UInt64; expiresAtNs @10 :UInt64;"
    )
    path.write_text(
        "@0x9d5a1f27c3b4e681;\n"
        "struct Older { sequence @0 :UInt64; symbol @1 :UInt32; }\n"
        "struct Newer { sequence @0 :UInt64; symbol @1 :UInt32; side @2 :UInt8; timeInForce @3 :UInt8; quantity @4 "
        ":Int64; limitPrice @5 :Int64; referencePrice @6 :Int64; more @7 :UInt64; text @8 :Text; }\n"
        f"struct OlderFrame {{ {fields} intents @11 :List(Older); }}\n"
        f"struct NewerFrame {{ {fields} intents @11 :List(Newer); }}\n"
    )
    other = capnp.load(str(path))
    row = {"sequence": 5, "symbol": 6}
    for schema in (other.OlderFrame, other.NewerFrame):
        data = schema.new_message(clusterId=b"c", intents=[row] * 3).to_bytes()
        read = CODEC.decode_body(Frame, data)
        assert read.intents == Intents.of(*[Intent(5, 6, 0, 0, 0, 0, 0)] * 3)
        assert CODEC.decode_body(Frame, CODEC.encode_body(read)) == read


def test_rows_without_any_field_read_as_zero(tmp_path: Path) -> None:
    """As a hostile writer may send them: three rows of no words at all."""
    body = bytearray(CODEC.encode_body(replace(FRAME, intents=Intents.of(*[Intent(5, 6, 0, 0, 0, 0, 0)] * 3))))
    tag = body.index((3 << 2 | 5 << 32).to_bytes(8, "little"))
    body[tag : tag + 8] = (3 << 2).to_bytes(8, "little")
    assert CODEC.decode_body(Frame, bytes(body)).intents == Intents.of(*[Intent(0, 0, 0, 0, 0, 0, 0)] * 3)
