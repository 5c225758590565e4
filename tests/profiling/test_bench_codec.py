"""``swarm bench codec`` times what runs in production, against others that lose nothing."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import msgpack
import numpy as np
import pytest

from agents import setup
from agents.switches import Switches
from agents.trader import decider
from profiling.bench.codec import ours
from profiling.bench.codec.cases import Case, cases
from profiling.bench.codec.measure import Plan, check, measure
from protocol.codec import codec_for
from protocol.errors import RunFailure
from protocol.messages import Frame
from protocol.overlay_read import struct_reader
from protocol.overlay_write import struct_writer
from protocol.rows import Intents, Windows

CASES = list(cases())
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def reachable(function: Any, seen: set[int] | None = None) -> set[int]:
    """Identities of everything that a closure, or a function made from its source, calls, however deep."""
    seen = set() if seen is None else seen
    if id(function) in seen:
        return seen
    seen.add(id(function))
    names: list[Any] = []
    if inspect.isfunction(function):
        used = inspect.getclosurevars(function)
        names = [*used.nonlocals.values(), *(used.globals.values() if "__file__" not in function.__globals__ else ())]
    for value in (*names, *(function if isinstance(function, list | tuple) else ())):
        reachable(value, seen)
    return seen


def test_our_functions_are_those_of_a_frames_body() -> None:
    written, read = reachable(struct_writer(Frame)), reachable(struct_reader(Frame))
    assert {id(ours.WRITE_INTENTS), id(ours.WRITE_WINDOWS)} <= written
    assert {id(ours.READ_INTENTS), id(ours.READ_WINDOWS)} <= read
    assert id(ours.READ_INTENTS) not in written


def test_our_codec_is_the_one_that_trader_and_replicas_are_given() -> None:
    """``swarm up`` names the codec by the mode; both sides call it on frames."""
    assert ours.CODEC is codec_for(Switches().codec)
    assert "body = voter.setup.codec.encode_body(frame)" in inspect.getsource(decider)
    assert "self.codec.decode_body(Frame, data)" in inspect.getsource(setup)
    frame = CASES[3].own.held
    assert ours.write_frame(frame) == ours.CODEC.encode_body(frame)
    assert ours.read_frame(ours.write_frame(frame)) == frame


def test_our_form_is_the_one_that_frames_hold() -> None:
    bare, windows, *frames, _ = [case.own.held for case in CASES]
    assert type(bare) is Intents
    assert [type(each) for each in windows] == [Intents, Windows]
    for frame in frames:
        assert (type(frame), type(frame.intents), type(frame.windows)) == (Frame, Intents, Windows)
    read = CASES[0].own.read(CASES[0].own.write(bare))
    assert (type(read), read) == (Intents, bare)
    assert isinstance(read.array, np.ndarray)


@every_case
def test_nobody_loses_anything(case: Case) -> None:
    check(case)
    assert [each.name.split(",")[0].split()[0] for each in case.peers] == [
        "MessagePack", "MessagePack", "msgspec", "JSON", "pycapnp"
    ]  # fmt: skip


@every_case
def test_one_number_less_is_found_out(case: Case) -> None:
    way = case.peers[0]
    data = msgpack.packb({} if isinstance(case.content, dict) else case.content[:-1])
    broken = replace(way, write=lambda held: data)
    with pytest.raises(RunFailure, match="does not give back"):
        check(replace(case, peers=[broken, *case.peers[1:]]))


def test_the_result_has_every_row_and_both_claims() -> None:
    found = measure(Plan(blocks=2, slice_s=0.001), lambda label: None).as_dict()
    assert len(found["rows"]) == len(CASES) * 5 * 4
    assert {row["unit"] for row in found["rows"]} == {"us", "bytes"}
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in found["rows"])
    assert {claim["id"]: claim["goal"] for claim in found["claims"]} == {
        "codec.orders20_vs_msgpack_dicts": ">= 10",
        "codec.orders20_with_windows_vs_msgpack_dicts": ">= 20",
    }
