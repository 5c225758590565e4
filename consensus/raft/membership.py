"""Who votes and who learns, as a value."""

from __future__ import annotations

import msgspec

from protocol.errors import PeerViolation


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Roster positions, each list sorted and without repetition."""

    voters: tuple[int, ...]

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def decode_configuration(body: bytes) -> Configuration:
    """Raises ``PeerViolation`` when ``body`` is no configuration."""
    try:
        return msgspec.msgpack.decode(body, type=Configuration)
    except msgspec.MsgspecError as error:
        raise PeerViolation("membership_malformed", str(error)) from error
