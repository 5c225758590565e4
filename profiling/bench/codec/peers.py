"""The other ways to write the same content, each from and to the form that it serves best.

A peer gets the content as plain maps and lists once, makes its own form of it outside the measurement, and is timed
from that form to bytes and back. ``plain`` turns what it has read into maps and lists again, for the check that nothing
was lost.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final

import msgpack
import msgspec

from protocol.layout import SCHEMA, camel

BYTES_FIELDS: Final = frozenset({"cluster_id", "digest", "signature"})
"""Written by name, since JSON has no bytes."""
_WORDS_MAX: Final = 2**22


@dataclass(frozen=True, slots=True)
class Way:
    """One way to write one content. ``held`` is what ``write`` takes and, for another process, what ``read`` gives."""

    name: str
    held: Any
    write: Callable[[Any], bytes]
    read: Callable[[bytes], Any]
    plain: Callable[[Any], Any]


def ways(content: Any, struct: str) -> list[Way]:
    """All peers for one content; ``struct`` names the schema's struct that pycapnp writes it as."""
    return [
        message_pack_maps(content),
        message_pack_tuples(content),
        typed(content),
        text(content),
        library(content, struct),
    ]


def message_pack_maps(content: Any) -> Way:
    """What most programs send."""
    unpack = partial(msgpack.unpackb, raw=False)
    return Way(f"MessagePack dicts, msgpack {version('msgpack')}", content, msgpack.Packer().pack, unpack, _same)


def message_pack_tuples(content: Any) -> Way:
    """Without names: both sides must know the order of the fields."""
    unpack = partial(msgpack.unpackb, raw=False, use_list=False)
    name = f"MessagePack tuples, msgpack {version('msgpack')}"
    return Way(name, _values(content), msgpack.Packer().pack, unpack, partial(_named, content))


def typed(content: Any) -> Way:
    """msgspec's own advice for speed: structs as arrays, one encoder, one typed decoder."""
    kind = _type_of(content, "Content")
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(kind)
    held = msgspec.convert(_values(content), kind, strict=False)
    return Way(f"msgspec {version('msgspec')}, array_like", held, encoder.encode, decoder.decode, _unbuilt)


def text(content: Any) -> Way:
    """The standard library's JSON; bytes as hexadecimal digits."""
    encoder = json.JSONEncoder(separators=(",", ":"), default=bytes.hex)
    hook = _with_bytes if _holds_bytes(content) else None
    decoder = json.JSONDecoder(object_hook=hook)
    return Way("JSON, standard library", content, lambda held: encoder.encode(held).encode(),
               lambda data: decoder.decode(data.decode()), _same)  # fmt: skip


def library(content: Any, struct: str) -> Way:
    """pycapnp as its manual shows it, field by field, with the same schema as ours."""
    kind = getattr(SCHEMA, struct)
    whole = content if isinstance(content, dict) else {"intents": content}
    held = _camel(whole)

    def write(values: Any) -> bytes:
        builder = kind.new_message(num_first_segment_words=2**11)
        _fill(builder, values)
        return bytes(builder.to_bytes())

    def read(data: bytes) -> Any:
        with kind.from_bytes(data, traversal_limit_in_words=_WORDS_MAX) as reader:
            return _taken(reader, held)

    names = _names(whole)
    return Way(
        f"pycapnp {version('pycapnp')}, field by field",
        held,
        write,
        read,
        lambda each: names(each) if whole is content else names(each)["intents"],
    )


# --- forms -----------------------------------------------------------------------------------------------------------


def _same(value: Any) -> Any:
    return value


def _values(content: Any) -> Any:
    """Maps as the tuple of their values."""
    if isinstance(content, dict):
        return tuple(map(_values, content.values()))
    return tuple(map(_values, content)) if isinstance(content, list) else content


def _named(content: Any, values: Any) -> Any:
    """Inverse of ``_values`` for content of this shape."""
    if isinstance(content, dict):
        return {name: _named(each, value) for (name, each), value in zip(content.items(), values, strict=True)}
    if isinstance(content, list):
        shapes = content if len(content) == len(values) else [content[0]] * len(values)
        return [_named(shape, value) for shape, value in zip(shapes, values, strict=True)]
    return values


def _type_of(content: Any, name: str) -> Any:
    if isinstance(content, dict):
        fields = [(key, _type_of(value, f"{name}_{key}")) for key, value in content.items()]
        return msgspec.defstruct(name, fields, array_like=True, frozen=True, gc=False)
    if isinstance(content, list):
        return types.GenericAlias(tuple, (_type_of(content[0], name) if content else int, ...))
    return type(content)


def _unbuilt(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return {name: _unbuilt(getattr(value, name)) for name in value.__struct_fields__}
    return [_unbuilt(each) for each in value] if isinstance(value, tuple) else value


def _holds_bytes(content: Any) -> bool:
    if isinstance(content, dict):
        return any(map(_holds_bytes, content.values()))
    return bool(content) and _holds_bytes(content[0]) if isinstance(content, list) else isinstance(content, bytes)


def _with_bytes(value: dict[str, Any]) -> dict[str, Any]:
    for name in BYTES_FIELDS & value.keys():
        value[name] = bytes.fromhex(value[name])
    return value


def _camel(content: Any) -> Any:
    if isinstance(content, dict):
        return {camel(name): _camel(each) for name, each in content.items()}
    return [_camel(each) for each in content] if isinstance(content, list) else content


def _names(content: Any) -> Callable[[Any], Any]:
    """Turns names back from camelCase, by the content that they came from."""

    def back(value: Any, shape: Any = content) -> Any:
        if isinstance(shape, dict):
            return {name: back(value[camel(name)], each) for name, each in shape.items()}
        if isinstance(shape, list) and shape and isinstance(shape[0], dict):
            return [back(each, shape[0]) for each in value]
        return value

    return back


def _fill(builder: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            rows = builder.init(name, len(value))
            for row, each in enumerate(value):
                _fill(rows[row], each)
        elif isinstance(value, list) and not value:
            continue
        else:
            setattr(builder, name, value)


def _taken(reader: Any, shape: Mapping[str, Any]) -> dict[str, Any]:
    taken: dict[str, Any] = {}
    for name, each in shape.items():
        value = getattr(reader, name)
        if isinstance(each, list):
            taken[name] = [_taken(row, each[0]) for row in value] if each and isinstance(each[0], dict) else list(value)
        else:
            taken[name] = value
    return taken
