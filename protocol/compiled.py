"""Functions from their source, as ``dataclasses`` makes its own: a loop over fields would cost more than the fields."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def compiled(name: str, parameters: str, lines: Sequence[str], names: Mapping[str, Any]) -> Callable[..., Any]:
    """The function whose body are these lines, without its indentation. They know ``names`` and builtins, and come from
    our own schema alone: never from a peer or a user."""
    scope = dict(names)
    exec("\n    ".join([f"def {name}({parameters}):", *lines]), scope)
    function: Callable[..., Any] = scope[name]
    return function
