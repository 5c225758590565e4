"""Tables that name, for every rule of the Raft paper, the test that holds it."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Mapping
from pathlib import Path

FOLDER = Path(__file__).parent.parent / "consensus"


@functools.cache
def defined_in(file: str) -> frozenset[str]:
    """The names of the tests in a file of ``FOLDER``."""
    path = FOLDER / file
    if not path.exists():
        return frozenset()
    tree = ast.parse(path.read_text())
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef) and is_test(node.name))


def is_test(name: str) -> bool:
    return name.startswith("test_")


def exists(test: str) -> bool:
    """``test`` is written like pytest does, as ``file.py::test_name`` or, for a transcript,
    ``file.py::test_scenario[name]``."""
    file, _, name = test.partition("::")
    name, _, scenario = name.partition("[")
    there = not scenario or (FOLDER / "scenarios" / f"{scenario.removesuffix(']')}.txt").exists()
    return name in defined_in(file) and there


def check_rules(rules: Mapping[str, str], own_file: str, counts: Mapping[str, int] | None = None) -> None:
    """Every rule has a test that exists, and every test of ``own_file`` stands for a rule. ``counts`` says how many
    rules the paper numbers or lists under a heading: ``heading 1`` to ``heading n``."""
    missing = {rule: test for rule, test in rules.items() if not exists(test)}
    assert not missing, f"rules whose test does not exist: {missing}"
    for heading, count in (counts or {}).items():
        for number in range(1, count + 1):
            pattern = rf"{re.escape(heading)} {number}\b"
            assert any(re.match(pattern, rule) for rule in rules), f"no test for: {heading} {number}"
    named = {test.partition("::")[2] for test in rules.values() if test.startswith(own_file)}
    strays = defined_in(own_file) - named - {"test_every_rule_has_its_test"}
    assert not strays, f"tests that stand for no rule: {sorted(strays)}"
