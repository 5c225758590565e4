"""A file system that forgets, at a power loss, every name whose directory was not synced: what POSIX promises, no more.

It watches this process's own calls of ``os``. Contents are not its business, only names.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from unittest.mock import patch


class PowerLoss:
    """While it is entered, it keeps a list of the names under ``root`` that a power loss would take."""

    def __init__(self, root: Path) -> None:
        self._root = root.resolve()
        self._unsynced: set[Path] = set()
        self._patches = [
            patch.object(os, name, self._watched(getattr(os, name))) for name in ("mkdir", "rename", "replace")
        ]
        self._patches.append(patch.object(os, "fsync", self._fsync(os.fsync)))

    def __enter__(self) -> Self:
        for each in self._patches:
            each.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for each in self._patches:
            each.stop()

    @property
    def unsynced(self) -> list[Path]:
        """Names that only the cache knows."""
        return sorted(self._unsynced)

    def strike(self, target: Path) -> Path:
        """What the disk has after a power loss now, as a copy."""
        lost = {str(path) for path in self._unsynced}

        def forgotten(folder: str, names: list[str]) -> list[str]:
            return [name for name in names if str(Path(folder) / name) in lost]

        shutil.copytree(self._root, target, ignore=forgotten)
        return target

    def _watched(self, call: Any) -> Any:
        """Makes a name: the last path among its arguments."""

        def wrapper(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            made = [Path(argument).resolve() for argument in arguments if isinstance(argument, str | os.PathLike)][-1]
            if made.is_relative_to(self._root):
                self._unsynced.add(made)
            return result

        return wrapper

    def _fsync(self, call: Any) -> Any:
        def wrapper(descriptor: int) -> None:
            call(descriptor)
            synced = Path(f"/proc/self/fd/{descriptor}").readlink()
            self._unsynced = {path for path in self._unsynced if path.parent != synced}

        return wrapper
