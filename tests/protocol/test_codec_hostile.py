"""Bytes that nobody should send: the codecs raise PeerViolation or return values in range, and nothing else."""

from __future__ import annotations

import random
import struct
import time
from typing import Any

import capnp
import msgpack
import pytest

from protocol.codec import CODEC_NAMES, Codec, codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import PeerViolation
from protocol.fields import (
    ALL_TYPES,
    BATCH_BYTES_MAX,
    INTEGER_RANGE,
    INTENTS_PER_FRAME_MAX,
    MESSAGES_PER_BATCH_MAX,
    Kind,
    fields_of,
)
from protocol.layout import SCHEMA, batch_columns
from protocol.messages import (
    WIRE_TYPES,
    AppendEntriesResponse,
    Claim,
    Frame,
    Intent,
    Intents,
    MarketAdvance,
    Message,
    OrderEvent,
    Outcome,
    PrePrepare,
    Refused,
    StatusRequest,
)
from protocol.rows import NO_WINDOWS
from tests.oracles import capnp_twin
from tests.oracles.codec_examples import batch_example, example

HEADER = BatchHeader(1, 2, 3, 4)
CAPNP = codec_for("capnp")
MSGPACK = codec_for("msgpack")
every_codec = pytest.mark.parametrize("codec", [CAPNP, MSGPACK], ids=CODEC_NAMES)


def assert_in_range(message: Any) -> None:
    """Every field of a decoded message has its type, its width and its length."""
    for field in fields_of(type(message)):
        value = getattr(message, field.name)
        for kind, element in [(field.item, e) for e in value] if field.kind is Kind.LIST else [(field.kind, value)]:
            if kind is Kind.STRUCT:
                assert_in_range(element)
            elif kind in INTEGER_RANGE:
                assert type(element) is int
                assert INTEGER_RANGE[kind][0] <= element <= INTEGER_RANGE[kind][1]
            else:
                assert (
                    type(element)
                    is {Kind.FLOAT: float, Kind.FLOAT32: float, Kind.BOOL: bool, Kind.TEXT: str, Kind.DATA: bytes}[kind]
                )
        if field.kind in (Kind.TEXT, Kind.DATA, Kind.LIST):
            length = len(value.encode()) if field.kind is Kind.TEXT else len(value)
            assert field.length_min <= length <= field.length_max


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four edits: a byte, a word, a cut, a repeated piece."""
    edited = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        position = rng.randrange(len(edited))
        choice = rng.randrange(6)
        if choice < 3:
            edited[position] = rng.choice((0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif choice == 3:
            start = position & ~7
            edited[start : start + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))[: len(edited) - start]
        elif choice == 4:
            start, end = position & ~7, rng.randrange(len(edited)) & ~7
            edited[start : start + 8] = edited[end : end + 8].ljust(8, b"\0")[: len(edited) - start]
        elif len(edited) > 64:
            del edited[position & ~7 : (position & ~7) + 8]
    return bytes(edited)


@every_codec
def test_truncation_at_every_byte(codec: Codec) -> None:
    header, envelopes = batch_example()
    batch = codec.encode_batch(header, envelopes[::3])
    for size in range(len(batch)):
        with pytest.raises(PeerViolation):
            codec.decode_batch(batch[:size])
    for message_type in ALL_TYPES:
        body = codec.encode_body(example(message_type))
        for size in range(len(body)):
            with pytest.raises(PeerViolation):
                codec.decode_body(message_type, body[:size])


@every_codec
@pytest.mark.parametrize("junk", [b"\0", b"\0" * 8, b"trailing"])
def test_trailing_junk(codec: Codec, junk: bytes) -> None:
    with pytest.raises(PeerViolation):
        codec.decode_batch(codec.encode_batch(*batch_example()) + junk)


@every_codec
def test_mutated_batches(codec: Codec) -> None:
    rng, refused, read = random.Random(48151), 0, 0
    batch = codec.encode_batch(*batch_example())
    for _ in range(1200):
        try:
            header, envelopes = codec.decode_batch(mutated(batch, rng))
        except PeerViolation:
            refused += 1
            continue
        read += 1
        assert_in_range(header)
        for trace, message in envelopes:
            assert 0 <= trace < 2**64
            assert_in_range(message)
    assert refused > 100
    assert read > 100


@every_codec
def test_mutated_bodies(codec: Codec) -> None:
    rng, read = random.Random(1917), 0
    for message_type in ALL_TYPES:
        body = codec.encode_body(example(message_type))
        for _ in range(150):
            try:
                message = codec.decode_body(message_type, mutated(body, rng))
            except PeerViolation:
                continue
            read += 1
            assert_in_range(message)
    assert read > 500


def test_what_we_accept_pycapnp_reads_alike() -> None:
    """Differential: on mutated bytes we may be stricter than the library, never of another opinion."""
    rng, read = random.Random(271828), 0
    for message_type in ALL_TYPES:
        body = CAPNP.encode_body(example(message_type))
        for _ in range(100):
            data = mutated(body, rng)
            try:
                message = CAPNP.decode_body(message_type, data)
            except PeerViolation:
                continue
            read += 1
            assert capnp_twin.read(message_type, data) == message
    assert read > 400


def test_random_bytes() -> None:
    rng = random.Random(5)
    for size in [*range(64), 128, 1024]:
        for codec in (CAPNP, MSGPACK):
            with pytest.raises(PeerViolation):
                codec.decode_batch(rng.randbytes(size))


# --- Cap'n Proto by hand ---------------------------------------------------------------------------------------------


def segment(*words: int) -> bytes:
    """A one-segment message of these words, the first of which is the root pointer."""
    return struct.pack("<II", 0, len(words)) + b"".join(struct.pack("<Q", word % 2**64) for word in words)


def struct_pointer(offset: int, data_words: int, pointer_count: int) -> int:
    return (offset % 2**30) << 2 | data_words << 32 | pointer_count << 48


def list_pointer(offset: int, element_size: int, count: int) -> int:
    return (offset % 2**30) << 2 | 1 | element_size << 32 | count << 35


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([0], "struct_missing"),
        ([struct_pointer(0, 2, 0)], "pointer_bounds"),
        ([struct_pointer(1, 1, 0), 5], "pointer_bounds"),
        ([struct_pointer(-3, 1, 0), 5], "pointer_bounds"),
        ([struct_pointer(2**29 - 1, 1, 0), 5], "pointer_bounds"),
        ([struct_pointer(0, 0xFFFF, 0xFFFF), 5], "pointer_bounds"),
        ([list_pointer(0, 7, 1), 5], "pointer_kind"),
        ([2, 5], "pointer_kind"),
        ([6, 5], "pointer_kind"),
        ([3, 5], "pointer_kind"),
    ],
)
def test_root_pointers(words: list[int], reason: str) -> None:
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(StatusRequest, segment(*words))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("pointer", "tail", "reason"),
    [
        (list_pointer(0, 2, 9), [0], "pointer_bounds"),
        (list_pointer(0, 2, 2**29 - 1), [0], "pointer_bounds"),
        (list_pointer(0, 3, 2), [0], "pointer_kind"),
        (struct_pointer(0, 1, 0), [0], "pointer_kind"),
        (list_pointer(0, 2, 8), [2**64 - 1], "text_terminator"),
        (list_pointer(0, 2, 0), [0], "text_terminator"),
        (list_pointer(0, 2, 8), [0x00FFFFFFFFFFFFFF], "text_encoding"),
        (list_pointer(0, 2, 1026), [0x2020202020202020] * 128 + [0x0020], "field_length"),
    ],
)
def test_text_pointers(pointer: int, tail: list[int], reason: str) -> None:
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(Refused, segment(struct_pointer(0, 0, 1), pointer, *tail))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (struct.pack("<II", 1, 2), "segment_table"),
        (struct.pack("<II", 2**32 - 1, 2), "segment_table"),
        (struct.pack("<II", 0, 1), "segment_table"),
        (struct.pack("<II", 0, 3), "segment_table"),
    ],
)
def test_segment_tables(table: bytes, reason: str) -> None:
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(MarketAdvance, table + struct.pack("<QQ", struct_pointer(0, 1, 0), 7))
    assert caught.value.reason == reason


def test_packed_is_refused() -> None:
    builder = SCHEMA.MarketAdvance.new_message(marketIndex=77)
    with pytest.raises(PeerViolation):
        CAPNP.decode_body(MarketAdvance, builder.to_bytes_packed())


def aliased_commands(count: int, body_bytes: int) -> bytes:
    """A PrePrepare whose every command names one and the same body and signature."""
    tag, row_words = 7, 3
    digest = tag + 1 + count * row_words
    body = digest + 8
    words = [
        struct_pointer(0, 3, 3),
        *(1, 1, 1),
        list_pointer(digest - 5, 2, 32),
        list_pointer(tag - 6, 7, count * row_words),
        list_pointer(digest - 7, 2, 64),
        count << 2 | 1 << 32 | 2 << 48,
    ]
    for row in range(tag + 1, digest, row_words):
        words += [1, list_pointer(body - row - 2, 2, body_bytes), list_pointer(digest - row - 3, 2, 64)]
    spare = 32  # words that nobody names, so that a few aliases still pass
    return segment(*words, *[0] * 8, *[0] * (body_bytes // 8), *[0] * spare)


def test_aliases_do_not_amplify() -> None:
    assert len(CAPNP.decode_body(PrePrepare, aliased_commands(0, 800)).commands) == 0
    assert len(CAPNP.decode_body(PrePrepare, aliased_commands(1, 800)).commands) == 1
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(PrePrepare, aliased_commands(1000, 800_000))
    assert caught.value.reason == "traversal_limit"


@pytest.mark.parametrize(("rows", "free"), [(0, True), (1, True), (1000, False)])
def test_rows_of_nothing_are_not_free(rows: int, free: bool) -> None:
    """Each vote has bytes of its own, but all name the same list of empty denials, which takes no room at all."""
    count, row_words, blob_words = 64, 6, 12
    tag = 6
    blobs = tag + 1 + count * row_words
    denials = blobs + count * blob_words
    words = [
        struct_pointer(0, 1, 3),
        *(1, list_pointer(blobs - 3, 2, 32), 0, list_pointer(tag - 5, 7, count * row_words)),
        0,
        count << 2 | 3 << 32 | 3 << 48,
    ]
    for vote in range(count):
        row, blob = len(words), blobs + vote * blob_words
        words += [1, 1, 1, list_pointer(blob - row - 4, 2, 32), list_pointer(denials - row - 5, 7, 0)]
        words += [list_pointer(blob + 4 - row - 6, 2, 64)]
    spare = 2 * count + 8  # enough to name the list itself from every vote, and one row of it
    data = segment(*words, *[0] * (count * blob_words), rows << 2, *[0] * spare)
    if free:
        assert len(CAPNP.decode_body(Outcome, data).votes[-1].denials) == rows
        return
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(Outcome, data)
    assert caught.value.reason == "traversal_limit"


def test_rows_of_an_unknown_shape_cost_no_more_than_their_bytes() -> None:
    """Every row takes the slow way, in front of megabytes that a careless slice would copy for each."""
    count, row_words = MESSAGES_PER_BATCH_MAX, 4  # a word more than the struct has
    kind = WIRE_TYPES.index(AppendEntriesResponse)
    batch = CAPNP.encode_batch(HEADER, [])
    data_words = struct.unpack_from("<H", batch, 12)[0]
    column = batch_columns()[AppendEntriesResponse]
    index = [kind | row << 32 for row in range(count)]
    words = [struct_pointer(0, data_words, column + 1), *[0] * data_words]
    first = len(words)
    words += [0] * (column + 1)
    words[first] = list_pointer(len(words) - first - 1, 7, 2 * count)
    words += [count << 2 | 2 << 32, *[word for entry in index for word in (entry, 0)]]
    words[first + column] = list_pointer(len(words) - first - column - 1, 7, row_words * count)
    words += [count << 2 | row_words << 32, *[word for row in range(count) for word in (row, 0, 0, 0)]]
    data = bytearray(segment(*words) + bytes(BATCH_BYTES_MAX - 8 * len(words) - 8))
    struct.pack_into("<I", data, 4, len(data) // 8 - 1)
    started = time.perf_counter()
    envelopes = CAPNP.decode_batch(bytes(data))[1]
    assert time.perf_counter() - started < 2.0
    assert [message for _, message in envelopes] == [AppendEntriesResponse(row, 0, False, 0) for row in range(count)]


def test_list_bounds() -> None:
    frame = SCHEMA.Frame.new_message(num_first_segment_words=2**16, clusterId=b"c")
    frame.init("intents", INTENTS_PER_FRAME_MAX + 1)
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(Frame, frame.to_bytes())
    assert caught.value.reason == "list_length"
    batch = SCHEMA.Batch.new_message(num_first_segment_words=2**16)
    batch.init("marketAdvances", MESSAGES_PER_BATCH_MAX + 1)
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_batch(batch.to_bytes())
    assert caught.value.reason == "list_length"


@every_codec
def test_size_limit(codec: Codec) -> None:
    with pytest.raises(PeerViolation) as caught:
        codec.decode_batch(bytes(BATCH_BYTES_MAX + 8))
    assert caught.value.reason == "message_too_large"


@pytest.mark.parametrize(
    "rows",
    [
        [(18, 0)],
        [(18, 0), (18, 0)],
        [(18, 1), (18, 0)],
        [(18, 0), (18, 2)],
        [(18, 0), (0, 0)],
        [(18, 0), (18, 1), (18, 2)],
        [(18, 0), (999, 0)],
        [],
    ],
)
def test_the_index_names_every_row_once_in_order(rows: list[tuple[int, int]]) -> None:
    batch = SCHEMA.Batch.new_message()
    batch.hdrs = [{"kind": kind, "row": row} for kind, row in rows]
    batch.marketAdvances = [{"marketIndex": 1}, {"marketIndex": 2}]
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_batch(batch.to_bytes())
    assert caught.value.reason in ("batch_index", "kind_unknown")


def test_older_writers_read_as_zero_and_newer_ones_as_far_as_known(tmp_path: Any) -> None:
    """A struct that grew: the same bytes are read by the schema before and after."""
    path = tmp_path / "other.capnp"
    path.write_text(
        "@0xb2c4d6e8f0a1b3c5;\n"
        "struct Older { sequence @0 :UInt64; symbol @1 :UInt32; }\n"
        "struct Newer { sequence @0 :UInt64; symbol @1 :UInt32; side @2 :UInt8; timeInForce @3 :UInt8; quantity @4 "
        ":Int64; limitPrice @5 :Int64; referencePrice @6 :Int64; more @7 :UInt64; text @8 :Text; }\n"
        "struct OlderFrame { clusterId @0 :Data; trader @1 :UInt16; path @2 :UInt8; epoch @3 :UInt32; "
        "sliceId @4 :UInt32; sliceVersion @5 :UInt32; sequence @6 :UInt64; cycle @7 :UInt64; marketIndex @8 :UInt32; "
        "createdAtNs @9 :UInt64; expiresAtNs @10 :UInt64; intents @11 :List(Older); }\n"
    )
    other = capnp.load(str(path))
    older = other.Older.new_message(sequence=5, symbol=6).to_bytes()
    newer = other.Newer.new_message(
        sequence=5, symbol=6, side=1, timeInForce=3, quantity=-7, limitPrice=8, referencePrice=9, more=10, text="more"
    ).to_bytes()
    assert CAPNP.decode_body(Intent, older) == Intent(5, 6, 0, 0, 0, 0, 0)
    assert CAPNP.decode_body(Intent, newer) == Intent(5, 6, 1, 3, -7, 8, 9)
    builder = other.OlderFrame.new_message(clusterId=b"c", trader=2, intents=[{"sequence": 1, "symbol": 2}] * 3)
    frame = CAPNP.decode_body(Frame, builder.to_bytes())
    assert frame.intents == Intents.of(*[Intent(1, 2, 0, 0, 0, 0, 0)] * 3)
    assert frame.claims == ()
    assert (frame.windows, frame.window_length) == (NO_WINDOWS, 0)


def test_missing_struct_is_refused() -> None:
    with pytest.raises(PeerViolation) as caught:
        CAPNP.decode_body(OrderEvent, SCHEMA.OrderEvent.new_message(sequence=1).to_bytes())
    assert caught.value.reason == "struct_missing"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_distances_are_finite(value: float) -> None:
    claim = SCHEMA.Claim.new_message(distances=[1.0, value])
    for codec, data in (
        (CAPNP, claim.to_bytes()),
        (MSGPACK, MSGPACK.encode_body(Claim(1, 2, 3, (1, 2), (1.0, value), 4))),
    ):
        with pytest.raises(PeerViolation) as caught:
            codec.decode_body(Claim, data)
        assert caught.value.reason == "float_not_finite"


# --- MessagePack by hand ---------------------------------------------------------------------------------------------


def envelope_map(**changes: Any) -> dict[str, Any]:
    return {"kind": 18, "trace": 1, "body": {"market_index": 5}, **changes}


HEADER_MAP = {"epoch": 1, "sender": 2, "sequence": 3, "sent_at_ns": 4, "acknowledged_sequence": 0, "flags": 0}


def test_the_maps_by_hand_are_read() -> None:
    data = msgpack.packb({"header": HEADER_MAP, "messages": [envelope_map()], "later": 1})
    assert MSGPACK.decode_batch(data) == (HEADER, [Envelope(1, MarketAdvance(5))])


@pytest.mark.parametrize(
    ("batch", "reason"),
    [
        ([], "field_type"),
        ({}, "field_missing"),
        ({"header": HEADER_MAP}, "field_missing"),
        ({"header": HEADER_MAP, "messages": 5}, "list_length"),
        ({"header": HEADER_MAP | {"sender": 2**16}, "messages": []}, "field_range"),
        ({"header": HEADER_MAP | {"sender": -1}, "messages": []}, "field_range"),
        ({"header": HEADER_MAP | {"sender": 1.0}, "messages": []}, "field_type"),
        ({"header": HEADER_MAP | {"sender": True}, "messages": []}, "field_type"),
        ({"header": HEADER_MAP, "messages": [1]}, "field_type"),
        ({"header": HEADER_MAP, "messages": [envelope_map(kind=999)]}, "kind_unknown"),
        ({"header": HEADER_MAP, "messages": [envelope_map(kind="MarketAdvance")]}, "field_type"),
        ({"header": HEADER_MAP, "messages": [envelope_map(trace=-1)]}, "field_range"),
        ({"header": HEADER_MAP, "messages": [envelope_map(body=[])]}, "field_type"),
        ({"header": HEADER_MAP, "messages": [envelope_map(body={})]}, "field_missing"),
        ({"header": HEADER_MAP, "messages": [envelope_map(body={"market_index": "5"})]}, "field_type"),
        ({"header": HEADER_MAP, "messages": [envelope_map(body={1: 2})]}, "msgpack_malformed"),
        ({"header": HEADER_MAP, "messages": [envelope_map()] * (MESSAGES_PER_BATCH_MAX + 1)}, "msgpack_malformed"),
        ({"header": msgpack.ExtType(5, b"x"), "messages": []}, "msgpack_malformed"),
        ({"header": msgpack.Timestamp(1, 2), "messages": []}, "msgpack_malformed"),
    ],
)
def test_maps_that_are_refused(batch: Any, reason: str) -> None:
    with pytest.raises(PeerViolation) as caught:
        MSGPACK.decode_batch(msgpack.packb(batch))
    assert caught.value.reason == reason


def test_deep_nesting() -> None:
    with pytest.raises(PeerViolation):
        MSGPACK.decode_batch(b"\x91" * 100_000)


@every_codec
def test_body_of_another_type(codec: Codec) -> None:
    data = codec.encode_body(example(Refused))
    for message_type in ALL_TYPES:
        if message_type is Refused:
            continue
        try:
            message: Message = codec.decode_body(message_type, data)
        except PeerViolation:
            continue
        assert_in_range(message)
