"""Imports only go down, nothing goes round, and the machines touch no clock, socket, disk or chance."""

from __future__ import annotations

import ast
from fnmatch import fnmatch

import pytest

from tests.oracles.source_tree import ROOMS, Module, imports, modules

ALLOWED: dict[str, set[str]] = {
    "profiling": set(),
    "dtw": set(),
    "protocol": {"profiling"},
    "consensus": {"protocol", "profiling"},
    "orders": {"protocol", "profiling", "consensus"},
    "agents": {"consensus", "dtw", "orders", "profiling", "protocol"},
}
"""Room -> rooms that it may import. Benchmarks stand on top of everything."""
ON_TOP = "profiling.bench"

SHELLS = (
    "agents.cli*",
    "agents.certificates",
    "agents.child",
    "agents.clock",
    "agents.cluster_init",
    "agents.config",
    "agents.data.catalog",
    "agents.executor.executor",
    "agents.executor.planner",
    "agents.logs",
    "agents.network_cuts",
    "agents.nursery",
    "agents.process",
    "agents.public_feed",
    "agents.revoke",
    "agents.risk.risk",
    "agents.run_report",
    "agents.setup",
    "agents.status",
    "agents.supervisor",
    "agents.trader.decider",
    "agents.trader.slices",
    "agents.trader.trader",
    "agents.venue",
    "agents.voter",
    "agents.warm",
    "consensus.callbacks",
    "consensus.disk",
    "consensus.runner",
    "consensus.storage*",
    "orders.journal",
)
"""They perform the effects. Everything else in the rooms below is a machine or a pure function, new files too."""
PURE_ROOMS = ("agents", "consensus", "orders")
PURE_ALSO = (
    "protocol.batch",
    "protocol.codec*",
    "protocol.feed_tickets",
    "protocol.messages",
    "protocol.signing",
    "protocol.framing",
)

FORBIDDEN = ("asyncio", "os", "random", "secrets", "socket", "sqlite3", "subprocess", "threading", "time", "uuid")
FORBIDDEN_CALLS = ("datetime.now", "datetime.utcnow", "date.today", "uuid4", "urandom", "now_ns", "wall_ns")
ESCAPE = "# clock-ok: "


def of_room(name: str) -> str | None:
    room = name.partition(".")[0]
    return room if room in ROOMS else None


def is_pure(module: Module) -> bool:
    if module.room in PURE_ROOMS:
        return not any(fnmatch(module.name, shell) for shell in SHELLS)
    return any(fnmatch(module.name, pattern) for pattern in PURE_ALSO)


def test_imports_only_go_down() -> None:
    wrong = [
        f"{module.relative}:{line} imports {name}"
        for module in modules().values()
        if not module.name.startswith(ON_TOP)
        for line, name in imports(module)
        if (room := of_room(name)) is not None and room != module.room and room not in ALLOWED[module.room]
    ]
    assert not wrong, "\n".join(wrong)


def test_nothing_stands_on_the_benchmarks_but_the_doors() -> None:
    wrong = [
        f"{module.relative}:{line}"
        for module in modules().values()
        if not module.name.startswith((ON_TOP, "agents.cli"))
        for line, name in imports(module)
        if name.startswith(ON_TOP)
    ]
    assert not wrong, "\n".join(wrong)


def test_the_rooms_form_no_circle() -> None:
    floor: dict[str, int] = {}
    while len(floor) < len(ALLOWED):
        ready = {room for room, below in ALLOWED.items() if room not in floor and below <= floor.keys()}
        assert ready, f"a circle among {ALLOWED.keys() - floor.keys()}"
        floor |= {room: len(floor) for room in ready}


def loaded_with(module: Module) -> set[str]:
    """Modules of ours that loading this one loads, packages aside."""
    known = modules()
    found = set()
    for _, name in imports(module, at_import=True):
        target = name if name in known else name.rpartition(".")[0]
        if target in known and target != module.name and not known[target].is_package:
            found.add(target)
    return found


def test_no_circle_among_modules() -> None:
    graph = {name: loaded_with(module) for name, module in modules().items()}
    while graph:
        leaves = {name for name, targets in graph.items() if not targets & graph.keys()}
        if not leaves:
            break
        graph = {name: targets for name, targets in graph.items() if name not in leaves}
    circle = {name: sorted(targets & graph.keys()) for name, targets in graph.items()}
    assert not circle, f"modules that import each other: {circle}"


def escaped(module: Module, line: int) -> bool:
    text = module.text.splitlines()[line - 1]
    return ESCAPE in text and bool(text.partition(ESCAPE)[2].strip())


def impurities(module: Module) -> list[str]:
    found = [
        (line, f"imports {name}")
        for line, name in imports(module)
        if name.partition(".")[0] in FORBIDDEN and name not in ("random", "random.Random")
    ]
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "random":
            if node.attr != "Random":
                found.append((node.lineno, f"uses random.{node.attr}"))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(FORBIDDEN_CALLS):
            found.append((node.lineno, f"calls {ast.unparse(node.func)}"))
    return [f"{module.relative}:{line} {what}" for line, what in found if not escaped(module, line)]


def test_machines_touch_no_clock_socket_disk_or_chance() -> None:
    wrong = [line for module in modules().values() if is_pure(module) for line in impurities(module)]
    assert not wrong, "\n".join(wrong)


def test_the_check_covers_the_machines_and_every_shell_exists() -> None:
    pure = {name for name, module in modules().items() if is_pure(module)}
    machines = ("consensus.raft.core", "consensus.pbft.core", "consensus.replica", "consensus.budget", "orders.gate")
    assert {*machines, "orders.lifecycle", "orders.order", "protocol.batch", "agents.order_view"} <= pure
    for shell in SHELLS:
        assert any(fnmatch(name, shell) for name in modules()), f"{shell} is gone; take it off the list"


@pytest.mark.parametrize(
    ("source", "caught"),
    [
        ("import time", True),
        ("from time import monotonic_ns", True),
        ("import asyncio.events", True),
        ("import random\nrandom.random()", True),
        ("from random import random", True),
        ("import random\nrng = random.Random(7)", False),
        ("from random import Random", False),
        ("from datetime import datetime\ndatetime.now()", True),
        ("import time  # clock-ok: measured, never decided by", False),
        ("import time  # clock-ok: ", True),
    ],
)
def test_the_check_sees_what_it_should(source: str, caught: bool) -> None:
    from pathlib import Path

    from tests.oracles.source_tree import ROOT

    example = Module("consensus.example", Path(ROOT / "consensus/example.py"), source, ast.parse(source))
    assert bool(impurities(example)) is caught
