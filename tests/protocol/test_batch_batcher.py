"""The batcher keeps order, priority and its bounds, at the sizes where such things break."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.batch import Batcher, BatchLimits, Channel, WouldBlock
from protocol.codec import codec_for
from protocol.envelope import BatchHeader, Envelope
from protocol.errors import LocalMisuse
from protocol.fields import ALL_TYPES, estimated_bytes
from protocol.messages import WIRE_TYPES, MarketAdvance, StatusReply
from tests.oracles.codec_examples import example


def envelope(index: int) -> Envelope:
    return Envelope(index, MarketAdvance(index))


def traces(frames: list[tuple[Channel, list[Envelope]]]) -> list[tuple[str, list[int]]]:
    return [(channel.name, [trace for trace, _ in envelopes]) for channel, envelopes in frames]


@pytest.mark.parametrize(
    ("batch_max", "expected"),
    [
        (1, [[0], [1], [2], [3], [4]]),
        (2, [[0, 1], [2, 3], [4]]),
        (3, [[0, 1, 2], [3, 4]]),
    ],
)
def test_batch_max(batch_max: int, expected: list[list[int]]) -> None:
    batcher = Batcher(BatchLimits(batch_max=batch_max))
    for index in range(5):
        batcher.push(envelope(index), Channel.ORDERS, now_ns=index)
    assert traces(batcher.frames_to_send(now_ns=9)) == [("ORDERS", batch) for batch in expected]
    assert batcher.frames_to_send(now_ns=9) == []
    assert batcher.statistics.messages == 5
    assert batcher.statistics.batches == len(expected)
    assert batcher.statistics.batch_messages_max == batch_max
    assert batcher.statistics.bytes_estimated == 5 * estimated_bytes(MarketAdvance(0))


@pytest.mark.parametrize("capacity", [1, 2, 3])
def test_queue_capacity(capacity: int) -> None:
    batcher = Batcher(BatchLimits(queue_max=capacity))
    for index in range(capacity):
        batcher.push(envelope(index), Channel.BULK, now_ns=0)
    with pytest.raises(WouldBlock) as caught:
        batcher.push(envelope(99), Channel.BULK, now_ns=0)
    assert (caught.value.channel, caught.value.depth) == (Channel.BULK, capacity)
    assert batcher.depth(Channel.BULK) == batcher.depth_peak(Channel.BULK) == capacity
    assert batcher.statistics.refused == 1
    batcher.push(envelope(7), Channel.CONTROL, now_ns=0)  # another channel has room of its own
    assert traces(batcher.frames_to_send(now_ns=0)) == [("CONTROL", [7]), ("BULK", list(range(capacity)))]
    batcher.push(envelope(8), Channel.BULK, now_ns=0)
    assert batcher.depth(Channel.BULK) == 1
    assert batcher.depth_peak(Channel.BULK) == capacity


def test_priority_is_strict_and_order_kept_within_a_channel() -> None:
    batcher = Batcher(BatchLimits(batch_max=2))
    for index, channel in enumerate([Channel.BULK, Channel.ORDERS, Channel.CONSENSUS, Channel.CONTROL] * 3):
        batcher.push(envelope(index), channel, now_ns=0)
    assert traces(batcher.frames_to_send(now_ns=0, frames_max=3)) == [
        ("CONTROL", [3, 7]),
        ("CONTROL", [11]),
        ("CONSENSUS", [2, 6]),
    ]
    batcher.push(envelope(12), Channel.CONTROL, now_ns=0)
    assert traces(batcher.frames_to_send(now_ns=0)) == [
        ("CONTROL", [12]),
        ("CONSENSUS", [10]),
        ("ORDERS", [1, 5]),
        ("ORDERS", [9]),
        ("BULK", [0, 4]),
        ("BULK", [8]),
    ]


def test_channels_waiting_are_those_with_messages_most_urgent_first() -> None:
    batcher = Batcher()
    assert batcher.channels_waiting() == []
    for channel in (Channel.BULK, Channel.CONSENSUS):
        batcher.push(Envelope(0, MarketAdvance(0)), channel, now_ns=0)
    assert batcher.channels_waiting() == [Channel.CONSENSUS, Channel.BULK]
    batcher.take(Channel.CONSENSUS, 0)
    assert batcher.channels_waiting() == [Channel.BULK]


@pytest.mark.parametrize("frames_max", [0, 1, 2])
def test_frames_max(frames_max: int) -> None:
    batcher = Batcher(BatchLimits(batch_max=1))
    for index in range(3):
        batcher.push(envelope(index), Channel.ORDERS, now_ns=0)
    assert len(batcher.frames_to_send(now_ns=0, frames_max=frames_max)) == frames_max
    assert batcher.depth(Channel.ORDERS) == 3 - frames_max


def test_bytes_bound_a_batch_and_a_large_message_travels_alone() -> None:
    small, large = StatusReply(1, b"x" * 100), StatusReply(2, b"x" * 5000)
    batcher = Batcher(BatchLimits(batch_bytes_max=3 * estimated_bytes(small)))
    for index, message in enumerate([small, small, large, small, small, small, small]):
        batcher.push(Envelope(index, message), Channel.BULK, now_ns=0)
    assert traces(batcher.frames_to_send(now_ns=0)) == [
        ("BULK", [0, 1]),
        ("BULK", [2]),
        ("BULK", [3, 4, 5]),
        ("BULK", [6]),
    ]


def test_bytes_bound_a_queue_but_never_an_empty_one() -> None:
    batcher = Batcher(BatchLimits(queue_bytes_max=1000))
    batcher.push(Envelope(0, StatusReply(1, b"x" * 5000)), Channel.BULK, now_ns=0)
    with pytest.raises(WouldBlock):
        batcher.push(envelope(1), Channel.BULK, now_ns=0)
    batcher.frames_to_send(now_ns=0)
    batcher.push(envelope(1), Channel.BULK, now_ns=0)


def test_timer_without_linger_is_at_once() -> None:
    batcher = Batcher()
    assert batcher.get_timer() is None
    batcher.push(envelope(0), Channel.BULK, now_ns=500)
    batcher.push(envelope(1), Channel.ORDERS, now_ns=400)
    assert batcher.get_timer() == 400
    batcher.frames_to_send(now_ns=500)
    assert batcher.get_timer() is None


def test_linger_holds_partial_batches_of_the_patient_channels() -> None:
    batcher = Batcher(BatchLimits(batch_max=3, linger_ns=200))
    batcher.push(envelope(0), Channel.ORDERS, now_ns=1000)
    assert batcher.get_timer() == 1200
    assert batcher.frames_to_send(now_ns=1199) == []
    batcher.push(envelope(1), Channel.CONSENSUS, now_ns=1199)
    assert batcher.get_timer() == 1199
    assert traces(batcher.frames_to_send(now_ns=1199)) == [("CONSENSUS", [1])]
    for index in (2, 3, 4):
        batcher.push(envelope(index), Channel.ORDERS, now_ns=1199)
    assert traces(batcher.frames_to_send(now_ns=1199)) == [("ORDERS", [0, 2, 3])]  # full: goes at once
    assert batcher.get_timer() == 1399
    assert traces(batcher.frames_to_send(now_ns=1399)) == [("ORDERS", [4])]


@settings(max_examples=60, deadline=None)
@given(
    batch_max=st.integers(1, 4),
    queue_max=st.integers(1, 6),
    steps=st.lists(st.one_of(st.sampled_from(list(Channel)), st.none(), st.integers(0, 3)), max_size=60),
)
def test_nothing_is_lost_doubled_or_reordered(
    batch_max: int, queue_max: int, steps: list[Channel | int | None]
) -> None:
    batcher = Batcher(BatchLimits(batch_max=batch_max, queue_max=queue_max))
    pushed: dict[Channel, list[int]] = {channel: [] for channel in Channel}
    sent: dict[Channel, list[int]] = {channel: [] for channel in Channel}
    refused = 0

    def drain(frames_max: int | None) -> None:
        frames = batcher.frames_to_send(now_ns=10**6, frames_max=frames_max)
        assert [channel for channel, _ in frames] == sorted(channel for channel, _ in frames)
        for channel, envelopes in frames:
            assert 1 <= len(envelopes) <= batch_max
            sent[channel] += [trace for trace, _ in envelopes]

    for index, step in enumerate(steps):
        if isinstance(step, Channel):
            try:
                batcher.push(envelope(index), step, now_ns=index)
                pushed[step].append(index)
            except WouldBlock:
                refused += 1
                assert batcher.depth(step) == queue_max
        else:
            drain(step)
        batcher.check_invariants()
    drain(None)
    assert sent == pushed
    assert batcher.statistics.refused == refused
    assert batcher.statistics.messages == sum(map(len, sent.values()))


@pytest.mark.parametrize(
    "limits",
    [
        {"batch_max": 0},
        {"batch_max": 4097},
        {"batch_bytes_max": 0},
        {"queue_max": 0},
        {"queue_bytes_max": 0},
        {"linger_ns": -1},
    ],
)
def test_limits_that_make_no_sense(limits: dict[str, int]) -> None:
    with pytest.raises(LocalMisuse):
        BatchLimits(**limits)


@pytest.mark.parametrize("message_type", WIRE_TYPES, ids=lambda t: t.__name__)
def test_estimates_are_near_the_real_size(message_type: type) -> None:
    """Within a factor of two of what a batch grows by, and never far below it."""
    codec, header, message = codec_for("capnp"), BatchHeader(1, 2, 3, 4), example(message_type)
    one, two = (len(codec.encode_batch(header, [Envelope(0, message)] * count)) for count in (1, 2))
    assert 0.6 * (two - one) <= estimated_bytes(message) <= 2.2 * (two - one)


def test_every_struct_has_an_estimate() -> None:
    assert all(estimated_bytes(example(message_type)) > 0 for message_type in ALL_TYPES)
