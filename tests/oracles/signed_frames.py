"""Frames, votes and grants with toy signatures: a keyed hash stands in for Ed25519, so that tests stay fast."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import msgspec

from consensus.certificate import sign_vote
from protocol.codes import CommandKind, Path, Side, TimeInForce
from protocol.errors import PeerViolation
from protocol.messages import PRICE_SCALE, Denial, Frame, FrameVote, Intent, Intents, SignedCommand, SliceGrant
from protocol.signing import command_digest

CLUSTER = b"c" * 16
VOTERS = (0, 1, 2, 3)
QUORUM, DENIAL = 3, 2
TRADER, GATE = 7, 9
PRICE = 100 * PRICE_SCALE
EXPIRES_NS = 1_000
_BODIES: dict[bytes, Frame] = {}


def signer(agent: int) -> Callable[[bytes], bytes]:
    return lambda data: hashlib.sha256(b"key %d " % agent + data).digest()


def verify(agent: int, data: bytes, signature: bytes) -> bool:
    return signature == signer(agent)(data)


def make_intent(sequence: int = 1, **changes: int) -> Intent:
    base = Intent(sequence, 0, Side.BUY, TimeInForce.DAY, 10, PRICE, PRICE)
    return msgspec.structs.replace(base, **changes)


def make_frame(*intents: Intent, **changes: object) -> Frame:
    base = Frame(
        CLUSTER, TRADER, Path.LANE, 1, 5, 1, 1, 1, 40, 0, EXPIRES_NS, Intents.of(*(intents or (make_intent(),))), ()
    )
    return msgspec.structs.replace(base, **changes)


def make_command(frame: Frame, **changes: object) -> SignedCommand:
    """Signed by the frame's trader; changes are made before signing unless they name the signature."""
    body = msgspec.msgpack.encode(frame, enc_hook=lambda value: value.array.tobytes())
    _BODIES[body] = frame
    unsigned = SignedCommand(CommandKind.FRAME, frame.trader, body, b"")
    unsigned = msgspec.structs.replace(unsigned, **changes)
    if unsigned.signature:
        return unsigned
    signature = signer(unsigned.author)(command_digest(CLUSTER, unsigned))
    return msgspec.structs.replace(unsigned, signature=signature)


def decode_frame(body: bytes) -> Frame:
    """Stands in for the codec: the body is a key into the frames that ``make_command`` has signed."""
    if body not in _BODIES:
        raise PeerViolation("body_malformed")
    return msgspec.structs.replace(_BODIES[body])


def make_vote(
    replica: int,
    digest: bytes = b"d" * 32,
    *,
    path: int = Path.LANE,
    term: int = 1,
    index: int = 8,
    denials: tuple[tuple[int, int], ...] = (),
) -> FrameVote:
    unsigned = FrameVote(replica, path, term, index, digest, tuple(Denial(*denial) for denial in denials), b"")
    return sign_vote(CLUSTER, unsigned, signer(replica))


def make_grant(version: int = 1, **changes: object) -> SliceGrant:
    base = SliceGrant(CLUSTER, 5, version, 1, TRADER, GATE, 5_000 * PRICE_SCALE, 3_000 * PRICE_SCALE)
    return msgspec.structs.replace(base, **changes)
