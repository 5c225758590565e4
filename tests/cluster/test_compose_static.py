"""``docker-compose.yml`` and ``Dockerfile`` as texts: what every container must have, checked without Docker."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agents.cluster_init import default_roster

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
ROSTER = {line.id: line for line in default_roster(7401, "names")}
AGENTS = sorted(ROSTER)
EVERYBODY = sorted([*AGENTS, "keys", "operator"])


def _volumes(service: str) -> dict[str, tuple[str, str]]:
    """(path, mode) by volume name."""
    parts = (entry.split(":") for entry in SERVICES[service]["volumes"])
    return {name: (path, mode[0] if mode else "rw") for name, path, *mode in parts}


def test_the_services_are_the_default_roster() -> None:
    assert sorted(SERVICES) == EVERYBODY
    assert "default" not in COMPOSE["networks"]


@pytest.mark.parametrize("service", EVERYBODY)
def test_every_container_is_contained(service: str) -> None:
    found = SERVICES[service]
    assert found["read_only"] is True
    assert found["cap_drop"] == ["ALL"]
    assert found["security_opt"] == ["no-new-privileges:true"]
    assert found["user"] == "10001:10001"
    assert found["init"] is True
    assert found["pids_limit"] > 0
    assert found["mem_limit"]
    assert found["logging"]["options"].keys() >= {"max-size", "max-file"}
    assert not {"privileged", "cap_add", "devices", "pid", "ipc", "ports", "expose", "extra_hosts"} & found.keys()


@pytest.mark.parametrize("service", EVERYBODY)
def test_no_secret_is_handed_over_by_environment_or_command(service: str) -> None:
    found = SERVICES[service]
    assert not {"environment", "env_file", "secrets"} & found.keys()
    assert not re.search(r"key=|secret|password|token", " ".join(found["command"]), re.IGNORECASE)


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_is_started_and_asked_by_its_own_name(agent: str) -> None:
    found, role = SERVICES[agent], ROSTER[agent].role.value
    assert found["command"][:4] == ["swarm", role, "--id", agent]
    assert found["healthcheck"]["test"][:5] == ["CMD", "swarm", "health", "--id", agent]
    patience = int(found["healthcheck"]["timeout"].removesuffix("s"))
    assert int(found["healthcheck"]["test"][-1]) < patience < int(found["healthcheck"]["interval"].removesuffix("s"))
    assert found["depends_on"] == {"keys": {"condition": "service_completed_successfully"}}
    assert found["networks"] == ["mesh"]
    assert found["stop_grace_period"]


@pytest.mark.parametrize("agent", AGENTS)
def test_an_agent_reads_its_own_keys_and_writes_its_own_data(agent: str) -> None:
    assert _volumes(agent) == {
        "config": ("/cluster", "ro"),
        f"pki-{agent}": (f"/cluster/pki/{agent}", "ro"),
        f"data-{agent}": ("/var/lib/swarm", "rw"),
    }


def test_only_the_venue_stays_down_when_it_fails() -> None:
    restarts = {agent: SERVICES[agent]["restart"] for agent in AGENTS}
    assert restarts == {agent: "no" if agent == "venue" else "on-failure:5" for agent in AGENTS}


def test_keys_are_made_without_a_network_into_one_volume_each() -> None:
    assert SERVICES["keys"]["network_mode"] == "none"
    assert SERVICES["keys"]["restart"] == "no"
    expected = {f"pki-{each}": (f"/cluster/pki/{each}", "rw") for each in [*AGENTS, "operator"]}
    assert _volumes("keys") == {"config": ("/cluster", "rw"), **expected}


def test_the_operators_key_is_where_the_operator_is() -> None:
    holders = [service for service in EVERYBODY if "pki-operator" in _volumes(service)]
    assert holders == ["keys", "operator"]
    assert SERVICES["operator"]["profiles"], "the operator must not start with the agents"


def test_the_network_is_closed_and_every_volume_is_declared() -> None:
    assert COMPOSE["networks"] == {"mesh": {"internal": True}}
    used = {name for service in EVERYBODY for name in _volumes(service)}
    assert used == set(COMPOSE["volumes"])


def test_one_image_with_a_version_is_built_once() -> None:
    images = {SERVICES[service]["image"] for service in EVERYBODY}
    assert len(images) == 1
    (image,) = images
    assert re.fullmatch(r"\$\{SWARM_IMAGE:-[a-z-]+:\d+\.\d+\.\d+}", image)
    assert [service for service in EVERYBODY if "build" in SERVICES[service]] == ["keys"]
    assert "latest" not in (ROOT / "docker-compose.yml").read_text()


def test_the_image_owns_the_folders_that_become_volumes() -> None:
    text = (ROOT / "Dockerfile").read_text()
    listed = re.search(r"for id in ([a-z0-9 -]+);", text)
    assert listed is not None
    assert sorted(listed.group(1).split()) == sorted([*AGENTS, "operator"])
    final = text.rsplit("\nFROM ", 1)[1]
    assert "USER 10001:10001" in final
    assert "pip" not in final
    assert re.search(r"^ARG BASE=\S+:\d\S*$", text, re.MULTILINE)
    assert text.count("--require-hashes") == 2


def test_the_build_context_holds_no_keys_and_no_runs() -> None:
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    kept = {rule[1:] for rule in rules if rule.startswith("!")}
    assert rules[1] == "*"
    rooms = {"agents", "consensus", "dtw", "orders", "profiling", "protocol"}
    assert kept == rooms | {"pyproject.toml", "README.md", "LICENSE", "requirements", "build/wheels"}
