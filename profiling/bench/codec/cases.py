"""The contents of ``swarm bench codec``, each with our way to write it, the others', and the claims made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from profiling.bench.codec import ours, samples
from profiling.bench.codec.peers import Way, ways
from protocol.messages import Frame, Intents
from protocol.rows import NO_WINDOWS, Windows


@dataclass(frozen=True, slots=True)
class Case:
    """``claim``: the identifier and the goal, against MessagePack maps, of writing plus reading."""

    name: str
    own: Way
    peers: list[Way]
    claim: tuple[str, float] | None = None
    content: Any = field(default=None, repr=False)


def cases() -> Iterator[Case]:
    """Twenty orders, bare and with the windows behind them; the frame that holds them; twenty votes."""
    frame = samples.frame()
    orders, with_windows = samples.plain_orders(frame), samples.plain_orders_with_windows(frame)
    yield Case(
        "20 orders",
        Way("ours", frame.intents, ours.write_orders, ours.read_orders, _plain_orders(frame)),
        ways(orders, "Frame"),
        ("codec.orders20_vs_msgpack_dicts", 10.0),
        orders,
    )
    yield Case(
        "20 orders with windows of 64",
        _orders_with_windows(frame),
        [*ways(with_windows, "Frame")[:-1], _library_with_windows(frame)],
        ("codec.orders20_with_windows_vs_msgpack_dicts", 20.0),
        with_windows,
    )
    bare = replace(frame, claims=(), windows=NO_WINDOWS, window_length=0)
    for name, each in (("frame of 20 orders", bare), ("frame of 20 orders with claims and windows", frame)):
        own = Way("ours", each, ours.write_frame, ours.read_frame, samples.plain_frame)
        yield Case(name, own, ways(samples.plain_frame(each), "Frame"), None, samples.plain_frame(each))
    batch = samples.vote_batch()
    own = Way("ours", batch, ours.write_batch, ours.read_batch, samples.plain_batch)
    plain = samples.plain_batch(batch)
    yield Case("batch of 20 votes", own, [*ways(plain, "Batch")[:-1], _library_with_votes(plain)], None, plain)


def _plain_orders(frame: Frame) -> Callable[[Intents], Any]:
    return lambda intents: samples.plain_orders(replace(frame, intents=intents))


def _orders_with_windows(frame: Frame) -> Way:
    def plain(held: tuple[Intents, Windows]) -> Any:
        return samples.plain_orders_with_windows(replace(frame, intents=held[0], windows=held[1]))

    held = (frame.intents, frame.windows)
    return Way("ours", held, ours.write_orders_with_windows, ours.read_orders_with_windows, plain)


def _library_with_windows(frame: Frame) -> Way:
    """The schema has the windows of a frame in one list."""
    content = {"intents": samples.plain_orders(frame), "windows": frame.windows.array.tolist()}
    way = ways(content, "Frame")[-1]
    length = samples.WINDOW

    def plain(read: Any) -> Any:
        found = way.plain(read)
        rows = [found["windows"][first : first + length] for first in range(0, len(found["windows"]), length)]
        return [{**order, "window": window} for order, window in zip(found["intents"], rows, strict=True)]

    return Way(way.name, way.held, way.write, way.read, plain)


def _library_with_votes(plain: Mapping[str, Any]) -> Way:
    """The schema has header fields, an index and a column of votes."""
    index = [{"kind": each["kind"], "row": row, "trace": each["trace"]} for row, each in enumerate(plain["messages"])]
    votes = [each["body"] for each in plain["messages"]]
    way = ways({**plain["header"], "hdrs": index, "frame_votes": votes}, "Batch")[-1]

    def joined(read: Any) -> Any:
        found = way.plain(read)
        rows = zip(found.pop("hdrs"), found.pop("frame_votes"), strict=True)
        messages = [{"kind": row["kind"], "trace": row["trace"], "body": body} for row, body in rows]
        return {"header": found, "messages": messages}

    return Way(way.name, way.held, way.write, way.read, joined)
