"""Which form of a module is imported: in processes of their own, over a small tree of their own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import pytest

from protocol import native, native_build

PRINT_FORM = "from protocol.native import in_use; print(in_use())"


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A project with one room, and a build of it."""
    room = tmp_path / "protocol"
    room.mkdir()
    for name in ("__init__.py", "native.py"):
        shutil.copy(native.ROOT / "protocol" / name, room)
    write_manifest(tmp_path)
    return tmp_path


def write_manifest(tree: Path, text: str | None = None, further: Sequence[str] = ()) -> None:
    build = tree / "build" / "native"
    build.mkdir(parents=True, exist_ok=True)
    made_from = run(
        tree, "0", f"from protocol.native import fingerprint; print(fingerprint({list(further)}))"
    ).stdout.strip()
    (build / "manifest.json").write_text(
        text if text is not None else json.dumps({"fingerprint": made_from, "further": further})
    )


def run(tree: Path, wish: str, code: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree), native.VARIABLE: wish}
    command = [sys.executable, "-P", "-c", f"import sys; sys.modules['swarm__mypyc'] = sys; {code}"]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True)


@pytest.mark.parametrize(("wish", "found"), [("", "True"), ("0", "False"), ("1", "True")])
def test_a_build_of_these_sources_is_used_unless_it_is_not_wanted(tree: Path, wish: str, found: str) -> None:
    assert run(tree, wish, PRINT_FORM).stdout.strip() == found


def test_compiled_modules_come_first_and_sources_are_found_behind_them(tree: Path) -> None:
    where = "import protocol; print(*protocol.__path__, sep='|')"
    assert run(tree, "", where).stdout.strip().split("|") == [
        str(tree / "build" / "native" / "protocol"),
        str(tree / "protocol"),
    ]
    assert run(tree, "0", where).stdout.strip() == str(tree / "protocol")


@pytest.mark.parametrize("change", ["an edit", "a new file", "a file less"])
def test_any_change_of_the_sources_sends_everybody_back_to_them(tree: Path, change: str) -> None:
    other = tree / "protocol" / "other.py"
    other.write_text("number = 1\n")
    write_manifest(tree)
    assert run(tree, "", PRINT_FORM).stdout.strip() == "True"
    if change == "an edit":
        other.write_text("number = 2\n")
    elif change == "a new file":
        (tree / "protocol" / "third.py").write_text("")
    else:
        other.unlink()
    assert run(tree, "", PRINT_FORM).stdout.strip() == "False"


def test_a_module_outside_of_the_rooms_counts_once_it_was_compiled_too(tree: Path) -> None:
    (tree / "around.py").write_text("number = 1\n")
    print_wish = "from protocol.native import is_current; print(is_current(['around']))"
    assert run(tree, "", print_wish).stdout.strip() == "False"
    write_manifest(tree, further=["around"])
    assert run(tree, "", print_wish).stdout.strip() == run(tree, "", PRINT_FORM).stdout.strip() == "True"
    (tree / "around.py").write_text("number = 2\n")
    assert run(tree, "", PRINT_FORM).stdout.strip() == "False"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"fingerprint": 5}',
        '{"fingerprint": "of another day"}',
        "null",
        '{"fingerprint": "", "further": ["gone"]}',
    ],
)
def test_no_build_or_a_broken_one_means_the_sources(tree: Path, text: str) -> None:
    write_manifest(tree, text)
    assert run(tree, "", PRINT_FORM).stdout.strip() == "False"
    demanded = run(tree, "1", PRINT_FORM)
    assert demanded.returncode == 1
    assert demanded.stderr.startswith("error: SWARM_NATIVE=1 and no compiled modules")
    assert demanded.stderr.count("\n") == 1 and "make native" in demanded.stderr


def test_another_wish_is_refused_in_one_line(tree: Path) -> None:
    asked = run(tree, "yes", PRINT_FORM)
    assert asked.returncode == 1 and asked.stderr.startswith("error: SWARM_NATIVE=yes: use 0 ")
    assert asked.stderr.count("\n") == 1


def test_what_is_listed_exists_and_defines_no_msgspec_struct() -> None:
    """mypyc would drop a struct's options without a word: frozen, gc, array_like."""
    for module in native_build.MODULES:
        source = (native.ROOT / f"{module}.py").read_text()
        assert "Struct, " not in source and "Struct)" not in source, module


def test_a_module_that_is_not_there_is_one_line() -> None:
    with pytest.raises(SystemExit, match=r"^error: no module tests/sim/nobody: ") as refused:
        native_build.main(["tests/sim/world", "tests/sim/nobody"])
    assert "\n" not in str(refused.value)


def test_what_is_missing_is_said_and_nothing_else_happens(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(native_build, "is_current", lambda *_: False)
    monkeypatch.setattr(native_build, "LOG", tmp_path / "native.log")
    monkeypatch.setattr(native_build.shutil, "which", lambda _: None)
    native_build.main()
    said = capsys.readouterr().out
    assert said.startswith("no C compiler (") and said.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_what_failed_is_kept_and_not_tried_again(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(native_build, "is_current", lambda *_: False)
    monkeypatch.setattr(native_build, "missing", lambda: None)
    monkeypatch.setattr(native_build, "LOG", tmp_path / "native.log")
    monkeypatch.setattr(native_build.sys, "executable", shutil.which("false"))
    native_build.main()
    assert "compiling failed: " in capsys.readouterr().out
    native_build.main()
    assert "failed before" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["native.log"]


def test_every_module_runs_in_the_form_that_was_chosen() -> None:
    suffix = native.SUFFIX if native.in_use() else ".py"
    for module in native_build.MODULES:
        file = import_module(module.replace("/", ".")).__file__
        assert file is not None and file.endswith(suffix), file
