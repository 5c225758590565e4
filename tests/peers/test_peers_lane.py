"""The clusters that the lane is measured beside: they start, write what they are asked to, and are missed politely."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling.bench.lane import peers
from profiling.bench.lane.etcd_load import _length
from profiling.bench.lane.measure import p50, rate
from protocol.errors import UsageError

pytestmark = pytest.mark.peers


def test_pysyncobj_writes_what_it_is_asked_to() -> None:
    with peers.PySyncObj(3, batches=False) as cluster:
        found = cluster.load(4, 40, 100)
    assert len(found["latency_ns"]) == 40
    assert 0 < p50(found) < 1e6 and rate(found) > 0
    assert found["cpu_ns"] >= 0


def test_without_etcd_the_mend_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers, "ENVIRONMENT", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="make setup-bench"):
        peers.etcd_binary()
    with pytest.raises(UsageError, match="make setup-bench"):
        peers.peers_python()


@pytest.mark.parametrize(("size", "encoded"), [(0, b"\x00"), (127, b"\x7f"), (128, b"\x80\x01"), (300, b"\xac\x02")])
def test_lengths_on_etcds_wire(size: int, encoded: bytes) -> None:
    """As the varints of protobuf's own documentation."""
    assert _length(bytes(size)) == encoded
