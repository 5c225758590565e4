from __future__ import annotations

import gzip
import hashlib
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from agents.data import catalog
from agents.data.catalog import SYNTHETIC, Source
from protocol.errors import RunFailure, UsageError
from tests.oracles.agent_examples import content, table

TABLE = content(table())
PACKAGE = "swarm-test-data"
MEMBER = "swarm_test_data/prices.csv.gz"


def make_wheel(folder: Path) -> Path:
    """A real wheel that holds nothing but a table."""
    info = "swarm_test_data-1.0.dist-info"
    files = {
        MEMBER: gzip.compress(TABLE, mtime=0),
        f"{info}/METADATA": b"Metadata-Version: 2.1\nName: swarm-test-data\nVersion: 1.0\n",
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{name},,\n" for name in [*files, f"{info}/RECORD"]).encode()
    path = folder / "swarm_test_data-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A known package in a local folder; the package client is the real one, but sees no index."""
    shelf = tmp_path / "shelf"
    shelf.mkdir()
    wheel = make_wheel(shelf)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(shelf))
    monkeypatch.setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
    found = Source(
        name="tiny",
        package=PACKAGE,
        version="1.0",
        wheel_sha256=hashlib.sha256(wheel.read_bytes()).hexdigest(),
        member=MEMBER,
        table_sha256=hashlib.sha256(TABLE).hexdigest(),
        license="CC0-1.0",
        description="two symbols",
    )
    offer(monkeypatch, found)
    return found


def offer(monkeypatch: pytest.MonkeyPatch, source: Source) -> None:
    monkeypatch.setattr(catalog, "SOURCES", {source.name: source})


def test_a_table_is_fetched_once_and_described(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "data"
    path = catalog.fetch("tiny", directory)
    assert path.read_bytes() == TABLE
    manifest = json.loads((directory / "tiny.manifest.json").read_text())
    assert manifest["sha256"] == source.table_sha256
    assert manifest["wheel_sha256"] == source.wheel_sha256
    assert sorted(entry.name for entry in directory.iterdir()) == ["tiny.csv", "tiny.manifest.json"]

    monkeypatch.setattr(catalog, "_download", None)  # a second fetch must not need it
    assert catalog.fetch("tiny", directory) == path
    data = catalog.load("tiny", directory, seed=1)
    assert data.sha256 == source.table_sha256
    assert data.synthetic is False
    monkeypatch.setenv("SWARM_DATA_DIR", str(directory))
    assert catalog.symbols("tiny") == ["AAA", "BBB"]


def test_a_damaged_copy_is_fetched_again(source: Source, tmp_path: Path) -> None:
    directory = tmp_path / "data"
    directory.mkdir()
    (directory / "tiny.csv").write_bytes(TABLE + b"tampered\n")
    assert catalog.fetch("tiny", directory).read_bytes() == TABLE


def test_another_wheel_is_refused(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, replace(source, wheel_sha256="0" * 64))
    with pytest.raises(RunFailure, match=r"fetching swarm-test-data 1\.0 failed") as caught:
        catalog.fetch("tiny", tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "data" / "tiny.csv").exists()


def test_another_table_is_refused(source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    offer(monkeypatch, replace(source, table_sha256="0" * 64))
    with pytest.raises(RunFailure, match="another table than expected; nothing was written"):
        catalog.fetch("tiny", tmp_path / "data")
    assert not list((tmp_path / "data").iterdir())


def test_no_package_and_no_package_client_are_told_apart(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offer(monkeypatch, replace(source, version="2.0"))
    with pytest.raises(RunFailure, match="check the network, or trade on generated data"):
        catalog.fetch("tiny", tmp_path / "data")
    client = tmp_path / "python"
    client.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
    client.chmod(0o755)
    monkeypatch.setattr(catalog.sys, "executable", str(client))
    with pytest.raises(RunFailure, match="has no pip"):
        catalog.fetch("tiny", tmp_path / "data")


def test_a_directory_that_cannot_be_made_is_named(source: Source, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunFailure, match=r"file/data cannot be made .*; set SWARM_DATA_DIR"):
        catalog.fetch("tiny", tmp_path / "file" / "data")


def test_unknown_names_list_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'moon' is unknown; choose one of us-large-caps, synthetic"):
        catalog.fetch("moon", tmp_path)
    with pytest.raises(UsageError, match="unknown"):
        catalog.symbols("moon")


def test_generated_data_needs_nothing(tmp_path: Path) -> None:
    data = catalog.load(SYNTHETIC, tmp_path, seed=3, symbols=2, bars=300)
    assert data.synthetic
    assert data.name == "synthetic-3"
    assert catalog.symbols(SYNTHETIC)[:2] == list(data.symbols)
    assert not list(tmp_path.iterdir())


def test_where_tables_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SWARM_DATA_DIR", "/somewhere")
    assert catalog.data_directory() == Path("/somewhere")
    monkeypatch.delenv("SWARM_DATA_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert catalog.data_directory() == tmp_path / "trading-swarm" / "data"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert catalog.data_directory() == tmp_path / ".cache" / "trading-swarm" / "data"
