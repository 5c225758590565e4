"""Batch numbers: one delivery on one channel, whatever a peer makes up."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import PeerViolation
from protocol.sequence import CHANNELS, SequenceIn, SequenceOut


@given(st.lists(st.integers(0, CHANNELS - 1)), st.randoms())
def test_what_is_sent_is_taken_in_any_interleaving_of_channels(channels: list[int], order: object) -> None:
    out, taken = SequenceOut(), SequenceIn()
    queues: dict[int, list[int]] = {channel: [] for channel in range(CHANNELS)}
    for channel in channels:
        queues[channel].append(out.next(channel))
    numbers = [number for queue in queues.values() for number in queue]
    assert len(set(numbers)) == len(numbers)
    while any(queues.values()):
        channel = order.choice([channel for channel, queue in queues.items() if queue])  # type: ignore[attr-defined]
        taken.take(channel, queues[channel].pop(0))
    assert taken.highest == max(numbers, default=0)


@given(st.lists(st.tuples(st.integers(0, CHANNELS - 1), st.integers(0, 40)), max_size=60))
def test_no_number_is_taken_twice(attempts: list[tuple[int, int]]) -> None:
    incoming, taken = SequenceIn(), []
    for channel, number in attempts:
        try:
            incoming.take(channel, number)
        except PeerViolation as violation:
            assert violation.reason in ("replayed", "wrong_channel")
        else:
            taken.append(number)
    assert len(set(taken)) == len(taken)
    assert 0 not in taken


def test_a_channel_has_its_own_numbers() -> None:
    incoming = SequenceIn()
    incoming.take(1, 5)
    for channel, number, reason in ((1, 5, "replayed"), (1, 1, "replayed"), (2, 5, "wrong_channel")):
        with pytest.raises(PeerViolation) as caught:
            incoming.take(channel, number)
        assert caught.value.reason == reason
    incoming.take(1, 401)
    assert incoming.highest == 401
