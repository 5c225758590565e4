"""Who votes and who learns, as the log says it."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from protocol.errors import PeerViolation


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """Roster positions, each list sorted and without repetition."""

    voters: tuple[int, ...]
    outgoing: tuple[int, ...] = ()
    """Not empty while joint: the voters before, whose quorum is needed as well."""
    learners: tuple[int, ...] = ()
    """They get the log and count for nothing. One of ``outgoing`` still votes there until the change ends."""
    auto_leave: bool = True
    """The leader ends the joint configuration by itself once it is committed."""

    @property
    def joint(self) -> bool:
        return bool(self.outgoing)

    @property
    def members(self) -> tuple[int, ...]:
        """Everybody who gets the log."""
        return tuple(sorted({*self.voters, *self.outgoing, *self.learners}))

    @property
    def halves(self) -> tuple[tuple[int, ...], ...]:
        """The sets of voters that each must reach a quorum. Seeded bug 13: only one of them."""
        return (self.voters, self.outgoing) if self.joint else (self.voters,)

    def votes(self, replica: int) -> bool:
        return replica in self.voters or replica in self.outgoing

    def left(self) -> Configuration:
        """What follows a joint configuration."""
        return Configuration(self.voters, (), self.learners)

    def encode(self) -> bytes:
        return msgspec.msgpack.encode(self)


def change(now: Configuration, voters: Iterable[int], learners: Iterable[int], auto_leave: bool) -> Configuration:
    """What leads from ``now`` to these voters and learners: joint if the voters change, else at once."""
    target = Configuration(tuple(sorted(set(voters))), (), tuple(sorted(set(learners))))
    if target.voters == now.voters:
        return target
    return Configuration(target.voters, now.voters, target.learners, auto_leave)


def decode_configuration(body: bytes) -> Configuration:
    """Raises ``PeerViolation`` when ``body`` is no configuration. Depends on the bytes alone."""
    try:
        configuration = msgspec.msgpack.decode(body, type=Configuration)
    except msgspec.MsgspecError as error:
        raise PeerViolation("membership_malformed", str(error)) from error
    lists = (configuration.voters, configuration.outgoing, configuration.learners)
    if not configuration.voters or any(list(members) != sorted(set(members)) for members in lists):
        raise PeerViolation("membership_malformed", f"{configuration}")
    return configuration
