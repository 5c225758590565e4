"""The transport benchmark's ends for real, in miniature: every way carries, every figure counts what it says."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from profiling.bench.result import Result, at_least, at_most, paired_ratio
from profiling.bench.transport.clients import Client
from profiling.bench.transport.measure import (
    Effort,
    Way,
    _claim_votes,
    _cost,
    _rate,
    _timed,
    _vote_block,
    run_block,
    ways,
)
from profiling.bench.transport.site import Site, make_site, message_of
from protocol.codec import codec_for
from protocol.envelope import BatchHeader, Envelope

pytestmark = pytest.mark.processes
TINY = Effort(blocks=1, round_trips=20, messages=200, vote_s=0.2)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    return make_site(tmp_path_factory.mktemp("bench"))


@pytest.mark.parametrize("way", ways(), ids=lambda way: way.name)
def test_every_way_carries_every_size_there_and_back(site: Site, way: Way) -> None:
    found = run_block(site, way, partial(_timed, effort=TINY, what=way.what))
    assert set(found) == ({200, 4096} if way.what == "udp" else {200, 4096, 65536})
    assert all(len(times) >= 20 and min(times) > 0 for times in found.values())


@pytest.mark.parametrize("servers", [1, 3])
def test_one_way_counts_what_arrived_everywhere(site: Site, servers: int) -> None:
    for way in ways()[:1] + ways()[5:6]:
        assert _rate(site, way, servers, 300) > 100


def test_batches_save_datagrams(site: Site) -> None:
    alone, together = _cost(site, "ours/aioquic", 1, 200), _cost(site, "ours/aioquic", 20, 400)
    assert alone[1] >= 1.0 and together[1] < 0.2
    assert 0 < together[0] < alone[0]
    assert _cost(site, "aioquic", 1, 200)[0] > 0


def test_votes_are_timed_idle_and_under_load(site: Site) -> None:
    idle, loaded, rate = _vote_block(site, "aioquic", TINY.vote_s)
    assert len(idle) == len(loaded) == 40
    assert min(idle) > 0 and rate > 1e6


def test_a_message_has_the_size_that_the_others_carry() -> None:
    message = message_of(200)
    assert len(message.command.body) + len(message.command.signature) == 200
    header = BatchHeader(epoch=1, sender=0, sequence=4, sent_at_ns=0)
    assert len(codec_for("capnp").encode_batch(header, [Envelope(0, message)])) > 200


def test_bulk_that_could_not_be_carried_gives_no_verdict() -> None:
    result = Result("transport")
    _claim_votes(result, paired_ratio([1.0, 1.0], [1.0, 1.0]), [20.0, 12.0])
    _claim_votes(result, paired_ratio([1.0, 1.0], [1.0, 1.0]), [20.0, 19.9])
    refused, held = result.claims
    assert refused["holds"] is None and "12.0 MB/s" in refused["why_not"]
    assert held["holds"] is True and held["goal"] == "<= 3"


def test_a_goal_looks_at_the_bad_end_of_the_interval() -> None:
    ratio = paired_ratio([1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
    assert (ratio.low, ratio.high) == (1.0, 3.0)
    assert at_most(3).met_by(ratio) and not at_most(2.9).met_by(ratio)
    assert at_least(1).met_by(ratio) and not at_least(1.1).met_by(ratio)


def test_a_far_end_that_does_not_start_is_named(site: Site) -> None:
    async def never(client: Client) -> None:
        await asyncio.sleep(0)

    with pytest.raises(Exception, match="far end of carrier pigeon did not start"):
        run_block(site, Way("pigeons", "carrier pigeon", "asyncio", ways()[2].make), never)
