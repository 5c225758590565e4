"""Tasks that nobody awaits."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


def background(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """Run it on this loop. What it raises is a defect of ours, and goes to the loop's exception handler at once: a task
    that is kept somewhere would keep its exception to itself."""
    task = asyncio.get_running_loop().create_task(work)
    task.add_done_callback(_report)
    return task


def _report(task: asyncio.Task[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        context = {"message": f"a task ended: {task.get_coro()}", "exception": error, "task": task}
        task.get_loop().call_exception_handler(context)
