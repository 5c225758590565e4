"""Pointer-free rows as arrays: the same bytes and the same values as the structs, and as pycapnp's own reading."""

from __future__ import annotations

from pathlib import Path

import capnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from protocol.codec_capnp import CapnpCodec
from protocol.errors import LocalMisuse, PeerViolation
from protocol.layout import SCHEMA, layout_of
from protocol.messages import Denial, Frame, FrameVote, Intent, MarketAdvance, Outcome, StatusRequest
from protocol.rows import as_messages, as_rows, row_type
from tests.oracles import capnp_twin
from tests.oracles.codec_examples import example, messages

CODEC = CapnpCodec()
FRAME = replace(example(Frame), claims=())


@settings(max_examples=60, deadline=None)
@given(st.lists(messages(Intent), max_size=5))
def test_arrays_and_structs_give_the_same_bytes(intents: list[Intent]) -> None:
    rows = as_rows(Intent, intents)
    assert as_messages(Intent, rows) == tuple(intents)
    from_structs = CODEC.encode_body(replace(FRAME, intents=tuple(intents)))
    assert CODEC.encode_body(replace(FRAME, intents=rows)) == from_structs
    assert capnp_twin.write(replace(FRAME, intents=tuple(intents))) == from_structs
    view = CODEC.view_rows(Frame, "intents", from_structs)
    assert as_messages(Intent, view) == tuple(intents) == CODEC.decode_body(Frame, from_structs).intents
    assert capnp_twin.read(Frame, from_structs).intents == tuple(intents)


@pytest.mark.parametrize("message_type", [Intent, Denial, MarketAdvance, StatusRequest])
def test_dtype_is_the_schema(message_type: type) -> None:
    dtype, node = row_type(message_type), getattr(SCHEMA, message_type.__name__).schema.node.struct
    assert dtype.itemsize == node.dataWordCount * 8
    assert dtype.fields is not None
    slots = zip(node.fields, message_type.__struct_fields__, strict=True)
    offsets = [slot.slot.offset * dtype.fields[name][0].itemsize for slot, name in slots]
    assert offsets == [dtype.fields[name][1] for name in message_type.__struct_fields__]


def test_padding_never_leaves() -> None:
    dirty = np.frombuffer(b"\xff" * 40 * 3, dtype=row_type(Intent))
    sent = CODEC.encode_body(replace(FRAME, intents=dirty))
    assert sent == CODEC.encode_body(replace(FRAME, intents=as_messages(Intent, dirty)))
    assert layout_of(Intent).row.pack(*[0] * 7) == bytes(40)


def test_a_strided_array_is_written_as_it_reads() -> None:
    rows = as_rows(Intent, [example(Intent, seed) for seed in range(6)])
    assert CODEC.decode_body(Frame, CODEC.encode_body(replace(FRAME, intents=rows[::2]))).intents == as_messages(
        Intent, rows[::2]
    )


def test_the_view_copies_nothing_and_is_read_only() -> None:
    body = CODEC.encode_body(FRAME)
    view = CODEC.view_rows(Frame, "intents", body)
    assert np.shares_memory(view, np.frombuffer(body, dtype=np.uint8))
    assert not view.flags.writeable


@pytest.mark.parametrize("rows", [np.zeros(3), np.zeros((2, 2), row_type(Intent)), np.zeros(2, row_type(Denial))])
def test_other_arrays_are_refused(rows: np.ndarray) -> None:
    with pytest.raises(LocalMisuse):
        CODEC.encode_body(replace(FRAME, intents=rows))


def test_only_flat_rows_have_a_dtype() -> None:
    with pytest.raises(LocalMisuse, match="not a flat row"):
        row_type(FrameVote)
    with pytest.raises(LocalMisuse):
        CODEC.view_rows(Outcome, "codes", CODEC.encode_body(example(Outcome)))
    with pytest.raises(LocalMisuse):
        CODEC.view_rows(Outcome, "index", CODEC.encode_body(example(Outcome)))


def test_view_of_truncated_bytes() -> None:
    body = CODEC.encode_body(FRAME)
    for size in range(len(body)):
        with pytest.raises(PeerViolation):
            CODEC.view_rows(Frame, "intents", body[:size])


def test_views_of_older_and_newer_rows(tmp_path: Path) -> None:
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
        view = CODEC.view_rows(Frame, "intents", data)
        assert as_messages(Intent, view) == (Intent(5, 6, 0, 0, 0, 0, 0),) * 3
        assert CODEC.decode_body(Frame, data).intents == as_messages(Intent, view)
