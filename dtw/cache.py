"""Where numba keeps compiled kernels, so that many agent processes compile them once.

``NUMBA_CACHE_DIR`` wins if it is set. Otherwise the directory is ``$XDG_CACHE_HOME`` (or ``~/.cache``)
``/trading-swarm/numba/<machine>-<python>-numba-<version>-numpy-<version>``, private to the user because numba unpickles
what it finds there. Where that cannot be written, numba is left to its own default, ``__pycache__`` beside the source.

Below either lies a directory named after the contents of the files in PARTS. Their functions are inlined into entries
of other files, and numba would not notice that they changed: it looks at the file of the entry alone.

The processor's name and features need no part in the path: numba keeps them in the key of every entry, so another
processor compiles anew and both sets of entries live side by side.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Final

PARTS: Final = ("lanes.py", "bounds.py", "choice.py", "moments.py", "moving.py", "cascade.py", "reference.py")
"""Files of this room whose compiled functions are inlined into those of other files, or called by them."""


def parts_digest(directory: Path = Path(__file__).parent) -> str:
    """A short name for the contents of PARTS."""
    digest = hashlib.sha256()
    for name in PARTS:
        digest.update((directory / name).read_bytes())
    return digest.hexdigest()[:12]


def default_cache_directory() -> Path:
    """The per-user directory for this machine type and these versions. Reads the environment, touches no disk."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path("~").expanduser() / ".cache")
    python = f"{sys.implementation.cache_tag}"
    key = f"{platform.machine()}-{python}-numba-{version('numba')}-numpy-{version('numpy')}"
    return Path(base) / "trading-swarm" / "numba" / key


def configure_cache_directory() -> Path | None:
    """Set ``NUMBA_CACHE_DIR`` for this process and its children; None when nothing can be written.

    Works after numba was imported too, as long as no kernel of this room has been defined.
    """
    own = f"parts-{parts_digest()}"
    if chosen := os.environ.get("NUMBA_CACHE_DIR"):
        directory = Path(chosen) if Path(chosen).name == own else Path(chosen) / own
    else:
        try:
            directory = default_cache_directory() / own
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except (OSError, RuntimeError):  # no home, or one that is read-only
            return None
        if not os.access(directory, os.W_OK | os.X_OK):
            return None
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    numba = sys.modules.get("numba")
    if numba is not None:
        numba.config.CACHE_DIR = str(directory)
    return directory
