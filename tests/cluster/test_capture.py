"""What a packet capture sees on the loopback ports: QUIC version 1, ALPN ``swarm/1``, and nothing in clear."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.oracles.swarm_process import PORTS, SwarmDirectory, finish

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

QUIC_VERSION_1 = "0x00000001"


@pytest.fixture
def tshark() -> str:
    """Debian's package; installed where that is possible, skipped with the reason where it is not."""
    found = shutil.which("tshark")
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        subprocess.run(["apt-get", "update", "-qq"], check=False, env=environment, timeout=120)
        subprocess.run(["apt-get", "install", "-y", "-qq", "tshark"], check=False, env=environment, timeout=240)
        found = shutil.which("tshark")
    if found is None or os.geteuid() != 0:
        pytest.skip("tshark is not installed, or this user may not capture")
    return found


@pytest.fixture
def swarm(tmp_path: Path) -> Iterator[SwarmDirectory]:
    directory = SwarmDirectory(tmp_path)
    yield directory
    directory.kill_all()


def test_agents_speak_quic_version_1_with_our_alpn(tshark: str, swarm: SwarmDirectory, tmp_path: Path) -> None:
    last = swarm.base_port + PORTS - 1
    capture = tmp_path / "swarm.pcapng"
    ports = f"udp portrange {swarm.base_port}-{last}"
    sniffer = subprocess.Popen(
        [tshark, "-Q", "-i", "lo", "-f", ports, "-w", str(capture), "-a", "duration:90"],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        time.sleep(2)
        finish(swarm.up("--cycles", "3"))
        time.sleep(1)
    finally:
        sniffer.terminate()
        sniffer.communicate(timeout=20)
    rows = [line.split("\t") for line in dissect(tshark, capture, swarm.base_port).splitlines()]
    versions = {version for row in rows for version in row[0].split(",") if version}
    names = {name for row in rows for name in row[1].split(",") if name}
    dialled = {row[2] for row in rows if row[1]}
    assert versions == {QUIC_VERSION_1}
    assert names == {"swarm/1"}
    voters = {str(port) for port in range(swarm.base_port + 1, swarm.base_port + PORTS)}
    assert dialled == voters, "every agent but the first is dialled by one before it"


def dissect(tshark: str, capture: Path, base_port: int) -> str:
    """One line per packet with a long header: versions, ALPN names, destination port."""
    command = [tshark, "-r", str(capture), "-Y", "quic.version"]
    for port in range(base_port, base_port + PORTS):
        command += ["-d", f"udp.port=={port},quic"]
    command += ["-T", "fields", "-e", "quic.version", "-e", "tls.handshake.extensions_alpn_str", "-e", "udp.dstport"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
