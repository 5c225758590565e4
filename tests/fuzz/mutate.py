"""Structure-aware damage to valid bytes: what a peer could send instead. Everything follows from the generator."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

WORD = 8
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 2**63 - 1, 2**63, 2**64 - 1)
ROUNDS_MAX = 4

Damage = Callable[[random.Random, bytearray, Sequence[bytes]], None]


def mutate(rng: random.Random, data: bytes, others: Sequence[bytes], repair_share: float = 0.0) -> bytes:
    """One to ``ROUNDS_MAX`` pieces of damage, one after the other. ``others`` are valid too, to splice from.

    ``repair_share``: how often the result gets whole words and a segment table that fits, so that a reader of Cap'n
    Proto looks beyond the first word.
    """
    damaged = bytearray(data)
    for _ in range(rng.randint(1, ROUNDS_MAX)):
        if not damaged:
            break
        rng.choice(DAMAGES)(rng, damaged, others)
    if rng.random() < repair_share:
        damaged += bytes(-len(damaged) % WORD)
        damaged[:WORD] = (max(0, len(damaged) // WORD - 1) << 32).to_bytes(WORD, "little")
    return bytes(damaged)


def _place(rng: random.Random, data: bytearray) -> int:
    """A word's first byte, the early ones more often: there stand the header and the pointers."""
    words = max(1, len(data) // WORD)
    return WORD * min(int(rng.expovariate(8 / words)), words - 1) if rng.random() < 0.7 else WORD * rng.randrange(words)


def _flip(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    data[rng.randrange(len(data))] = rng.randrange(256)


def _truncate(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data)) :]


def _truncate_and_say_so(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """Shorter, with a segment table that fits: what follows is out of bounds instead of missing."""
    words = max(1, rng.randrange(len(data)) // WORD)
    del data[words * WORD :]
    data[:WORD] = (max(0, words - 1) << 32).to_bytes(WORD, "little")


def _extend(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    data += rng.randbytes(WORD * rng.randint(1, 8) if rng.random() < 0.5 else rng.randint(1, 64))


def _edge(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    place, size = _place(rng, data), rng.choice((1, 2, 4, 8))
    data[place : place + size] = (rng.choice(EDGES) % 256**size).to_bytes(size, "little")


def _pointer(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """A pointer of any kind, near or far, sane or absurd."""
    place = _place(rng, data)
    kind, offset = rng.choice((0, 1, 1, 1, 2, 3)), rng.choice((-1, 0, 1, 2, 3, rng.randint(-64, 64), 2**29 - 1))
    low = (offset << 2 | kind) & 0xFFFFFFFF
    count = rng.choice((0, 1, 2, 20, rng.randrange(256), 2**29 - 1))
    high = (count << 3 | rng.randrange(8)) & 0xFFFFFFFF
    data[place : place + WORD] = (low | high << 32).to_bytes(WORD, "little")


def _tag(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """The tag of a list of structs: rows, data words, pointers."""
    place = _place(rng, data)
    rows = rng.choice((0, 1, 3, 4096, 4097, 2**29 - 1, rng.randrange(64)))
    shape = rng.choice((0, 1, 5, 0xFFFF, rng.randrange(16))) | rng.choice((0, 0, 1, 2, 0xFFFF)) << 16
    data[place : place + WORD] = (rows << 2 | shape << 32).to_bytes(WORD, "little")


def _copy_word(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    source, target = _place(rng, data), _place(rng, data)
    data[target : target + WORD] = data[source : source + WORD]


def _drop_words(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    place = _place(rng, data)
    del data[place : place + WORD * rng.randint(1, 4)]


def _splice(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = rng.choice(others)
    cut = WORD * rng.randrange(max(1, min(len(data), len(other)) // WORD))
    data[cut:] = other[cut:]


def _repeat(rng: random.Random, data: bytearray, others: Sequence[bytes]) -> None:
    """The same words again and again: a bomb if somebody counts by what pointers say."""
    place = _place(rng, data)
    piece = bytes(data[place : place + WORD * rng.randint(1, 4)])
    data[place:place] = piece * rng.randint(1, 32)


DAMAGES: tuple[Damage, ...] = (
    _flip, _byte, _truncate, _truncate_and_say_so, _extend, _edge, _edge, _pointer, _pointer, _tag, _copy_word,
    _drop_words, _splice, _repeat,
)  # fmt: skip
