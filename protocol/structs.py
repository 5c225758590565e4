"""What every message is made of: the base of all structs and the widths of their numbers."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

U8 = Annotated[int, Meta(ge=0, le=2**8 - 1)]
U16 = Annotated[int, Meta(ge=0, le=2**16 - 1)]
U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]
U64 = Annotated[int, Meta(ge=0)]  # msgspec compares in 64 signed bits; the codecs bound it
I64 = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class Message(Struct, frozen=True, gc=False):
    """Base of everything that travels."""
