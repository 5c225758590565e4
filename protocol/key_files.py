"""Secrets on disk: written with mode 0600 in one step, and read only when nobody else can read them."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from protocol.errors import UsageError


def write_file(path: Path, content: bytes, *, secret: bool = False) -> None:
    """Replace ``path`` in one step, mode 0600 for a secret and 0644 otherwise. Raises ``UsageError``."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), 0o600 if secret else 0o644)
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        Path(temporary).replace(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be written ({error.strerror}): choose a directory that is writable") from None


def read_text(path: Path) -> bytes:
    """The bytes of a file. Raises ``UsageError`` when it is missing or unreadable."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UsageError(f"{path} is missing: write it with 'swarm init --renew'") from None
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}): give this user access to it") from None


def read_tls_key(path: Path) -> EllipticCurvePrivateKey:
    """The key of a TLS certificate. Raises ``UsageError``; refuses a file that group or world can open."""
    key = _read_key(path)
    if not isinstance(key, EllipticCurvePrivateKey):
        raise UsageError(f"{path} holds no elliptic-curve key: issue it again with 'swarm init --renew'")
    return key


def read_signing_key(path: Path) -> Ed25519PrivateKey:
    """An agent's Ed25519 key. Raises ``UsageError``; refuses a file that group or world can open."""
    key = _read_key(path)
    if not isinstance(key, Ed25519PrivateKey):
        raise UsageError(f"{path} holds no Ed25519 key: issue it again with 'swarm init --renew'")
    return key


def _read_key(path: Path) -> PrivateKeyTypes:
    content = read_text(path)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise UsageError(f"{path} has mode {mode:04o}, others could read the key: run 'chmod 600 {path}'")
    try:
        return load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UsageError(f"{path} holds no plain PEM private key: issue it again with 'swarm init --renew'") from None
