"""New certificates for a running agent: on SIGHUP, and when its files have changed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from agents.setup import Setup
from protocol.endpoint import Endpoint
from protocol.errors import UsageError
from protocol.identity import load_identity

POLL_S: Final = 60.0
WATCHED: Final = ("tls.crt", "tls.key", "ca.crt")


class Certificates:
    """Watches an agent's folder while its endpoint runs. A folder that does not hold together changes nothing."""

    def __init__(self, setup: Setup, endpoint: Endpoint) -> None:
        self._folder = setup.config.pki_dir / setup.agent.id
        self._setup = setup
        self._endpoint = endpoint
        self._seen = self._stamp()
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def reload(self) -> None:
        """Read the folder again and use what is there; what is wrong with it is one line in the log."""
        self._seen = self._stamp()
        try:
            identity = load_identity(self._folder, self._setup.roster, self._setup.agent.id)
        except UsageError as error:
            self._setup.log.error("certificates_not_reloaded", error=str(error))
            return
        self._endpoint.reload(identity)
        self._setup.log.info("certificates_reloaded", valid_until=identity.certificate.not_valid_after_utc.isoformat())

    def _look(self) -> None:
        self.start()
        if self._stamp() != self._seen:
            self.reload()

    def _stamp(self) -> tuple[int, ...]:
        """When the files were written; zeros for what cannot be seen at this moment."""
        return tuple(_modified_ns(self._folder / name) for name in WATCHED)


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
