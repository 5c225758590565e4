"""Messages to test codecs with: hypothesis strategies derived from the structs, and one fixed example per type."""

from __future__ import annotations

import hashlib
from typing import Any

from hypothesis import strategies as st

from protocol.envelope import BatchHeader, Envelope
from protocol.fields import INTEGER_RANGE, Field, Kind, fields_of
from protocol.messages import WIRE_TYPES, Intents, Message
from protocol.rows import Windows

LIST_LENGTH_TESTED = 3


def messages(message_type: type[Message]) -> st.SearchStrategy[Message]:
    """Every legal value of the type, lists kept short."""
    return st.builds(message_type, *[field_values(field) for field in fields_of(message_type)])


def field_values(field: Field) -> st.SearchStrategy[Any]:
    if field.kind is Kind.STRUCT:
        assert field.struct is not None
        return messages(field.struct)
    if field.kind is not Kind.LIST:
        return _scalars(field, field.kind)
    assert field.item is not None
    items = messages(field.struct) if field.struct is not None else _scalars(field, field.item)
    return st.lists(items, min_size=field.length_min, max_size=LIST_LENGTH_TESTED).map(lambda each: held(field, each))


def _scalars(field: Field, kind: Kind) -> st.SearchStrategy[Any]:
    if kind in INTEGER_RANGE:
        return st.integers(*INTEGER_RANGE[kind])
    if kind is Kind.FLOAT:
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind is Kind.FLOAT32:
        return st.floats(allow_nan=False, allow_infinity=False, width=32)
    if kind is Kind.BOOL:
        return st.booleans()
    if kind is Kind.DATA:
        return st.binary(min_size=field.length_min, max_size=max(field.length_min, min(field.length_max, 40)))
    texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=field.length_min, max_size=16)
    return texts.filter(lambda text: len(text.encode()) <= field.length_max)


def held(field: Field, values: list[Any]) -> Any:
    """A list in the form in which messages hold it."""
    if field.array is Intents:
        return Intents.of(*values)
    return Windows.of(values) if field.array is Windows else tuple(values)


def headers() -> st.SearchStrategy[BatchHeader]:
    return messages(BatchHeader)  # type: ignore[return-value]


def batches() -> st.SearchStrategy[tuple[BatchHeader, list[Envelope]]]:
    any_message = st.one_of([messages(message_type) for message_type in WIRE_TYPES])
    return st.tuples(headers(), st.lists(st.builds(Envelope, st.integers(0, 2**64 - 1), any_message), max_size=6))


def example(message_type: type[Message], seed: int = 0) -> Message:
    """A fixed message with a different value in every field; the same in every process and release."""
    return message_type(
        *[_field_example(field, f"{message_type.__name__}.{seed}") for field in fields_of(message_type)]
    )


def batch_example() -> tuple[BatchHeader, list[Envelope]]:
    """Two of every type, in two rounds, so that the columns interleave."""
    rounds = [Envelope(100 + seed, example(t, seed)) for seed in (1, 2) for t in WIRE_TYPES]
    return BatchHeader(7, 3, 11, 1_700_000_000_000_000_000, 10, 0), rounds


def _field_example(field: Field, seed: str) -> Any:
    if field.kind is Kind.STRUCT:
        assert field.struct is not None
        return example(field.struct, _number(seed, 1000))
    if field.kind is not Kind.LIST:
        return _scalar_example(field, field.kind, f"{seed}.{field.name}")
    assert field.item is not None
    names = [f"{seed}.{field.name}.{row}" for row in range(2)]
    if field.struct is not None:
        return held(field, [example(field.struct, _number(name, 1000)) for name in names])
    return held(field, [_scalar_example(field, field.item, name) for name in names])


def _scalar_example(field: Field, kind: Kind, seed: str) -> Any:
    if kind in INTEGER_RANGE:
        low, high = INTEGER_RANGE[kind]
        return low + _number(seed, high - low + 1)
    if kind is Kind.FLOAT:
        return _number(seed, 10**9) / 1024
    if kind is Kind.FLOAT32:
        return _number(seed, 2**20) / 1024
    if kind is Kind.BOOL:
        return _number(seed, 2) == 1
    length = min(max(field.length_min, 13), field.length_max)
    raw = (hashlib.sha256(seed.encode()).digest() * 2)[:length]
    return raw if kind is Kind.DATA else raw.hex()[:length]


def _number(seed: str, below: int) -> int:
    return int.from_bytes(hashlib.sha256(seed.encode()).digest()) % below
