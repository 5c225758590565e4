"""The small parts of the lane's machine, each against an obvious model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from consensus.raft.inflight import Inflight


@given(
    st.integers(1, 4),
    st.integers(1, 300),
    st.lists(st.tuples(st.sampled_from(("add", "free", "clear")), st.integers(1, 120)), max_size=40),
)
def test_the_window_is_what_was_added_and_not_answered(
    count_max: int, bytes_max: int, steps: list[tuple[str, int]]
) -> None:
    """Seeded bug 16: an in-flight window that is never freed after loss."""
    window, model, last = Inflight(count_max, bytes_max), list[tuple[int, int]](), 0
    for verb, number in steps:
        if verb == "add" and not window.full:
            last += 1
            window.add(last, number)
            model.append((last, number))
        elif verb == "free":
            window.free(last - number % 4)
            model = [(index, size) for index, size in model if index > last - number % 4]
        elif verb == "clear":
            window.clear()
            model = []
        assert (len(window), window.bytes) == (len(model), sum(size for _, size in model))
        assert window.full == (len(model) >= count_max or window.bytes >= bytes_max)
        window.check_invariants(model[0][0] - 1 if model else last, last + 1)
