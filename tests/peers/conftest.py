"""One set of the peers' processes for all tests: starting them and compiling takes longer than the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from profiling.bench.peers.client import Peers


@pytest.fixture(scope="session")
def peers() -> Iterator[Peers]:
    with Peers() as running:
        yield running
