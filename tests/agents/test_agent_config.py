from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agents.cluster_init import default_roster
from agents.config import ConsensusSection, load_config
from agents.switches import MODES, Switches, switches_for
from profiling.bench.lane.site import THRIFT_MS
from protocol.errors import UsageError
from protocol.messages import PRICE_SCALE
from protocol.roster import Role
from tests.oracles.agent_examples import make_cluster_file


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> str:
    return make_cluster_file(tmp_path_factory.mktemp("cluster")).read_text()


def refusal(path: Path, text: str | bytes) -> str:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError) as caught:
        load_config(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_a_good_file_gives_roster_and_defaults(tmp_path: Path, good: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(good)
    config = load_config(path)
    assert [agent.id for agent in config.roster.agents] == [
        "risk-1", "risk-2", "executor-1", "trader-1", "venue", "operator",
    ]  # fmt: skip
    assert len(config.roster.voters) == 4
    assert config.file.consensus.critical_notional_units == 15_000 * PRICE_SCALE
    assert config.pki_dir == tmp_path / "pki"
    assert config.state_dir == tmp_path / "state"
    assert config.agent("risk-2", Role.RISK).index == 1
    assert [agent.id for agent in config.with_role(Role.RISK)] == ["risk-1", "risk-2"]


def test_the_measured_lane_is_as_thrifty_as_the_swarms() -> None:
    assert ConsensusSection().thrift_ms == THRIFT_MS


def test_agents_are_asked_for_by_id_and_role(tmp_path: Path, good: str) -> None:
    path = tmp_path / "cluster.toml"
    path.write_text(good)
    config = load_config(path)
    with pytest.raises(UsageError, match=r"'risk-9' is not in .*; its risk agents are: risk-1, risk-2"):
        config.agent("risk-9", Role.RISK)
    with pytest.raises(UsageError, match="'risk-1' is a risk; start it with `swarm risk`"):
        config.agent("risk-1", Role.TRADER)


SECTIONS = [
    ("[consensus]", "[consensus]\nfaulty_maxx = 1", "faulty_maxx"),
    ("[consensus]", "[consensuss]", "consensuss"),
    ("[consensus]", "[extra]\n[consensus]", "extra"),
    ("faulty_max = 1", 'faulty_max = "one"', "consensus.faulty_max"),
    ("faulty_max = 1", "faulty_max = 1.5", "consensus.faulty_max"),
    ("faulty_max = 1", "faulty_max = true", "consensus.faulty_max"),
    ("faulty_max = 1", "faulty_max = -1", "consensus.faulty_max"),
    ("faulty_max = 1", "faulty_max = 2", "4 voters cannot bear consensus.faulty_max = 2"),
    ("faulty_max = 1", "faulty_max = 99999999999999999999999", "consensus.faulty_max"),
    ("critical_notional = 15000.0", "critical_notional = inf", "consensus.critical_notional"),
    ("critical_notional = 15000.0", "critical_notional = nan", "consensus.critical_notional"),
    ("critical_notional = 15000.0", "critical_notional = -1", "consensus.critical_notional"),
    ("faulty_max = 1", "faulty_max = 1\nheartbeat_ms = 300", "election_timeout_min_ms"),
    ("faulty_max = 1", "faulty_max = 1\nelection_timeout_max_ms = 400", "election_timeout_max_ms"),
    ("max_order_notional = 25000.0", "max_order_notional = -1", "risk.max_order_notional"),
    ("max_order_notional = 25000.0", "max_order_notional = inf", "risk.max_order_notional"),
    ("max_order_notional = 25000.0", "max_orders_notional = 1", "max_orders_notional"),
    ("max_order_notional = 25000.0", "price_collar_soft_pct = 9.0", "price_collar_soft_pct"),
    ("latency_us = 200", "fee_bps = inf", "venue.fee_bps"),
    ("latency_us = 200", "reject_rate = 1.5", "venue.reject_rate"),
    ("port = 17402", "port = 17401", "'risk-2' and 'risk-1' both listen on 127.0.0.1:17401"),
    ("port = 17402", "port = 70000", "agent[1].port"),
    ('id = "risk-2"', 'id = "risk-1"', "'risk-1' is listed twice"),
    ('id = "risk-2"', 'id = "Risk 2"', "'Risk 2'"),
    ('role = "venue"', 'role = "broker"', "agent[4].role"),
    ('role = "venue"', 'role = "operator"', "agent[4].role"),
    ('role = "venue"', 'role = "risk"', "0 agents of role venue"),
    ('role = "risk"', 'role = "venue"', "2 agents of role venue"),
    ('role = "trader"', 'role = "risk"', "0 agents of role trader"),
    ('role = "executor"', 'role = "risk"', "0 agents of role executor"),
    ("votes = false", "votes = true", "a venue has no vote"),
    ('host = "127.0.0.1"\nport = 17402', 'host = ""\nport = 17402', "agent[1].host"),
    ('profile = "loopback"', 'profile = "moon"', "wire.profile"),
    ('profile = "loopback"', 'profile = "loopback"\nbusy_poll_us = 20000', "wire.busy_poll_us"),
    ("seed = 7", "seed = -7", "seed"),
    ('name = "testing"', 'name = "Te sting"', "a-z, 0-9"),
    ('id = "risk-1"', "", "missing required field `id`"),
    ("[operator]", "[operatorr]", "operator"),
]


@pytest.mark.parametrize(("before", "after", "says"), SECTIONS)
def test_every_mistake_is_one_line_that_names_it(tmp_path: Path, good: str, before: str, after: str, says: str) -> None:
    assert before in good
    assert says in refusal(tmp_path / "cluster.toml", good.replace(before, after, 1))


def test_files_that_are_no_configuration(tmp_path: Path, good: str) -> None:
    path = tmp_path / "cluster.toml"
    assert "not valid TOML" in refusal(path, good + "\n[[agent\n")
    assert "not valid TOML" in refusal(path, "seed = \n")
    assert "cannot be read" in refusal(path, b"seed = 7 # \xff\xfe\n")
    assert "cluster" in refusal(path, "")
    path.unlink()
    with pytest.raises(UsageError, match="does not exist; make one with `swarm init"):
        load_config(path)
    with pytest.raises(UsageError, match="cannot be read"):
        load_config(tmp_path)


def test_a_shared_key_is_refused(tmp_path: Path, good: str) -> None:
    keys = [line for line in good.splitlines() if line.startswith("public_key")]
    assert "share a key" in refusal(tmp_path / "cluster.toml", good.replace(keys[1], keys[2]))


@given(data=st.data())
def test_a_file_with_a_line_missing_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, good: str, data: st.DataObject
) -> None:
    lines = good.splitlines()
    drop = data.draw(st.integers(0, len(lines) - 1))
    path = tmp_path_factory.getbasetemp() / "missing-line.toml"
    path.write_text("\n".join(lines[:drop] + lines[drop + 1 :]))
    try:
        load_config(path)
    except UsageError as error:
        assert "\n" not in str(error)


def test_one_host_per_agent_or_one_for_all() -> None:
    assert [(line.host, line.port) for line in default_roster(7000, "names")] == [
        (name, 7000) for name in ("risk-1", "risk-2", "executor-1", "trader-1", "venue")
    ]
    assert [line.port for line in default_roster(7000, "10.0.0.1")] == [7000, 7001, 7002, 7003, 7004]
    assert {line.host for line in default_roster(7000, "10.0.0.1")} == {"10.0.0.1"}


def test_the_modes_differ_in_every_switch() -> None:
    optimized, baseline = MODES["optimized"], MODES["baseline"]
    assert optimized == Switches()
    for name in Switches.__struct_fields__:
        assert getattr(optimized, name) != getattr(baseline, name), name


@pytest.mark.parametrize("name", Switches.__struct_fields__)
def test_one_switch_is_thrown_alone(name: str) -> None:
    other = getattr(MODES["baseline"], name)
    thrown = switches_for("optimized", **{name: other})
    changed = [field for field in Switches.__struct_fields__ if getattr(thrown, field) != getattr(Switches(), field)]
    assert changed == [name]
    assert switches_for("baseline", **{name: None}) == MODES["baseline"]


@pytest.mark.parametrize(
    ("mode", "switches", "says"),
    [
        ("fast", {}, "no such mode; choose one of optimized, baseline"),
        ("optimized", {"batch_max": 0}, "batch_max"),
        ("optimized", {"batch_max": 4097}, "batch_max"),
        ("optimized", {"codec": "json"}, "codec"),
        ("baseline", {"speed": 3}, "speed"),
    ],
)
def test_switches_out_of_range_are_refused(mode: str, switches: dict[str, object], says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        switches_for(mode, **switches)
    assert "\n" not in str(caught.value)
