"""Whether a history of a key-value service is linearizable (Herlihy and Wing, 1990): whether every operation can be
given one moment between its call and its return so that, in the order of these moments, a single table explains all
results. An operation whose outcome is unknown may have taken effect at any time after its call, or never.

The search is Wing and Gong's in Lowe's form ("Testing for linearizability", 2017): operations take effect as late as
they can, at the next return that needs one, and no configuration is visited twice. Keys are independent, so each is
searched alone (P-compositionality, Horn and Kroening 2015).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

STEPS_MAX: Final = 200_000
ABSENT: Final = None
"""What a key holds that was never put."""


@dataclass(frozen=True, slots=True)
class Operation:
    """One call of a client. A client that calls again after an unknown outcome should do so under another number."""

    client: int
    key: Any
    kind: str
    """"get", "put" or "cas"."""
    argument: Any
    """What to put; for a cas, (expected, new); nothing for a get."""
    result: Any
    """What a get saw, and whether a cas took place. Of no meaning while the outcome is unknown."""
    invoked_ns: int
    returned_ns: int | None = None
    """None: nobody knows whether it took place."""


class Undecided(Exception):
    """The search ran out of steps. Nothing is known to be wrong."""


def violation(history: Iterable[Operation], steps_max: int = STEPS_MAX) -> str | None:
    """What cannot be explained, in a sentence with the operations around it; None when the history is linearizable.

    Raises ``Undecided`` when one key takes more than ``steps_max`` steps to search.
    """
    keys: dict[Any, list[Operation]] = {}
    for operation in history:
        keys.setdefault(operation.key, []).append(operation)
    for key in sorted(keys, key=str):
        stuck = _Search(keys[key], steps_max).stuck_at()
        if stuck is not None:
            return _explain(key, keys[key], stuck)
    return None


def perform(state: Any, operation: Operation) -> tuple[Any, Any]:
    """The sequential service: the key's next value and the operation's result."""
    match operation.kind:
        case "get":
            return state, state
        case "put":
            return operation.argument, None
        case "cas":
            expected, new = operation.argument
            return (new, True) if state == expected else (state, False)
    raise ValueError(f"operation {operation.kind!r}: use get, put or cas")


@dataclass(frozen=True, slots=True)
class _Configuration:
    """So many events are explained; of the open operations these have taken effect, and the key holds ``state``."""

    event: int
    done: frozenset[int]
    state: Any
    wants_reader: bool = False
    """The last effect was of an unknown outcome. It was worth assuming only if the next one reads what it left."""


class _Search:
    """One key. Operations are known by their position, and come in the order of their calls."""

    def __init__(self, operations: list[Operation], steps_max: int) -> None:
        # A get that nobody got an answer to explains nothing and hinders nothing.
        known = [each for each in operations if each.returned_ns is not None or each.kind != "get"]
        self.operations = sorted(known, key=lambda each: each.invoked_ns)
        self._steps_left = steps_max
        self._returns, self._open_at = _events(self.operations)
        self._furthest = 0

    def stuck_at(self) -> Operation | None:
        """The first operation whose return no order of effects can explain."""
        visited: set[_Configuration] = set()
        stack = [_Configuration(0, frozenset(), ABSENT)]
        while stack:
            configuration = stack.pop()
            if configuration in visited:
                continue
            visited.add(configuration)
            self._steps_left -= 1
            if self._steps_left < 0:
                raise Undecided(f"{len(self.operations)} operations on key {self.operations[0].key!r}")
            self._furthest = max(self._furthest, configuration.event)
            if configuration.event == len(self._returns):
                return None
            stack.extend(self._successors(configuration))
        return self.operations[self._returns[self._furthest]]

    def _successors(self, now: _Configuration) -> Iterator[_Configuration]:
        """The least promising first, since the last one is searched next."""
        returning = self._returns[now.event]
        if returning in now.done:
            if not now.wants_reader:
                yield _Configuration(now.event + 1, now.done - {returning}, now.state)
            return
        open_now = [each for each in self._open_at[now.event] if each not in now.done]
        for position in sorted(open_now, key=lambda each: (each == returning, self._promise(each))):
            effect = self._effect(now, position)
            if effect is not None and (not effect.wants_reader or self._has_reader(effect, now.state, open_now)):
                yield effect

    def _promise(self, position: int) -> int:
        """Known outcomes before unknown ones, early returns before late ones."""
        returned_ns = self.operations[position].returned_ns
        return -(2**63) if returned_ns is None else -returned_ns

    def _effect(self, now: _Configuration, position: int) -> _Configuration | None:
        """What holds after the operation has taken effect, if its result allows that now."""
        operation = self.operations[position]
        if now.wants_reader and operation.kind == "put":
            return None
        state, result = perform(now.state, operation)
        unknown = operation.returned_ns is None
        if unknown and state == now.state:
            return None  # an effect that changes nothing may as well not have been
        if not unknown and operation.kind != "put" and result != operation.result:
            return None
        return _Configuration(now.event, now.done | {position}, state, unknown)

    def _has_reader(self, effect: _Configuration, before: Any, open_now: list[int]) -> bool:
        return any(_reads(self.operations[each], before, effect.state) for each in open_now if each not in effect.done)


def _reads(operation: Operation, before: Any, after: Any) -> bool:
    """Whether a change from ``before`` to ``after`` can be what the operation needs to take effect."""
    match operation.kind:
        case "get":
            return bool(operation.result == after)
        case "cas":
            expected, _ = operation.argument
            failed = operation.returned_ns is not None and not operation.result
            return bool(expected == before) if failed else bool(expected == after)
    return False


def _events(operations: list[Operation]) -> tuple[list[int], list[list[int]]]:
    """Positions in the order of their returns, and for each return those that were open then, itself included. What
    returns and what is called at the same moment was open together."""
    moments = [(each.invoked_ns, 0, place) for place, each in enumerate(operations)]
    moments += [(each.returned_ns, 1, place) for place, each in enumerate(operations) if each.returned_ns is not None]
    returns, open_at = [], []
    open_now: dict[int, None] = {}
    for _, ends, place in sorted(moments):
        if ends:
            returns.append(place)
            open_at.append(list(open_now))
            del open_now[place]
        else:
            open_now[place] = None
    return returns, open_at


def _explain(key: Any, operations: list[Operation], stuck: Operation) -> str:
    assert stuck.returned_ns is not None
    before = [each for each in operations if each.invoked_ns <= stuck.returned_ns]
    lines = [describe(each) for each in sorted(before, key=lambda each: each.invoked_ns)[-8:]]
    return f"key {key!r}: nothing explains {describe(stuck)}; before it returned: " + "; ".join(lines)


def describe(operation: Operation) -> str:
    """One operation in a few words."""
    end = "unknown" if operation.returned_ns is None else f"{operation.result!r} at {operation.returned_ns}"
    given = "" if operation.kind == "get" else f" {operation.argument!r}"
    return f"client {operation.client} {operation.kind}{given} from {operation.invoked_ns}: {end}"
