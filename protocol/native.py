"""Which form of a module is imported: its source, or what ``native_build`` has compiled from that very source.

The compiled form counts only if nothing that it was made from has changed since. So an edit is never without effect: it
sends the whole swarm back to its sources, until ``make native``. The variable SWARM_NATIVE decides otherwise: 0 for the
sources, 1 to fail rather than to fall back.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Iterable
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
BUILD: Final = ROOT / "build" / "native"
VARIABLE: Final = "SWARM_NATIVE"
ROOMS: Final = ("consensus", "profiling", "protocol")
"""Whose sources the compiled modules are made from: constants and types of others are compiled in."""
ON_TOP: Final = ROOT / "profiling" / "bench"
"""Nothing that is compiled imports from there,"""
STORE: Final = ON_TOP / "lane"
"""but the application that the lane is measured with."""
SUFFIX: Final = str(sysconfig.get_config_var("EXT_SUFFIX"))
SHARED: Final = "swarm__mypyc"
"""The library that holds the code of all compiled modules."""


def fingerprint(further: Iterable[str] = ()) -> str:
    """Of everything that the compiled modules are made from, ``further`` ones outside of the rooms among them, and for
    which Python."""
    digest = hashlib.sha256(SUFFIX.encode())
    for room in ROOMS:
        for source in sorted((ROOT / room).rglob("*.py")):
            if ON_TOP in source.parents and STORE not in source.parents:
                continue
            _take_in(digest, source)
    for module in sorted(further):
        _take_in(digest, ROOT / f"{module}.py")
    return digest.hexdigest()


def _take_in(digest: hashlib._Hash, source: Path) -> None:
    digest.update(source.relative_to(ROOT).as_posix().encode() + b"\0" + source.read_bytes())


def manifest(build: Path = BUILD) -> Path:
    """What tells what a build was made from: written last."""
    return build / "manifest.json"


@cache
def in_use() -> bool:
    """Whether this process imports compiled modules."""
    wish = os.environ.get(VARIABLE, "")
    if wish not in ("", "0", "1"):
        raise SystemExit(f"error: {VARIABLE}={wish}: use 0 for the sources, 1 for compiled modules, or leave it out")
    if wish == "0":
        return False
    found = is_current()
    if wish == "1" and not found:
        raise SystemExit(f"error: {VARIABLE}=1 and no compiled modules of these sources in {BUILD}: run `make native`")
    return found


def is_current(further: Iterable[str] = ()) -> bool:
    """Whether the compiled modules that are there were made from these very sources, and ``further`` ones are among
    them."""
    try:
        found = json.loads(manifest().read_text())
        return set(further) <= set(found["further"]) and bool(found["fingerprint"] == fingerprint(found["further"]))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def search_path(package: str, path: Iterable[str]) -> list[str]:
    """Where to look for a package's modules: its ``__path__``, behind the compiled ones if they are in use."""
    if not in_use():
        return list(path)
    _load_shared()
    return [str(BUILD.joinpath(*package.split("."))), *path]


def _load_shared() -> None:
    """The compiled modules ask for it by this name, and it stands in no directory of ``sys.path``."""
    if SHARED in sys.modules:
        return
    file = str(BUILD / (SHARED + SUFFIX))
    spec = spec_from_file_location(SHARED, file, loader=ExtensionFileLoader(SHARED, file))
    assert spec is not None and spec.loader is not None
    module = sys.modules[SHARED] = module_from_spec(spec)
    spec.loader.exec_module(module)
