"""Which configuration holds at which point of the log (section 6 of the paper).

A configuration takes effect when its entry enters the log, committed or not, as in the paper, and ends when the entry
is overwritten. So it is a function of the log alone: after a restart the log says again what held, whatever had been
applied, and nothing can take effect twice. (etcd lets it take effect when it is applied, and has to keep the applied
configuration and the applied index together on the disk.) What makes this safe is the joint configuration: while the
voters change, every election and every commit takes a quorum of the old voters and one of the new.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from itertools import pairwise

from consensus.quorum import agreed_index
from consensus.raft.configuration import Configuration, decode_configuration
from protocol.codes import EntryKind
from protocol.errors import PeerViolation
from protocol.messages import Entry

QuorumSize = Callable[[int], int]
"""The quorum for so many voters; 0 when there is none for such a number."""


def fixed_size(size: int, voters: int) -> QuorumSize:
    """For a group whose number of voters never changes."""
    return lambda count: size if count == voters else 0


class Membership:
    """Follows the log, and counts quorums by the latest configuration in it.

    Invariant: indices rise; the first configuration is committed, at the log's start or in a snapshot.
    """

    def __init__(self, first: Configuration, index: int, quorum_size: QuorumSize) -> None:
        self.malformed = 0
        """Entries that held no configuration, and changed nothing: no honest leader appends one."""
        self.quorum_size = quorum_size
        self._history = [(index, first)]

    @property
    def current(self) -> Configuration:
        return self._history[-1][1]

    @property
    def index(self) -> int:
        """Where the current configuration entered the log."""
        return self._history[-1][0]

    def at(self, index: int) -> Configuration:
        """What held after the entry at ``index``."""
        return next(configuration for start, configuration in reversed(self._history) if start <= index)

    def may_stand(self, replica: int, commit_index: int) -> bool:
        """Whether it votes in the latest configuration, or in one that holds until that is committed.

        A replica that the latest one leaves out must stand all the same while that one is not committed (thesis,
        4.2.2): it may be the only one whose log is complete enough to win, and then it leads until it has committed it.
        """
        in_force = [configuration for index, configuration in self._history if index > commit_index]
        return any(configuration.votes(replica) for configuration in (self.at(commit_index), *in_force))

    def appended(self, entries: Sequence[Entry]) -> None:
        """These entered the log at its end."""
        for entry in entries:
            if entry.kind == EntryKind.MEMBERSHIP and entry.index > self._history[0][0]:
                try:
                    self._history.append((entry.index, decode_configuration(entry.payload)))
                except PeerViolation:
                    self.malformed += 1

    def truncated(self, keep: int) -> None:
        """Everything after ``keep`` left the log, and with it what held from there on."""
        while len(self._history) > 1 and self.index > keep:
            self._history.pop()

    def restart(self, index: int, configuration: Configuration) -> None:
        """A snapshot stands for everything before."""
        self._history = [(index, configuration)]

    def compacted(self, index: int) -> None:
        """Nobody will ask any more what held before ``index``."""
        while len(self._history) > 1 and self._history[1][0] <= index:
            del self._history[0]

    def agreed(self, values: Mapping[int, int]) -> int:
        """The highest value that a quorum has reached, in each half. Who is not in ``values`` has reached nothing;
        learners count for nothing (seeded bug 14)."""
        lowest: int | None = None
        for half in self.current.halves:
            index = agreed_index([values.get(voter, 0) for voter in half], self.quorum_size(len(half)))
            lowest = index if lowest is None else min(lowest, index)
        assert lowest is not None
        return lowest

    def reached(self, replicas: Container[int]) -> bool:
        """Whether these are a quorum, of each half."""
        return all(
            sum(voter in replicas for voter in half) >= self.quorum_size(len(half)) for half in self.current.halves
        )

    def size_error(self, voters: Sequence[int]) -> str | None:
        """Why these cannot vote together: no quorum size, or one that is no majority."""
        size = self.quorum_size(len(voters))
        if len(voters) // 2 < size <= len(voters):
            return None
        return f"quorum {size} of {len(voters)} voters: use a majority at least, and all at most"

    def check_invariants(self, commit_index: int, last_index: int) -> None:
        assert self._history[0][0] <= commit_index and self.index <= last_index
        assert all(earlier < later for (earlier, _), (later, _) in pairwise(self._history))
        assert self.size_error(self.current.voters) is None
