"""What an agent tells anybody: what is listed and nothing else, without a key, early from the second time on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agents.config import ClusterConfig, load_config
from agents.public_feed import PUBLIC, PublicFeed, public_view
from agents.setup import RunOptions, prepare
from agents.status import ask_feeds
from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE
from protocol.roster import Role
from tests.oracles.agent_examples import make_cluster_file, synthetic
from tests.oracles.clusters import free_ports

STATUS = {"id": "venue", "role": "venue", "state": "ready", "pid": 4711, "profit": 5.5, "orders": {"filled": 3}}


def with_feeds(path: Path, ports: dict[str, int]) -> Path:
    text = path.read_text()
    for agent_id, port in ports.items():
        text = text.replace(f'id = "{agent_id}"\n', f'id = "{agent_id}"\nfeed_port = {port}\n')
    path.write_text(text)
    return path


def test_only_what_is_listed_leaves() -> None:
    data = synthetic()
    view = public_view({**STATUS, "market_index": 7}, data)
    assert view.keys() == {"id", "role", "state", "market_index", "closes"}
    assert view["closes"] == {symbol: data.closes[7][at] / PRICE_SCALE for at, symbol in enumerate(data.symbols)}
    assert public_view(STATUS, data).keys() == {"id", "role", "state"}
    assert "closes" not in public_view({**STATUS, "market_index": -1}, data), "before the first bar; not the last one"
    assert not set(PUBLIC) & {"pid", "orders", "gate", "portfolio", "profit", "decisions", "alarms"}


def test_a_feed_is_off_unless_it_is_configured(tmp_path: Path) -> None:
    config = load_config(make_cluster_file(tmp_path))
    assert [config.feed_port(agent) for agent in config.roster.agents] == [0] * 6
    setup = prepare(config, "venue", Role.VENUE, RunOptions())
    assert PublicFeed(setup, lambda detail: STATUS).statistics() == {}
    with pytest.raises(UsageError, match=r"cluster.toml: no agent has a feed; set feed_port"):
        asyncio.run(ask_feeds(config, 1))


@pytest.mark.parametrize(
    ("ports", "says"),
    [
        ({"venue": 17402}, "the feed of 'venue' and 'risk-2' both listen on 127.0.0.1:17402; give each its own port"),
        ({"venue": 19000, "risk-1": 19000}, "the feed of 'venue' and the feed of 'risk-1' both listen on"),
        ({"venue": 70000}, "feed_port"),
    ],
)
def test_a_port_that_is_taken_is_one_line(tmp_path: Path, ports: dict[str, int], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load_config(with_feeds(make_cluster_file(tmp_path), ports))
    assert "\n" not in str(caught.value)


@pytest.fixture
async def config(tmp_path: Path) -> AsyncIterator[ClusterConfig]:
    """risk-1 and the venue have feeds; those of the venue and of risk-1 are open, risk-2's is not."""
    ports = dict(zip(("risk-1", "venue", "risk-2"), free_ports(3), strict=True))
    loaded = load_config(with_feeds(make_cluster_file(tmp_path), ports))
    feeds = []
    for agent_id, role in (("risk-1", Role.RISK), ("venue", Role.VENUE)):
        setup = prepare(loaded, agent_id, role, RunOptions())
        status: dict[str, Any] = {**STATUS, "id": agent_id, "market_index": 3}
        feeds.append(PublicFeed(setup, lambda detail, status=status: status))  # type: ignore[misc]
        await feeds[-1].start()
    yield loaded
    for feed in feeds:
        feed.stop()


async def test_feeds_are_asked_without_a_key_and_early_the_second_time(
    config: ClusterConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("protocol.feed_client.TICKET_WAIT_S", 10.0)  # a busy machine may be late
    for folder in config.pki_dir.iterdir():
        if folder.is_dir():
            for path in folder.iterdir():
                path.unlink()
    first, second = await ask_feeds(config, 20), await ask_feeds(config, 20)
    for agent_id in ("risk-1", "venue"):
        assert (first[agent_id]["early_data"], second[agent_id]["early_data"]) == ("none", "accepted")
        assert second[agent_id]["id"] == agent_id and len(second[agent_id]["closes"]) == 20
    assert second["risk-2"]["state"] == "unreachable" and "risk-2" in second["risk-2"]["error"]
    json.dumps(second)
    kept = sorted((config.state_dir / "feed").iterdir())
    assert [path.name for path in kept] == ["risk-1.session", "venue.session"]
    assert all(path.stat().st_mode & 0o077 == 0 for path in kept)
    kept[0].write_bytes(b"rubbish")
    assert (await ask_feeds(config, 20))["risk-1"]["early_data"] == "none"
