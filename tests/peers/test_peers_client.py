"""The client itself: times, memory, versions, and what goes wrong."""

from __future__ import annotations

import numpy as np
import pytest

from profiling.bench.peers.client import Peers
from protocol.errors import RunFailure

pytestmark = pytest.mark.peers


def test_the_pinned_versions_are_there(peers: Peers) -> None:
    versions = peers.versions()
    assert versions["aeon"] == "1.6.0"
    assert versions["dtaidistance"] == "2.5.1"
    assert versions["tslearn"] == "0.10.0"
    assert versions["wildboar"] in ("1.2.0", "1.3.0")
    assert versions["stumpy"] == "1.14.1"
    assert versions["fastdtw"] == "0.3.4"
    assert versions["node"].startswith("24.")


@pytest.mark.parametrize("peer", ["aeon", "javascript"])
def test_each_repeat_is_timed_and_a_new_array_takes_the_old_ones_place(peers: Peers, peer: str) -> None:
    peers.put("query", np.zeros(8))
    for value in (1.0, 2.0):
        peers.put("rows", np.full((3, 8), value))
        run = peers.run(peer, "batch", repeats=4, query="query", rows="rows", band=None)
        assert len(run.seconds) == 4
        assert all(0 < seconds < 1 for seconds in run.seconds)
        assert run.result.tolist() == [8 * value * value] * 3
        assert run.setting


def test_memory_counts_what_the_call_itself_takes(peers: Peers) -> None:
    """tslearn fills a matrix of all cells."""
    peers.put("a", np.zeros(2048))
    run = peers.run("tslearn", "pair", memory=True, a="a", b="a", band=None)
    assert run.memory_bytes_peak is None or run.memory_bytes_peak > 2048 * 2048 * 4


def test_a_failure_is_one_line_and_the_process_goes_on(peers: Peers) -> None:
    peers.put("query", np.zeros(8))
    for peer in ("aeon", "javascript"):
        with pytest.raises(RunFailure, match=f"could not run {peer} nonsense") as caught:
            peers.run(peer, "nonsense", query="query")
        assert "\n" not in str(caught.value)
    assert peers.run("dtaidistance", "pair", a="query", b="query", band=None).result.tolist() == [0.0]
