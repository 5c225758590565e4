"""What the peers' client says when there are none."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiling.bench.peers.client import Peers
from protocol.errors import LocalMisuse, RunFailure, UsageError


def environment(folder: Path, script: str) -> Path:
    """An environment whose interpreter is a script."""
    (folder / "bin").mkdir()
    python = folder / "bin" / "python"
    python.write_text(f"#!/bin/sh\n{script}\n")
    python.chmod(0o755)
    return folder


def test_a_missing_environment_names_the_mend(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="make setup-bench") as caught:
        Peers(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_missing_peer_names_the_mend(tmp_path: Path) -> None:
    script = """read line; echo '{"missing": "No module named aeon"}'; read line"""
    expected = pytest.raises(UsageError, match="No module named aeon; run `make setup-bench`")
    with Peers(environment(tmp_path, script)) as peers, expected:
        peers.versions()


def test_missing_node_names_the_mend(tmp_path: Path) -> None:
    with Peers(environment(tmp_path, "read line")) as peers, pytest.raises(UsageError, match="node is missing"):
        peers.run("javascript", "pair", a="a", b="b", band=None)


def test_a_process_that_ends_is_a_failure_with_its_last_words(tmp_path: Path) -> None:
    script = "echo all is lost >&2; exit 3"
    with Peers(environment(tmp_path, script)) as peers, pytest.raises(RunFailure, match="all is lost"):
        peers.versions()


def test_an_array_that_was_never_put_is_our_mistake(tmp_path: Path) -> None:
    with Peers(environment(tmp_path, "read line")) as peers, pytest.raises(LocalMisuse, match="put as rows"):
        peers.run("aeon", "pairwise", rows="rows", band=None)
