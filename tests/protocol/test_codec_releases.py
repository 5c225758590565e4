"""The wire over the releases: every released schema's bytes are read for ever, and old readers read ours.

``golden/CODEC-release-N.txt`` holds the bytes of every type as release N wrote them, ``golden/release-N.capnp`` its
schema. They never change. A release that appends fields adds its own files and a row to ``APPENDED``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import capnp
import msgpack
import pytest
from msgspec.structs import replace

from protocol.codec import CODEC_NAMES, codec_for
from protocol.envelope import Envelope
from protocol.fields import ALL_TYPES
from protocol.layout import SCHEMA
from protocol.messages import WIRE_TYPES, AppendEntries, AppendEntriesResponse, Frame, Hello, Message, RequestVote
from protocol.rows import NO_WINDOWS
from tests.oracles.codec_examples import batch_example, example

GOLDEN = Path(__file__).parent / "golden"
LATEST = 2
APPENDED: dict[int, dict[type[Message], dict[str, Any]]] = {
    1: {
        Frame: {"windows": NO_WINDOWS, "window_length": 0},
        AppendEntries: {"round": 0},
        AppendEntriesResponse: {"hint_term": 0, "round": 0},
        RequestVote: {"transfer": False},
        Hello: {"certificates": b"", "possession": b""},
    },
    2: {},
}
"""What a message of that release does not carry, and how it reads today."""
TYPES_OF: dict[int, int] = {1: 23, 2: len(WIRE_TYPES)}
"""How many message types a release has: later ones are appended."""
OLD: Any = capnp.SchemaParser().load(str(GOLDEN / "release-1.capnp"))

every_codec = pytest.mark.parametrize("codec_name", CODEC_NAMES)
every_release = pytest.mark.parametrize("release", APPENDED)
TYPES = {each.__name__: each for each in ALL_TYPES}


def golden(codec_name: str, release: int) -> dict[str, bytes]:
    lines = (GOLDEN / f"{codec_name}-release-{release}.txt").read_text().splitlines()
    return {name: bytes.fromhex(encoded) for name, encoded in map(str.split, lines)}


def contained(old: Any, new: Any) -> bool:
    """Is everything that the old reader sees in what the new one sees?"""
    if isinstance(old, dict):
        return all(name in new and contained(value, new[name]) for name, value in old.items())
    if isinstance(old, list):
        return len(old) == len(new) and all(map(contained, old, new))
    return bool(old == new)


@every_codec
@every_release
def test_bytes_of_every_release_are_read(codec_name: str, release: int) -> None:
    codec, encoded = codec_for(codec_name), golden(codec_name, release)
    header, envelopes = batch_example()
    as_then = [
        Envelope(trace, replace(each, **APPENDED[release].get(type(each), {})))
        for trace, each in envelopes
        if type(each) in WIRE_TYPES[: TYPES_OF[release]]
    ]
    assert codec.decode_batch(encoded.pop("Batch")) == (header, as_then)
    for name, data in encoded.items():
        message_type = TYPES[name]
        expected = replace(example(message_type), **APPENDED[release].get(message_type, {}))
        assert codec.decode_body(message_type, data) == expected


@pytest.mark.parametrize("name", golden("capnp", 1))
def test_a_reader_of_the_first_release_reads_what_we_write(name: str) -> None:
    ours = golden("capnp", LATEST)[name]
    with getattr(OLD, name).from_bytes(ours) as old, getattr(SCHEMA, name).from_bytes(ours) as new:
        seen, there = old.to_dict(), new.to_dict()
    assert contained(seen, there)
    assert ("windows" in there) == (name == "Frame")
    if name == "Batch":
        return  # ours has messages of later types too, in columns that the old reader passes over
    with getattr(OLD, name).from_bytes(golden("capnp", 1)[name]) as first:
        assert first.to_dict() == seen


@pytest.mark.parametrize("name", sorted(golden("msgpack", 1).keys() - {"Batch"}))
def test_maps_only_grew(name: str) -> None:
    first, latest = (msgpack.unpackb(golden("msgpack", release)[name]) for release in (1, LATEST))
    assert contained(first, latest)


def test_a_first_release_frame_with_more_rows_than_ours_reads_empty_where_it_is_older() -> None:
    built = OLD.Frame.new_message(clusterId=b"c", trader=3, intents=[{"sequence": 1, "quantity": 5}] * 20)
    frame = codec_for("capnp").decode_body(Frame, built.to_bytes())
    assert [frame.intents[at].quantity for at in range(20)] == [5] * 20
    assert (frame.windows, frame.window_length, frame.claims) == (NO_WINDOWS, 0, ())
