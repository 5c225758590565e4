"""A task that nobody awaits does not end in silence."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from protocol.background import background
from protocol.codec import codec_for
from protocol.endpoint import Endpoint
from tests.oracles.clusters import make_cluster
from tests.oracles.strangers import Recorder


async def test_what_it_raises_goes_to_the_loop() -> None:
    heard: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))

    async def broken() -> None:
        raise KeyError("a defect")

    kept = background(broken())
    await asyncio.wait([kept])
    await asyncio.sleep(0)
    assert [type(error) for error in heard] == [KeyError]


async def test_a_cancelled_one_and_a_finished_one_are_nobodys_business() -> None:
    heard: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context))
    finished, cancelled = background(asyncio.sleep(0)), background(asyncio.sleep(60))
    cancelled.cancel()
    await asyncio.wait([finished, cancelled])
    await asyncio.sleep(0)
    assert heard == []


@pytest.mark.sources
async def test_an_agent_that_can_no_longer_dial_does_not_limp_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[BaseException] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(context["exception"]))

    def broken(*_: object) -> None:
        raise TypeError("a defect")

    monkeypatch.setattr("protocol.quic.driver.Driver.connect", broken)
    cluster, recorder = make_cluster(tmp_path), Recorder()
    endpoint = Endpoint(
        cluster.identity("trader-1"),
        cluster.roster,
        codec_for("capnp"),
        on_message=recorder.on_message,
        on_peer_change=recorder.on_peer_change,
    )
    await endpoint.start()
    await asyncio.sleep(0.05)
    await endpoint.close()
    assert heard and type(heard[0]) is TypeError
