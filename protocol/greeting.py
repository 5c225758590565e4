"""The first two messages of a connection: who speaks, in which cluster, on this very TLS session.

Pure: bytes to sign and verdicts, no I/O. Each side signs the TLS exporter, so that a greeting cannot be carried to
another session, and its direction, so that it cannot be sent back to its author.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography.x509 import Certificate, ObjectIdentifier

from protocol.credential import show_certificate, shown_certificate
from protocol.errors import PeerViolation
from protocol.identity import Identity, Verifier
from protocol.messages import Hello, HelloAck
from protocol.pki import admit
from protocol.roster import Agent, Roster, may_talk
from protocol.signing import hello_bytes

PROBE_EPOCH: Final = 0
"""Epoch of a visitor that only asks for the status. It never takes the place of an agent's own connection."""


def process_epoch() -> int:
    """A number that grows with every start of an agent on a host: nanoseconds of the wall clock."""
    return time.time_ns()


@dataclass(frozen=True, slots=True)
class Greeter:
    """Makes and checks greetings for one agent. ``epoch`` is the process's, or ``PROBE_EPOCH`` for a visitor."""

    identity: Identity
    roster: Roster
    verifier: Verifier
    epoch: int

    def hello(self, exporter: bytes) -> Hello:
        """The dialler's greeting."""
        agent, roster = self.identity.agent, self.roster
        signature = self.identity.sign(self._bytes(exporter, agent.index, self.epoch, dialler=True))
        shown = show_certificate(self.identity, exporter)
        return Hello(roster.cluster_id, agent.index, self.epoch, roster.digest, signature, *shown)

    def acknowledgement(self, exporter: bytes) -> HelloAck:
        """The listener's answer to a good greeting."""
        agent = self.identity.agent
        signature = self.identity.sign(self._bytes(exporter, agent.index, self.epoch, dialler=False))
        return HelloAck(agent.index, self.epoch, self.roster.digest, signature)

    def admit(self, certificate: Certificate, purpose: ObjectIdentifier, expected: Agent | None = None) -> Agent:
        """Whom a peer's certificate names, its chain being checked already. Raises ``PeerViolation`` as ``pki.admit``
        does, and ``certificate_revoked``."""
        agent = admit(self.roster, certificate, purpose, expected)
        self.identity.revocations.check(certificate)
        return agent

    def shown(self, hello: Hello, exporter: bytes) -> Certificate:
        """The certificate of a dialler whom TLS did not ask for one. Raises ``PeerViolation``."""
        return shown_certificate(hello, self.identity.authorities, exporter, datetime.now(UTC))

    def check_hello(self, hello: Hello, certified: Agent, exporter: bytes) -> Agent:
        """Who greets us. ``certified`` is whom its TLS certificate names.

        Raises ``PeerViolation``: ``cluster``, ``roster``, ``identity`` (greeting and certificate differ),
        ``role_pair`` (no business together), ``signature``.
        """
        if hello.cluster_id != self.roster.cluster_id:
            raise PeerViolation("cluster", f"greeted for cluster {hello.cluster_id.hex()}")
        self._check_sender(hello, certified, exporter, dialler=True)
        own = self.identity.agent
        if certified.index != own.index and not may_talk(certified.role, own.role):
            raise PeerViolation("role_pair", f"a {certified.role} has no business with a {own.role}")
        return certified

    def check_acknowledgement(self, answer: HelloAck, expected: Agent, exporter: bytes) -> None:
        """Whether the listener is whom we dialled. Raises ``PeerViolation`` as ``check_hello`` does."""
        self._check_sender(answer, expected, exporter, dialler=False)

    def _check_sender(self, greeting: Hello | HelloAck, agent: Agent, exporter: bytes, *, dialler: bool) -> None:
        if greeting.roster_digest != self.roster.digest:
            raise PeerViolation("roster", f"{agent.id} has another roster")
        if greeting.agent != agent.index:
            raise PeerViolation("identity", f"certificate of {agent.id}, greeting of agent {greeting.agent}")
        signed = self._bytes(exporter, greeting.agent, greeting.epoch, dialler=dialler)
        if not self.verifier.verify(agent.index, signed, greeting.signature):
            raise PeerViolation("signature", f"not signed by {agent.id} for this session")

    def _bytes(self, exporter: bytes, agent: int, epoch: int, *, dialler: bool) -> bytes:
        return hello_bytes(self.roster.cluster_id, exporter, agent, epoch, self.roster.digest, dialler)
