"""Quorum arithmetic: the sizes of design section 5.1, and the intersection that safety rests on."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.quorum import Quorum, agreed_index


@pytest.mark.parametrize(
    ("n", "f", "profile", "size", "weak", "denial"),
    [
        (4, 1, "hybrid", 3, 2, 2),
        (4, 1, "pbft", 3, 2, 2),
        (7, 2, "hybrid", 5, 3, 3),
        (5, 1, "hybrid", 4, 2, 2),
        (6, 1, "pbft", 4, 2, 3),
        (1, 0, "hybrid", 1, 1, 1),
        (4, 1, "raft", 3, 2, 2),
        (3, 1, "raft", 2, 2, 2),
        (5, 2, "raft", 3, 3, 3),
        (7, 3, "raft", 4, 4, 4),
    ],
)
def test_sizes(n: int, f: int, profile: str, size: int, weak: int, denial: int) -> None:
    quorum = Quorum(n, f, profile)
    assert (quorum.size, quorum.weak, quorum.denial) == (size, weak, denial)


@pytest.mark.parametrize(
    ("n", "f", "profile", "mend"),
    [
        (3, 1, "hybrid", "use at least 4 replicas, or set f to at most 0"),
        (6, 2, "pbft", "use at least 7 replicas, or set f to at most 1"),
        (2, 1, "raft", "use at least 3 replicas, or set f to at most 0"),
        (4, 1, "paxos", "use one of hybrid, pbft, raft"),
        (0, 0, "raft", "use at least one replica"),
        (4, -1, "hybrid", "no negative number"),
    ],
)
def test_refusals_name_the_mend(n: int, f: int, profile: str, mend: str) -> None:
    with pytest.raises(ValueError, match=mend):
        Quorum(n, f, profile)


@pytest.mark.parametrize("f", [0, 1, 2])
@pytest.mark.parametrize("more", [0, 1, 2])
def test_any_two_quorums_share_an_honest_replica(f: int, more: int) -> None:
    n = 3 * f + 1 + more
    quorum = Quorum(n, f, "hybrid")
    smallest = min(
        len(set(one) & set(other))
        for one in combinations(range(n), quorum.size)
        for other in combinations(range(n), quorum.size)
    )
    assert smallest >= f + 1


@given(f=st.integers(0, 40), more=st.integers(0, 40), profile=st.sampled_from(["hybrid", "pbft", "raft"]))
def test_laws(f: int, more: int, profile: str) -> None:
    byzantine = profile != "raft"
    n = (3 if byzantine else 2) * f + 1 + more
    quorum = Quorum(n, f, profile)
    shared = 2 * quorum.size - n
    assert shared >= (f + 1 if byzantine else 1)
    assert 2 * (quorum.size - 1) - n < (f + 1 if byzantine else 1), "a smaller quorum would do"
    assert quorum.size <= n - f, "faulty replicas could withhold a decision for ever"
    assert quorum.size + quorum.denial == n + 1, "one more denial than a quorum can spare"


@given(st.data())
def test_agreed_index_against_counting(data: st.DataObject) -> None:
    matches = data.draw(st.lists(st.integers(0, 50), min_size=1, max_size=9))
    size = data.draw(st.integers(1, len(matches)))
    counted = max(index for index in range(51) if sum(match >= index for match in matches) >= size)
    assert agreed_index(matches, size) == counted
