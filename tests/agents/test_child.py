"""A supervised agent that is gone is asked in vain, and that is all."""

from __future__ import annotations

from multiprocessing.connection import wait
from typing import Any

import pytest
import uvloop

from agents.child import Child
from agents.nursery import Born

pytestmark = pytest.mark.processes


def test_an_agent_whose_pipe_breaks_before_its_end_is_seen_gives_no_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel closes the pipes of a killed process before anybody can see its end."""
    sees_the_end = Child._on_end
    unseen: list[Born] = []

    def on_line(agent_id: str, text: str, fields: dict[str, Any] | None) -> None:
        pass

    async def scenario() -> None:
        child = Child("nobody", ["--version"], on_line)
        await child.start()
        assert child._born is not None
        assert wait([child._born.process.sentinel], 60)
        for _ in range(3):
            assert await child.status(timeout_s=0.1) is None
        assert child.returncode is None
        sees_the_end(child, unseen[0])
        assert await child.wait() == 0

    monkeypatch.setattr(Child, "_on_end", lambda _, born: unseen.append(born))
    uvloop.run(scenario())
