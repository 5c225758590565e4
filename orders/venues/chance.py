"""Chance without a generator: a number drawn from a seed and a label, the same wherever and whenever it is drawn.

Faults decided this way do not depend on the order of arrival, so two runs with one seed hit the same orders.
"""

from __future__ import annotations

import hashlib


def draw(seed: int, label: str) -> float:
    """Uniform on [0, 1) with 53 random bits, a pure function of its arguments."""
    hashed = hashlib.blake2b(f"{seed}/{label}".encode(), digest_size=8).digest()
    return (int.from_bytes(hashed, "little") >> 11) / (1 << 53)
