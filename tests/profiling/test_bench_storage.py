"""``swarm bench storage`` compares stores that all give back what went in."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from profiling.bench.storage.measure import GROUPS, Plan, measure
from profiling.bench.storage.plots import write_plots
from profiling.bench.storage.stores import bytes_on_disk, stores
from protocol.errors import UsageError
from protocol.messages import Entry

SMALL = Plan(blocks=2, commits=2, warm_up=1, entries=100, loads=2)


@pytest.mark.parametrize("name", list(stores()))
def test_every_store_keeps_what_it_was_given(tmp_path: Path, name: str) -> None:
    entries = tuple(Entry(1, index, 2, b"%d" % index) for index in range(1, 6))
    store = stores()[name](tmp_path / "store")
    store.commit(entries[:2])
    store.commit(entries[2:])
    assert store.load() == list(entries)
    store.close()
    again = stores()[name](tmp_path / "store")
    assert again.load() == list(entries)
    again.close()
    assert 0 < bytes_on_disk(tmp_path / "store") < 1 << 20


def test_the_result_has_every_case_and_its_plot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = measure(SMALL, lambda _: None).as_dict()
    peers = list(stores())[1:]
    cases = [(row["case"], row["peer"]) for row in found["rows"]]
    assert cases[: 2 * len(peers) * len(GROUPS)] == [
        (f"commit of {group}, {name}", peer) for group in GROUPS for name in ("p50", "p99") for peer in peers
    ]
    assert {case for case, _ in cases[-2 * len(peers) :]} == {
        "load of 100 entries", "bytes on the disk for a byte of payload"
    }  # fmt: skip
    assert all(row["ours"] > 0 and row["peer_value"] > 0 for row in found["rows"])
    assert list(tmp_path.iterdir()) == [], "what was measured is removed"
    (plot,) = write_plots(found, tmp_path)
    assert ElementTree.parse(plot).getroot().tag.endswith("svg")


def test_a_missing_peer_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(UsageError, match=re.escape("LMDB is not installed; run `make setup`")):
        stores()
