"""Appends that one follower has not answered yet, bounded in number and in bytes."""

from __future__ import annotations

from collections import deque


class Inflight:
    """A window of unanswered messages, oldest first. An answer for an index frees every message up to it.

    ``full`` closes the window once a limit is reached, so the bytes exceed theirs by less than one message.
    """

    def __init__(self, count_max: int, bytes_max: int) -> None:
        self.count_max = count_max
        self.bytes_max = bytes_max
        self.bytes = 0
        self._messages: deque[tuple[int, int]] = deque()

    def __len__(self) -> int:
        return len(self._messages)

    @property
    def full(self) -> bool:
        return len(self._messages) >= self.count_max or self.bytes >= self.bytes_max

    def add(self, last_index: int, size_bytes: int) -> None:
        """A message with entries up to ``last_index`` leaves."""
        assert not self.full
        self._messages.append((last_index, size_bytes))
        self.bytes += size_bytes

    def free(self, index: int) -> None:
        """Everything up to ``index`` has arrived."""
        while self._messages and self._messages[0][0] <= index:
            self.bytes -= self._messages.popleft()[1]

    def clear(self) -> None:
        """What was under way is given up for lost."""
        self._messages.clear()
        self.bytes = 0

    def check_invariants(self, match_index: int, next_index: int) -> None:
        if not self._messages:
            assert self.bytes == 0
            return
        assert len(self._messages) <= self.count_max
        assert self.bytes == sum([size for _, size in self._messages])
        for last, _ in self._messages:
            assert match_index < last < next_index
