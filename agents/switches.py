"""Modes and their switches: each difference between the modes can be thrown alone, to measure a ladder."""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from protocol.errors import UsageError


class Switches(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The defaults are mode ``optimized``."""

    codec: Literal["capnp", "msgpack"] = "capnp"
    """Wire format of batches and bodies."""
    batch_max: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 256
    """Messages per batch; 1 sends each in a packet flush of its own."""
    consensus: Literal["hybrid", "raft", "pbft"] = "hybrid"
    """Which path decisions take: by criticality, all the lane with majorities, all the spine."""
    coordination: Literal["merged", "separate"] = "merged"
    """Whether the risk vote rides on the acknowledgement or is collected in a round before the proposal."""
    orders: Literal["parallel", "sequential"] = "parallel"
    """Release all orders of a frame at once, or each after the venue answered the one before."""
    confirm: Literal["async", "blocking"] = "async"
    """Whether the next cycle may start before this one's orders are confirmed."""
    dtw: Literal["lanes", "scalar"] = "lanes"
    """Many candidates per vector instruction, or one pair after the other."""


MODES: Final[dict[str, Switches]] = {
    "optimized": Switches(),
    "baseline": Switches(
        codec="msgpack",
        batch_max=1,
        consensus="pbft",
        coordination="separate",
        orders="sequential",
        confirm="blocking",
        dtw="scalar",
    ),
}


def switches_for(mode: str, **overrides: object) -> Switches:
    """The switches of a mode with single ones thrown; ``None`` leaves a switch alone."""
    if mode not in MODES:
        raise UsageError(f"--mode {mode}: no such mode; choose one of {', '.join(MODES)}")
    thrown = {name: value for name, value in overrides.items() if value is not None}
    merged = {**msgspec.structs.asdict(MODES[mode]), **thrown}
    try:
        return msgspec.convert(merged, Switches)
    except msgspec.ValidationError as error:
        raise UsageError(f"switch out of range: {error}; see `swarm up --help`") from None
