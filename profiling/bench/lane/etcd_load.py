"""A load on etcd, run in the peers' environment: ``python etcd_load.py PORT HOW IN_FLIGHT COUNT SIZE RATE``.

HOW is ``json`` (etcd's HTTP gateway, one connection per write in flight) or ``grpc`` (its own protocol). RATE 0 is a
closed loop; otherwise so many writes a second begin whatever became of the earlier ones. Prints what it measured.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
import time
from collections.abc import Awaitable, Callable

Put = Callable[[bytes, bytes], Awaitable[None]]


async def json_put(port: int) -> Put:
    """One connection of HTTP/1.1, kept alive."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def put(key: bytes, value: bytes) -> None:
        body = json.dumps({"key": base64.b64encode(key).decode(), "value": base64.b64encode(value).decode()}).encode()
        writer.write(b"POST /v3/kv/put HTTP/1.1\r\nHost: etcd\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"etcd answered {head[:60]!r}")
        length = next(line for line in head.split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))

    return put


async def grpc_put(port: int) -> Put:
    """One channel for all. PutRequest has two fields, written by hand."""
    import grpc.aio

    channel = grpc.aio.insecure_channel(f"127.0.0.1:{port}")
    call = channel.unary_unary("/etcdserverpb.KV/Put", request_serializer=bytes, response_deserializer=bytes)

    async def put(key: bytes, value: bytes) -> None:
        await call(b"\x0a" + _length(key) + key + b"\x12" + _length(value) + value)

    return put


def _length(data: bytes) -> bytes:
    """As a varint of protobuf."""
    size, out = len(data), bytearray()
    while size > 0x7F:
        out.append(size & 0x7F | 0x80)
        size >>= 7
    return bytes([*out, size])


async def closed(puts: list[Put], count: int, size: int) -> dict[str, object]:
    """Every put in ``puts`` is one writer; together they write ``count``."""
    value, numbers, times = bytes(size), iter(range(count)), []

    async def write(put: Put) -> None:
        for number in numbers:
            began = time.perf_counter_ns()
            await put(b"%d" % (number % 1000), value)
            times.append(time.perf_counter_ns() - began)

    began = time.perf_counter()
    await asyncio.gather(*map(write, puts))
    return {"seconds": time.perf_counter() - began, "latency_ns": times}


async def opened(puts: list[Put], count: int, size: int, rate: int) -> dict[str, object]:
    """Writes begin by the clock; each one's time counts from when it should have begun."""
    value, times, free = bytes(size), [], asyncio.Queue[Put]()
    for put in puts:
        free.put_nowait(put)
    began = time.perf_counter()

    async def write(number: int, intended: float) -> None:
        put = await free.get()
        await put(b"%d" % (number % 1000), value)
        free.put_nowait(put)
        times.append(int((time.perf_counter() - intended) * 1e9))

    running = set()
    for number in range(count):
        intended = began + number / rate
        if (early := intended - time.perf_counter()) > 0:
            await asyncio.sleep(early)
        task = asyncio.create_task(write(number, min(intended, time.perf_counter())))
        running.add(task)
        task.add_done_callback(running.discard)
    await asyncio.gather(*running)
    return {"seconds": time.perf_counter() - began, "latency_ns": times}


async def main(port: int, how: str, in_flight: int, count: int, size: int, rate: int) -> None:
    """Connect, warm up, measure, print."""
    if how == "grpc":
        puts = [await grpc_put(port)] * in_flight
    else:
        puts = [await json_put(port) for _ in range(in_flight)]
    await closed(puts, min(count, 200), size)
    found = await (opened(puts, count, size, rate) if rate else closed(puts, count, size))
    json.dump(found, sys.stdout)


if __name__ == "__main__":
    port, how, *numbers = sys.argv[1:]
    asyncio.run(main(int(port), how, *map(int, numbers)))
