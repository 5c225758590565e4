"""Cap'n Proto's own command line tool reads what we write and writes what we read: the wire is no dialect of ours.

The tool comes from the host or, where Debian's package manager is, from its package, unpacked into a folder of the
test's own. Like the other tests here it is not part of the default suite.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from profiling.bench.codec import samples
from protocol.codec import codec_for
from protocol.fields import ALL_TYPES
from protocol.layout import SCHEMA_PATH
from protocol.messages import Frame, Message
from tests.oracles.codec_examples import batch_example, example

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

PACKAGES = "^(capnproto|libcapnp-[0-9.]+)$"
STRING = re.compile(rb'"(?:\\.|[^"\\])*"')
CODEC = codec_for("capnp")


class Tool:
    """``capnp decode`` and ``capnp encode`` with our schema."""

    def __init__(self, program: Path, libraries: Path | None) -> None:
        self._program = program
        self._environment = {**os.environ, **({"LD_LIBRARY_PATH": str(libraries)} if libraries else {})}

    def decode(self, kind: str, data: bytes) -> bytes:
        return self._run("decode", kind, given=data)

    def encode(self, kind: str, text: bytes) -> bytes:
        # Release 0.9.2 takes a ")" inside a string for the end of a list's struct, also in what it wrote itself.
        quoted = STRING.sub(lambda found: found.group().replace(b")", rb"\051"), text)
        return self._run("encode", "--segment-size=65536", kind, given=quoted)

    def _run(self, command: str, *arguments: str, given: bytes) -> bytes:
        *options, kind = arguments
        done = subprocess.run(
            [self._program, command, *options, SCHEMA_PATH, kind],
            input=given, capture_output=True, env=self._environment, timeout=30, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr.decode()[-2000:]
        assert done.stderr == b"", "it reads to the end without a word of complaint"
        return done.stdout


@pytest.fixture(scope="module")
def tool(tmp_path_factory: pytest.TempPathFactory) -> Tool:
    installed = shutil.which("capnp")
    if installed is not None:
        return Tool(Path(installed), None)
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        pytest.skip("neither the capnp tool nor Debian's package manager is installed")
    folder = tmp_path_factory.mktemp("capnproto")
    known = subprocess.run(
        ["apt-cache", "search", "--names-only", PACKAGES], capture_output=True, text=True, check=True
    )
    names = [line.split()[0] for line in known.stdout.splitlines()]
    assert len(names) == 2, f"`apt-get update` first: the package lists name {names}"
    subprocess.run(["apt-get", "download", *names], cwd=folder, capture_output=True, check=True, timeout=200)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, folder], check=True, timeout=60)
    return Tool(folder / "usr/bin/capnp", next((folder / "usr/lib").glob("*/libcapnp*")).parent)


@pytest.mark.parametrize("message_type", ALL_TYPES, ids=lambda each: each.__name__)
def test_every_body_passes_through_the_tool(tool: Tool, message_type: type[Message]) -> None:
    message, name = example(message_type), message_type.__name__
    text = tool.decode(name, CODEC.encode_body(message))
    assert CODEC.decode_body(message_type, tool.encode(name, text)) == message


def test_a_batch_passes_through_the_tool(tool: Tool) -> None:
    text = tool.decode("Batch", CODEC.encode_batch(*batch_example()))
    assert CODEC.decode_batch(tool.encode("Batch", text)) == batch_example()


def test_a_frame_as_the_trader_makes_it_passes_through_the_tool(tool: Tool) -> None:
    frame = samples.frame()
    text = tool.decode("Frame", CODEC.encode_body(frame))
    assert f"limitPrice = {frame.intents[7].limit_price}".encode() in text
    assert text.count(b"symbol = ") == 2 * samples.ORDERS
    again = CODEC.decode_body(Frame, tool.encode("Frame", text))
    assert again == frame
    assert again.windows.array.tobytes() == frame.windows.array.tobytes()
