"""The checker itself, on histories made by hand and on small ones that a slower twin decides."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest

from tests.oracles.linearizability import ABSENT, Operation, Undecided, perform, violation


def put(value: Any, start: int, end: int | None, client: int = 0, key: str = "k") -> Operation:
    return Operation(client, key, "put", value, None, start, end)


def get(seen: Any, start: int, end: int, client: int = 1, key: str = "k") -> Operation:
    return Operation(client, key, "get", None, seen, start, end)


def cas(expected: Any, new: Any, took_place: bool, start: int, end: int | None, client: int = 2) -> Operation:
    return Operation(client, "k", "cas", (expected, new), took_place, start, end)


GOOD = {
    "nothing": [],
    "an absent key": [get(ABSENT, 0, 1)],
    "one after another": [put(1, 0, 1), get(1, 2, 3), put(2, 4, 5), get(2, 6, 7)],
    "a get may see a put that is under way": [put(1, 0, 10), get(1, 2, 3)],
    "or not yet": [put(1, 0, 10), get(ABSENT, 2, 3)],
    "puts take effect in either order": [put(1, 0, 10), put(2, 0, 10, 3), get(2, 11, 12), get(2, 13, 14)],
    "an unknown put may take effect late": [put(1, 0, None), get(ABSENT, 5, 6), get(1, 7, 8)],
    "or never": [put(1, 0, None), get(ABSENT, 5, 6), get(ABSENT, 700, 701)],
    "an unknown cas explains a value": [put(1, 0, 1), cas(1, 2, False, 2, None), get(2, 3, 4)],
    "one of two cas wins": [put(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, False, 2, 9, 3), get(2, 10, 11)],
    "keys do not mind each other": [put(1, 0, 1, key="a"), get(ABSENT, 2, 3, key="b")],
    "calls and returns at one moment are concurrent": [put(1, 0, 5), get(ABSENT, 5, 6)],
}
BAD = {
    "a stale get": [put(1, 0, 1), put(2, 2, 3), get(1, 4, 5)],
    "a value out of nowhere": [put(1, 0, 1), get(7, 2, 3)],
    "a lost put": [put(1, 0, 1), get(ABSENT, 2, 3)],
    "back in time": [put(1, 0, 1), put(2, 2, 20), get(2, 3, 4), get(1, 5, 6)],
    "an unknown put undone": [put(1, 0, 1), put(2, 2, None), get(2, 3, 4), get(1, 5, 6)],
    "an effect before the call": [get(1, 0, 1), put(1, 2, 3)],
    "an unknown effect before the call": [get(1, 0, 1), put(1, 2, None)],
    "both cas win": [put(1, 0, 1), cas(1, 2, True, 2, 9), cas(1, 3, True, 2, 9, 3)],
    "a cas that failed without need": [put(1, 0, 1), cas(1, 2, False, 2, 3)],
    "two readers disagree on the order": [
        put(1, 0, 50), put(2, 0, 50, 3), get(1, 1, 2), get(2, 3, 4), get(2, 1, 2, 4), get(1, 5, 6, 4),
    ],
}  # fmt: skip


@pytest.mark.parametrize("history", GOOD.values(), ids=GOOD.keys())
def test_linearizable(history: list[Operation]) -> None:
    assert violation(history) is None


@pytest.mark.parametrize("history", BAD.values(), ids=BAD.keys())
def test_not_linearizable(history: list[Operation]) -> None:
    assert "key 'k': nothing explains" in (violation(history) or "")


def explained(history: list[Operation]) -> bool:
    """The definition itself: some order of some of them, no unknown one needed, respects time and results."""
    known = [each for each in history if each.returned_ns is not None]
    unknown = [each for each in history if each.returned_ns is None]
    for count in range(len(unknown) + 1):
        for some in itertools.combinations(unknown, count):
            if any(fits(order) for order in itertools.permutations([*known, *some])):
                return True
    return False


def fits(order: tuple[Operation, ...]) -> bool:
    state: Any = ABSENT
    for place, operation in enumerate(order):
        if any(each.returned_ns is not None and each.returned_ns < operation.invoked_ns for each in order[place + 1 :]):
            return False
        state, result = perform(state, operation)
        if operation.returned_ns is not None and operation.kind != "put" and result != operation.result:
            return False
    return True


def random_history(rng: random.Random) -> list[Operation]:
    history = []
    for client in range(rng.randint(1, 5)):
        start = rng.randint(0, 8)
        end = None if rng.random() < 0.25 else start + rng.randint(0, 6)
        value = rng.choice((ABSENT, 1, 2))
        kind = rng.choice(("get", "put", "cas"))
        if kind == "get":
            history.append(get(value, start, start + 2, client))
        elif kind == "put":
            history.append(put(rng.randint(1, 2), start, end, client))
        else:
            history.append(cas(value, rng.randint(1, 2), rng.random() < 0.5, start, end, client))
    return history


def test_agrees_with_the_definition() -> None:
    rng = random.Random(3)
    verdicts = []
    for _ in range(2000):
        history = random_history(rng)
        verdicts.append(violation(history) is None)
        assert verdicts[-1] == explained(history), history
    assert 0.2 < sum(verdicts) / len(verdicts) < 0.8


def test_a_long_history_with_many_unknown_outcomes_is_quick() -> None:
    """What a run over real processes leaves behind."""
    history, value = [], None
    for step in range(400):
        if step % 8 == 0:
            history.append(put(f"lost {step}", 10 * step, None, step))
        history.append(put(step, 10 * step, 10 * step + 4))
        value = step
        history.append(get(value, 10 * step + 5, 10 * step + 9))
    assert violation(history) is None
    assert violation([*history, get(3, 9000, 9001)], steps_max=10**6) is not None


def test_the_search_is_bounded() -> None:
    history = [put(value, 0, 100, value) for value in range(12)] + [get(99, 101, 102)]
    with pytest.raises(Undecided):
        violation(history, steps_max=500)
