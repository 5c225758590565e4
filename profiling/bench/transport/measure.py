"""``swarm bench transport``: our wire against other ways to carry messages, every side in turn within one run."""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
import structlog

from profiling.bench.result import Ratio, Result, at_least, at_most, paired_ratio, variation
from profiling.bench.transport.clients import (
    Client,
    DeliveringClient,
    FarEnd,
    Ours,
    StockAioquic,
    StockQh3,
    TcpTls,
    Udp,
    run_on,
)
from profiling.bench.transport.serve import BUSY_POLL_S, POLLING
from profiling.bench.transport.site import SERVERS, Site, make_site, message_of
from protocol.batch import Channel
from protocol.messages import Submit

US: Final = 1e-3
"""Microseconds in a nanosecond."""
SIZES: Final = (200, 4096, 65536)
BATCHES: Final = (1, 5, 10, 20, 50)
VOTE_BYTES: Final = 100
BULK_BYTES: Final = 16 * 1024
BULK_BYTES_PER_S: Final = 20e6
VOTE_EVERY_S: Final = 0.005
BULK_STEP_S: Final = 0.002
DATAGRAM_BYTES_MAX: Final = 60_000


@dataclass(frozen=True, slots=True)
class Way:
    """One way to carry messages. ``what`` names its far end, ``loop`` the event loop of both ends; ``make`` takes the
    number of far ends."""

    name: str
    what: str
    loop: str
    make: Callable[[Site, int], Client]


@dataclass(frozen=True, slots=True)
class Effort:
    """How much is measured."""

    blocks: int
    round_trips: int
    """In a block, at the smallest size; fewer at larger ones."""
    messages: int
    """One way, in a block."""
    vote_s: float
    """Of votes, idle and again under load, in a block."""


FULL: Final = Effort(blocks=10, round_trips=600, messages=4_000, vote_s=4.0)
QUICK: Final = Effort(blocks=3, round_trips=150, messages=1_000, vote_s=1.0)


def ways() -> list[Way]:
    """Ours first; the others with the settings that their users get, and the certificates that we use."""
    aioquic, qh3 = f"aioquic {version('aioquic')}", f"qh3 {version('qh3')}"
    return [
        Way("ours", "ours/aioquic", "uvloop", lambda site, servers: Ours(site, "aioquic", servers)),
        Way("ours on qh3", "ours/qh3", "uvloop", lambda site, servers: Ours(site, "qh3", servers)),
        Way(f"{aioquic} streams", "aioquic", "asyncio", StockAioquic),
        Way(f"{aioquic} streams, uvloop", "aioquic", "uvloop", StockAioquic),
        Way(f"{qh3} streams", "qh3", "asyncio", StockQh3),
        Way("TCP and TLS, asyncio streams", "tcp+tls", "asyncio", TcpTls),
        Way("bare UDP", "udp", "asyncio", Udp),
        Way(
            f"ours, busy polling for {BUSY_POLL_S * 1e6:.0f} us",
            POLLING,
            "uvloop",
            lambda site, servers: Ours(site, "aioquic", servers, busy_poll_s=BUSY_POLL_S),
        ),
    ]


def measure(effort: Effort, progress: Callable[[str], None]) -> Result:
    """Rows, claims and noise of one run."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    result = Result("transport")
    with tempfile.TemporaryDirectory() as directory:
        site = make_site(Path(directory))
        _round_trips(result, site, effort, progress)
        _batches(result, site, effort, progress)
        _throughput(result, site, effort, progress)
        _votes(result, site, effort, progress)
    return result


# --- round trips -----------------------------------------------------------------------------------------------------


def _round_trips(result: Result, site: Site, effort: Effort, progress: Callable[[str], None]) -> None:
    medians: dict[tuple[str, int], list[float]] = {}
    tails: dict[tuple[str, int], list[float]] = {}
    for block in range(effort.blocks):
        for way in ways():
            progress(f"round trips, block {block + 1} of {effort.blocks}, {way.name}")
            for size, nanoseconds in run_block(site, way, partial(_timed, effort=effort, what=way.what)).items():
                medians.setdefault((way.name, size), []).append(float(np.median(nanoseconds)) * US)
                tails.setdefault((way.name, size), []).append(float(np.quantile(nanoseconds, 0.99)) * US)
    stock = next(way.name for way in ways() if way.what == "aioquic")
    for size in SIZES:
        for what, figures in (("p50", medians), ("p99", tails)):
            ours = figures["ours", size]
            for name in [way.name for way in ways()[1:] if (way.name, size) in figures]:
                theirs = figures[name, size]
                ratio = paired_ratio(ours, theirs)
                case = f"round trip of {size:,} B, {what}"
                result.row(case, float(np.median(ours)), "us", name, float(np.median(theirs)), ratio)
    for size, goal, claim in ((200, 0.6, "transport.rtt_200b_vs_stock"), (4096, 0.3, "transport.rtt_4kb_vs_stock")):
        result.variations.append(variation(medians["ours", size]))
        result.claim(claim, at_most(goal), paired_ratio(medians["ours", size], medians[stock, size]))


async def _timed(client: Client, effort: Effort, what: str) -> dict[int, list[int]]:
    """Nanoseconds of each round trip by size."""
    found: dict[int, list[int]] = {}
    for size in SIZES:
        if what == "udp" and size > DATAGRAM_BYTES_MAX:
            continue
        count = max(20, effort.round_trips * SIZES[0] // max(SIZES[0], size // 8))
        for _ in range(count // 5):
            await client.round_trip(size)
        times = []
        for _ in range(count):
            began = time.perf_counter_ns()
            await client.round_trip(size)
            times.append(time.perf_counter_ns() - began)
        found[size] = times
    return found


# --- what a message costs --------------------------------------------------------------------------------------------


def _batches(result: Result, site: Site, effort: Effort, progress: Callable[[str], None]) -> None:
    """Processor time of both ends, and datagrams of both, per message of 200 B; ``n`` messages pushed at a time."""
    cpu: dict[tuple[str, int], list[float]] = {}
    packets: dict[tuple[str, int], list[float]] = {}
    stock: list[float] = []
    for block in range(effort.blocks):
        for transport in ("aioquic", "qh3"):
            for batch in BATCHES:
                progress(f"cost of a message, block {block + 1} of {effort.blocks}, batches of {batch}")
                spent, sent = _cost(site, f"ours/{transport}", batch, max(effort.messages // 4, 400))
                cpu.setdefault((transport, batch), []).append(spent)
                packets.setdefault((transport, batch), []).append(sent)
        stock.append(_cost(site, "aioquic", 1, max(effort.messages // 4, 400))[0])
    for transport, name in (("aioquic", "ours"), ("qh3", "ours on qh3")):
        for batch in BATCHES:
            for what, unit, figures in (("processor time", "us", cpu), ("datagrams", "a message", packets)):
                alone, together = figures[transport, 1], figures[transport, batch]
                ratio = paired_ratio(alone, together)
                case = f"{what} of a message in batches of {batch}, {name}"
                result.row(case, float(np.median(together)), unit, "each alone", float(np.median(alone)), ratio)
    for batch in BATCHES:
        together = cpu["aioquic", batch]
        case, name = f"processor time of a message in batches of {batch}, ours", f"{ways()[2].name}, each alone"
        result.row(case, float(np.median(together)), "us", name, float(np.median(stock)), paired_ratio(stock, together))
    alone, together = cpu["aioquic", 1], cpu["aioquic", 20]
    result.variations.append(variation(together))
    result.claim("transport.batch20_cpu_saving", at_least(10), paired_ratio(alone, together))


def _cost(site: Site, what: str, batch: int, messages: int) -> tuple[float, float]:
    """(microseconds of processor time, datagrams) per message, both ends together; of ours only the datagrams."""
    fresh, way = site.moved(1), next(way for way in ways() if way.what == what)
    with FarEnd(what, fresh, loop=way.loop) as far:

        async def work() -> tuple[int, int]:
            client = Ours(fresh, what.rpartition("/")[2], batch_max=batch) if "/" in what else way.make(fresh, 1)
            assert isinstance(client, DeliveringClient)
            await client.open()
            await client.one_way(200, 5 * batch, batch)
            datagrams = _datagrams_of(client)
            far_cpu, far_datagrams = far.spent()
            own_cpu = time.process_time_ns()
            await client.one_way(200, messages, batch)
            own_cpu = time.process_time_ns() - own_cpu
            after_cpu, after_datagrams = far.spent()
            datagrams = _datagrams_of(client) - datagrams
            await client.close()
            return own_cpu + after_cpu - far_cpu, datagrams + after_datagrams - far_datagrams

        cpu_ns, sent = run_on(way.loop, work())
    return cpu_ns * US / messages, sent / messages


def _datagrams_of(client: Client) -> int:
    return int(client.endpoint.statistics()["socket"]["datagrams_out"]) if isinstance(client, Ours) else 0


# --- one way ---------------------------------------------------------------------------------------------------------


def _throughput(result: Result, site: Site, effort: Effort, progress: Callable[[str], None]) -> None:
    carried = [way for way in ways() if way.what not in ("udp", POLLING) and way.name != ways()[3].name]
    for servers in (1, 3):
        rates: dict[str, list[float]] = {way.name: [] for way in carried}
        for block in range(effort.blocks):
            for way in carried:
                progress(f"one way to {servers}, block {block + 1} of {effort.blocks}, {way.name}")
                rates[way.name].append(_rate(site, way, servers, effort.messages))
        for way in carried[1:]:
            ours, theirs = rates["ours"], rates[way.name]
            case = f"200 B one way to {servers} peer{'s' if servers > 1 else ''}"
            ratio = paired_ratio(ours, theirs)
            result.row(case, float(np.median(ours)), "messages/s", way.name, float(np.median(theirs)), ratio)


def _rate(site: Site, way: Way, servers: int, messages: int) -> float:
    fresh = site.moved(servers)
    with _far_ends(way, fresh, servers):

        async def work() -> float:
            client = way.make(fresh, servers)
            assert isinstance(client, DeliveringClient), f"{way.name} may lose messages"
            await client.open()
            await client.one_way(200, messages // 10)
            began = time.perf_counter()
            await client.one_way(200, messages)
            took = time.perf_counter() - began
            await client.close()
            return messages * servers / took

        return run_on(way.loop, work())


@contextmanager
def _far_ends(way: Way, site: Site, servers: int) -> Iterator[None]:
    with ExitStack() as stack:
        for agent_id in SERVERS[:servers]:
            stack.enter_context(FarEnd(way.what, site, agent_id, way.loop))
        yield


# --- votes under bulk ------------------------------------------------------------------------------------------------


def _votes(result: Result, site: Site, effort: Effort, progress: Callable[[str], None]) -> None:
    """p99 of a 100 B vote and its answer, idle and while 20 MB/s of bulk leave on the same connection."""
    for transport, name in (("aioquic", "ours"), ("qh3", "ours on qh3")):
        idle: list[list[float]] = []
        loaded: list[list[float]] = []
        carried: list[float] = []
        for block in range(effort.blocks):
            progress(f"votes under bulk, block {block + 1} of {effort.blocks}, {name}")
            quiet, busy, rate = _vote_block(site, transport, effort.vote_s)
            idle.append(_percentiles(quiet))
            loaded.append(_percentiles(busy))
            carried.append(rate / 1e6)
        for position, what in enumerate(("p50", "p99")):
            ours, theirs = [each[position] for each in loaded], [each[position] for each in idle]
            ratio = paired_ratio(ours, theirs)
            case = f"vote under {np.median(carried):.1f} MB/s of bulk, {what}, {name}"
            result.row(case, float(np.median(ours)), "us", "the same, idle", float(np.median(theirs)), ratio)
            if what == "p99" and transport == "aioquic":
                _claim_votes(result, ratio, carried)


def _claim_votes(result: Result, ratio: Ratio, carried: Sequence[float]) -> None:
    claim = "transport.vote_p99_under_bulk_vs_idle"
    slowest = min(carried)
    if slowest < 0.95 * BULK_BYTES_PER_S / 1e6:
        result.claim(claim, at_most(3), None, f"only {slowest:.1f} MB/s of bulk could be carried")
    else:
        result.claim(claim, at_most(3), ratio)


def _percentiles(microseconds: Sequence[float]) -> list[float]:
    return [float(np.quantile(microseconds, share)) for share in (0.5, 0.99)]


def _vote_block(site: Site, transport: str, seconds: float) -> tuple[list[float], list[float], float]:
    """Microseconds of each vote, idle and loaded, from when it should have been sent; bulk bytes a second."""
    fresh = site.moved(1)
    with FarEnd(f"ours/{transport}", fresh):

        async def work() -> tuple[list[float], list[float], float]:
            client = Ours(fresh, transport)
            await client.open()
            await _vote(client, 0.5)
            idle = await _vote(client, seconds)
            stop = asyncio.Event()
            bulk = asyncio.create_task(_bulk(client, stop))
            await asyncio.sleep(0.2)
            loaded = await _vote(client, seconds)
            stop.set()
            rate = await bulk
            await client.close()
            return idle, loaded, rate

        return run_on("uvloop", work())


async def _vote(client: Ours, seconds: float) -> list[float]:
    vote = message_of(VOTE_BYTES)
    times = []
    began = time.perf_counter()
    for number in range(int(seconds / VOTE_EVERY_S)):
        intended = began + number * VOTE_EVERY_S
        await asyncio.sleep(max(0.0, intended - time.perf_counter()))
        intended = min(intended, time.perf_counter())  # the loop's timers are coarse, and may fire early
        client.vote_back.clear()
        client.endpoint.send(1, vote, channel=Channel.CONSENSUS, trace=1)
        await client.vote_back.wait()
        times.append((time.perf_counter() - intended) * 1e6)
    return times


async def _bulk(client: Ours, stop: asyncio.Event) -> float:
    """Open loop: what should have left by now is pushed every two milliseconds. Returns bytes a second taken."""
    whole = message_of(BULK_BYTES)
    bulk = Submit(2, False, whole.command)
    began, taken = time.perf_counter(), 0
    while not stop.is_set():
        due = int((time.perf_counter() - began) * BULK_BYTES_PER_S / BULK_BYTES) - taken
        for _ in range(due):
            if not client.endpoint.send(1, bulk, channel=Channel.BULK):
                break
            taken += 1
        await asyncio.sleep(BULK_STEP_S)
    return taken * BULK_BYTES / (time.perf_counter() - began)


def run_block(site: Site, way: Way, work: Callable[[Client], Any]) -> Any:
    """One connection of one way: opened, used, closed, with a far end of its own."""
    fresh = site.moved(1)
    with FarEnd(way.what, fresh, loop=way.loop):

        async def block() -> Any:
            client = way.make(fresh, 1)
            await client.open()
            gc.collect()
            try:
                return await work(client)
            finally:
                await client.close()

        return run_on(way.loop, block())
