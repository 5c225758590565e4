"""New certificates and revocation lists for a running agent: on SIGHUP, and when its files have changed."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from agents.public_feed import PublicFeed
from agents.setup import Setup
from protocol.endpoint import Endpoint
from protocol.errors import UsageError
from protocol.identity import load_identity
from protocol.revocation import LIST_NAME, Revocations

POLL_S: Final = 1.0
WATCHED: Final = ("tls.crt", "tls.key", "ca.crt", LIST_NAME)


class Certificates:
    """Watches an agent's folder while its connections live. A folder that does not hold together changes nothing."""

    def __init__(self, setup: Setup, *ends: Endpoint | PublicFeed) -> None:
        self._folder = setup.config.pki_dir / setup.agent.id
        self._setup = setup
        self._ends = ends
        self._revocations = setup.identity.revocations
        self._seen = self._changing = self._stamp()
        self._overdue: Revocations | None = None
        """The list that was last found to have expired."""
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(POLL_S, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def reload(self) -> None:
        """Read the folder again and use what is there; what is wrong with it is one line in the log."""
        self._seen = self._changing = self._stamp()
        roster, log = self._setup.roster, self._setup.log
        try:
            identity = load_identity(self._folder, roster, self._setup.agent.id, known=self._revocations)
        except UsageError as error:
            log.error("certificates_not_reloaded", error=str(error))
            return
        self._revocations = identity.revocations
        for end in self._ends:
            end.reload(identity)
        valid_until = identity.certificate.not_valid_after_utc.isoformat()
        log.info("certificates_reloaded", valid_until=valid_until, revocations=identity.revocations.as_dict())
        if identity.revoked:
            log.error("own_certificate_revoked", mend="give this agent a new one: `swarm init --renew`")

    def _look(self) -> None:
        self.start()
        self._mind_expiry()
        stamp = self._stamp()
        if stamp == self._seen:
            return
        if stamp == self._changing:
            self.reload()
        self._changing = stamp  # whoever writes several files may not be done: they must be the same twice

    def _mind_expiry(self) -> None:
        revocations = self._revocations
        if revocations is not self._overdue and revocations.expired(datetime.now(UTC)):
            self._overdue = revocations
            mend = "sign a new one with `swarm revoke`; until then it revokes what it names"
            self._setup.log.warning("revocations_expired", mend=mend, **revocations.as_dict())

    def _stamp(self) -> tuple[int, ...]:
        """When the files were written; zeros for what cannot be seen at this moment."""
        return tuple(_modified_ns(self._folder / name) for name in WATCHED)


def _modified_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
