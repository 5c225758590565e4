"""``python -m protocol.native_build [MODULE ...]``: compile the hot modules with mypyc, from their own sources and
types, and further ones that run around them, such as the simulator of the tests.

What is compiled are machines and what surrounds them: attributes and calls between them become C. Not in the list are
modules of plain data, which msgspec and dataclasses make at least as well, and those that inherit from a QUIC library's
classes, which mypyc cannot. ``docs/native.md`` has what it is worth.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from protocol.native import BUILD, ROOT, SHARED, VARIABLE, fingerprint, is_current, manifest

MODULES: Final = (
    "consensus/assembly", "consensus/decisions", "consensus/disk", "consensus/frames", "consensus/lane",
    "consensus/quorum", "consensus/replica", "consensus/route", "consensus/runner", "consensus/storage",
    "consensus/storage_checkpoint", "consensus/storage_file", "consensus/storage_log", "consensus/storage_room",
    "consensus/storage_rows", "consensus/storage_witness", "consensus/voting",
    "consensus/raft/admission", "consensus/raft/change", "consensus/raft/core", "consensus/raft/election",
    "consensus/raft/inflight", "consensus/raft/install", "consensus/raft/leadership", "consensus/raft/log",
    "consensus/raft/membership", "consensus/raft/progress", "consensus/raft/proposals", "consensus/raft/reading",
    "consensus/raft/replication", "consensus/raft/rounds", "consensus/raft/snapshot", "consensus/raft/state",
    "consensus/raft/thrift", "consensus/raft/transfer", "consensus/raft/writes",
    "protocol/batch", "protocol/codec_capnp", "protocol/credit", "protocol/endpoint", "protocol/framing",
    "protocol/intake", "protocol/overlay_read", "protocol/overlay_write", "protocol/peer", "protocol/rows",
    "protocol/segment", "protocol/sequence",
    "protocol/quic/books", "protocol/quic/calm", "protocol/quic/calm_stream", "protocol/quic/calm_way",
    "protocol/quic/driver", "protocol/quic/fast_receive", "protocol/quic/fast_send", "protocol/quic/link",
    "protocol/quic/newreno", "protocol/quic/packets", "protocol/quic/polling", "protocol/quic/port",
    "protocol/quic/sealing", "protocol/quic/settled_way", "protocol/quic/short_way",
    "profiling/bench/lane/embedded", "profiling/bench/lane/service", "profiling/bench/lane/store",
)  # fmt: skip
"""Without their suffix, from the project's root."""


FOLDERS_ARE_PACKAGES: Final = ("--explicit-package-bases", "--namespace-packages")
"""Even those that have no ``__init__``."""
LOG: Final = BUILD.parent / "native.log"
"""What was said when compiling failed, behind the fingerprint of what was compiled."""
WITHOUT: Final = "the swarm runs from its sources, which is slower (docs/native.md)"


def missing() -> str | None:
    """What this machine lacks to compile, or None."""
    compiler = str(sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        return f"no C compiler ({compiler})"
    if not (Path(sysconfig.get_paths()["include"]) / "Python.h").exists():
        return "no headers of Python (Debian: python3-dev)"
    return None


def build(target: Path, further: Sequence[str] = ()) -> None:
    """Compile into ``target``. Raises what mypyc or the C compiler raises, ``SystemExit`` among them."""
    from mypyc.build import mypycify
    from setuptools import Distribution

    extensions = mypycify(
        [*FOLDERS_ARE_PACKAGES, *(f"{module}.py" for module in (*MODULES, *further))],
        group_name=SHARED.removesuffix("__mypyc"),
        opt_level="2",
        debug_level="0",
        target_dir=str(target / "c"),
    )
    command = Distribution({"name": "swarm-native", "ext_modules": extensions}).get_command_obj("build_ext")
    command.build_lib, command.build_temp = str(target), str(target / "temporary")
    command.parallel = os.cpu_count()
    command.ensure_finalized()
    command.run()


def main(further: Sequence[str] = ()) -> None:
    """Build beside the last one and take its place only when everything is there. Nothing that can go wrong here keeps
    anybody from running the sources."""
    unknown = [module for module in further if not (ROOT / f"{module}.py").is_file()]
    if unknown:
        raise SystemExit(f"error: no module {', '.join(unknown)}: name files below {ROOT}, without their suffix")
    made_from = fingerprint(further)
    if is_current(further):
        return manifest().touch()  # for make, which knows times only
    if (lack := missing()) is not None:
        return print(f"{lack}: {WITHOUT}")  # noqa: T201
    if LOG.exists() and LOG.read_text().startswith(made_from):
        return print(f"compiling these sources failed before: {WITHOUT}; {LOG} says why")  # noqa: T201
    print("compiling the hot modules, a minute or two (once for each change of the sources) ...", flush=True)  # noqa: T201
    LOG.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=LOG.parent) as scratch:
        target = Path(scratch) / "native"
        work = f"from protocol.native_build import build, Path; build(Path({str(target)!r}), {list(further)!r})"
        environment = {**os.environ, VARIABLE: "0"}
        done = subprocess.run([sys.executable, "-c", work], cwd=ROOT, env=environment, capture_output=True, text=True)
        if done.returncode:
            LOG.write_text(f"{made_from}\n{done.stdout}{done.stderr}")
            return print(f"compiling failed: {WITHOUT}; {LOG} says why")  # noqa: T201
        for scrap in ("c", "temporary"):
            shutil.rmtree(target / scrap, ignore_errors=True)
        manifest(target).write_text(json.dumps({"fingerprint": made_from, "further": list(further)}))
        shutil.rmtree(BUILD, ignore_errors=True)
        target.rename(BUILD)
    return None


if __name__ == "__main__":
    main(sys.argv[1:])
