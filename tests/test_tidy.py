"""House rules that a machine can check. Lists of exceptions only ever get shorter."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.oracles.source_tree import ROOMS, ROOT, Definition, Module, definitions, modules

FUNCTION_LINES_MAX = 70
FILE_LINES_MAX = 400
METHOD_LINES = 10
"""Shorter methods may speak for themselves."""

LONG_FUNCTIONS: dict[str, int] = {}
LONG_FILES: dict[str, int] = {}
DOCUMENTED_ROOMS = ("consensus", "dtw", "orders", "protocol", "profiling")
WITHOUT_DOCSTRING = frozenset(
    {
        "consensus.assembly.ReplicaParts",
        "consensus.lane.Lane",
        "consensus.machine.Outgoing",
        "consensus.pbft.phases.Phases",
        "consensus.pbft.phases.Phases.on_pre_prepare",
        "consensus.pbft.transfer.Transfer.on_slot_request",
        "consensus.raft.config.Role",
        "consensus.raft.leadership.Leadership.status",
        "consensus.raft.progress.ProgressState",
        "orders.effects.Alarm",
        "orders.gate.Refusal",
        "orders.venues.adapter.VenueCapabilities",
        "orders.venues.book.OrderBook.check_invariants",
        "profiling.bench.result.Result.as_dict",
        "profiling.bench.result.Result.row",
        "protocol.messages.AppendEntries",
        "protocol.messages.AppendEntriesResponse",
        "protocol.messages.Commit",
        "protocol.messages.Denial",
        "protocol.messages.Entry",
        "protocol.messages.NewOrder",
        "protocol.messages.OrderStatusRequest",
        "protocol.messages.PrePrepare",
        "protocol.messages.Prepare",
        "protocol.messages.RequestVote",
        "protocol.messages.RequestVoteResponse",
        "protocol.messages.SlotReply",
        "protocol.messages.StatusReply",
        "protocol.overlay_read.constructor",
        "protocol.peer.Peer.on_data",
        "protocol.pki.spiffe_uri",
    }
)
"""Mostly messages whose field names are those of the papers."""

# Put together here, so that this file does not hold them.
FORBIDDEN_WORDS = ("TO" + "DO", "FIX" + "ME", "XX" + "X", "HA" + "CK")
NEEDS_AN_ENGINE = ("cluster",)
"""These tests are not in the default suite, and say so when there is no container engine."""
TEXT_SUFFIXES = {".py", ".md", ".toml", ".capnp", ".yml", ".yaml"}


def ratchet(found: dict[str, int], allowed: dict[str, int], what: str) -> None:
    grown = {name: size for name, size in found.items() if size > allowed.get(name, 0)}
    assert not grown, f"{what} too long: {grown}"
    done = sorted(allowed.keys() - found.keys())
    assert not done, f"{what} short enough by now; take them off the list: {done}"


def test_functions_are_short() -> None:
    found = {
        f"{module.name}.{name}": size
        for module in modules().values()
        for name, node in definitions(module)
        if not isinstance(node, ast.ClassDef) and (size := size_of(node)) > FUNCTION_LINES_MAX
    }
    ratchet(found, LONG_FUNCTIONS, "functions")


def size_of(node: Definition) -> int:
    assert node.end_lineno is not None
    return node.end_lineno - node.lineno + 1


def test_files_are_short() -> None:
    sizes = {module.relative: len(module.text.splitlines()) for module in modules().values()}
    ratchet({name: size for name, size in sizes.items() if size > FILE_LINES_MAX}, LONG_FILES, "files")


def public(name: str) -> bool:
    return not any(part.startswith("_") for part in name.split("."))


def undocumented(module: Module) -> list[str]:
    """Public functions and classes of a module, and methods of more than a few lines, that have no docstring."""
    return [
        f"{module.name}.{name}"
        for name, node in definitions(module)
        if public(name) and ast.get_docstring(node) is None and ("." not in name or size_of(node) > METHOD_LINES)
    ]


def test_what_is_public_is_documented() -> None:
    known = modules().values()
    found = {entry for module in known if module.room in DOCUMENTED_ROOMS for entry in undocumented(module)}
    assert not found - WITHOUT_DOCSTRING, sorted(found - WITHOUT_DOCSTRING)
    assert not WITHOUT_DOCSTRING - found, f"documented now; shorten the list: {sorted(WITHOUT_DOCSTRING - found)}"


def test_modules_say_what_they_are_for() -> None:
    silent = [
        module.relative
        for module in modules().values()
        if module.text.strip() and not module.path.name.startswith("__") and ast.get_docstring(module.tree) is None
    ]
    assert not silent


@pytest.mark.parametrize("room", ROOMS)
def test_every_room_has_a_readme_of_one_screen_or_two(room: str) -> None:
    lines = (ROOT / room / "README.md").read_text().splitlines()
    assert 20 <= len(lines) <= 60, len(lines)
    assert any("```" in line for line in lines), "the contract in code"
    assert any(line.startswith("|") for line in lines), "a map of the files"


@pytest.mark.parametrize("room", ROOMS)
def test_files_that_a_readme_names_exist(room: str) -> None:
    text = (ROOT / room / "README.md").read_text()
    first_cells = [line.split("|")[1] for line in text.splitlines() if line.startswith("|")]
    named = {name for cell in first_cells for name in re.findall(r"`([\w/]+\.(?:py|capnp))`", cell)}
    missing = [name for name in named if not (ROOT / room / name).exists() and not list((ROOT / room).rglob(name))]
    assert not missing


def texts() -> list[Path]:
    folders = [ROOT / room for room in (*ROOMS, "tests", "docs") if (ROOT / room).is_dir()]
    return [path for folder in folders for path in folder.rglob("*") if path.suffix in TEXT_SUFFIXES] + [
        path for path in ROOT.iterdir() if path.suffix in TEXT_SUFFIXES
    ]


def test_nothing_is_left_for_later() -> None:
    pattern = re.compile(rf"\b({'|'.join(FORBIDDEN_WORDS)})\b")
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in texts()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if pattern.search(line)
    ]
    assert not found


def test_no_test_is_skipped() -> None:
    pattern = re.compile(r"pytest\.(mark\.)?(skip|skipif|xfail|importorskip)\b")
    found = [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != Path(__file__)
        and path.parent.name not in NEEDS_AN_ENGINE
        and pattern.search(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_no_error_is_swallowed() -> None:
    found = [
        f"{module.relative}:{node.lineno}"
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.ExceptHandler)
        and (node.type is None or ast.unparse(node.type) in ("Exception", "BaseException"))
        and all(isinstance(statement, ast.Pass | ast.Continue) for statement in node.body)
    ]
    assert not found
