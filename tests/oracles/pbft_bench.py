"""One PBFT replica on a bench: a shell whose writes succeed at once, and which keeps all that was sent and written."""

from __future__ import annotations

import msgspec

from consensus.machine import Ready, SignedPhase, SlotCommit
from consensus.pbft.config import PbftConfig
from consensus.pbft.core import Pbft
from consensus.pbft.safety import SafetyRules
from protocol.messages import (
    CommittedSlot,
    Message,
    SignedCommand,
)
from tests.oracles.pbft_cluster import (
    CLUSTER,
    CONFIG,
    MS,
    make_command,
    make_commit,
    make_pre_prepare,
    make_prepare,
    signer,
    validate,
    verify,
)

NOW = 10_000 * MS
A, B, C = make_command(1), make_command(2), make_command(3)
BAD = msgspec.structs.replace(A, signature=bytes(32))


class Bench:
    """A machine and its shell. ``sent`` grows in the order of leaving; ``now_ns`` moves only with ``tick``."""

    def __init__(
        self,
        own: int,
        config: PbftConfig = CONFIG,
        slots: list[CommittedSlot] | None = None,
        phases: list[SignedPhase] | None = None,
        executed_upto: int = 0,
        n: int = 4,
        quorum_size: int = 3,
    ) -> None:
        self.sent: list[tuple[int, Message]] = []
        self.phases: list[SignedPhase] = list(phases or [])
        self.slots: list[CommittedSlot] = list(slots or [])
        self.executed: list[CommittedSlot] = []
        self.now_ns = NOW
        self.verified: list[int] = []
        safety = SafetyRules(own, CLUSTER, signer(own), self.phases)
        place = (own, tuple(range(n)), quorum_size, CLUSTER)
        self.machine = Pbft(*place, safety, self.check, config, validate, self.slots, list(self.phases), executed_upto)

    def check(self, replica: int, payload: bytes, signature: bytes) -> bool:
        self.verified.append(replica)
        return verify(replica, payload, signature)

    def take(self, ready: Ready, write: bool = True) -> None:
        self.sent += [(item.destination, item.message) for item in ready.send_now]
        self.executed += ready.committed_slots
        if write:
            self.phases += [record for record in ready.records if isinstance(record, SignedPhase)]
            self.slots += [record.slot for record in ready.records if isinstance(record, SlotCommit)]
            self.sent += [(item.destination, item.message) for item in ready.send_after_sync]
            self.machine.persisted(ready)

    def drain(self) -> None:
        while not (ready := self.machine.take_ready()).empty:
            self.take(ready)
        self.machine.check_invariants()

    def step(self, sender: int, message: Message) -> None:
        self.machine.step(sender, message, self.now_ns)
        self.drain()

    def tick(self, after_ns: int = 0) -> None:
        self.now_ns += after_ns
        self.machine.tick(self.now_ns)
        self.drain()

    def submit(self, *commands: SignedCommand) -> None:
        for command in commands:
            self.machine.submit(command)
        self.drain()

    def of(self, kind: type[Message]) -> list[Message]:
        """Drain: what was sent of one type, forgotten afterwards."""
        found = [message for _, message in self.sent if type(message) is kind]
        self.sent = [item for item in self.sent if type(item[1]) is not kind]
        return found

    def restarted(self, executed_upto: int = 0) -> Bench:
        return Bench(self.machine.own, slots=self.slots, phases=self.phases, executed_upto=executed_upto)


def backup(own: int = 1) -> Bench:
    bench = Bench(own)
    bench.tick()
    bench.sent.clear()
    return bench


def primary() -> Bench:
    return backup(0)


def decide(bench: Bench, sequence: int, *commands: SignedCommand) -> CommittedSlot:
    """Let a backup see a whole ordinary slot."""
    message = make_pre_prepare(sequence, *commands)
    bench.step(0, message)
    for replica in (2, 3):
        bench.step(replica, make_prepare(sequence, message.digest, replica))
    for replica in (0, 2):
        bench.step(replica, make_commit(sequence, message.digest, replica))
    return bench.executed[-1]


def config_with(**changes: int) -> PbftConfig:
    return PbftConfig(**{**{name: getattr(CONFIG, name) for name in CONFIG.__slots__}, **changes})
