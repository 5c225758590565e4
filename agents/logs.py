"""Structured logs on standard error: for people by default, one JSON object a line where a program reads them."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any, Final

import structlog

LEVELS: Final = {"debug": 10, "info": 20, "warning": 30, "error": 40}


def configure(*, as_json: bool, level: str = "info") -> None:
    """Set up structlog for this process. Standard output stays free for results."""
    renderer: Any = structlog.processors.JSONRenderer() if as_json else structlog.dev.ConsoleRenderer(colors=False)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    quic = logging.getLogger("quic")
    quic.handlers, quic.propagate = [_Forward()], False


class _Forward(logging.Handler):
    """What aioquic says of single packets, as our own debug lines: strangers must not be able to fill a log."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().debug("quic", text=record.getMessage())


def parse_line(line: str) -> dict[str, Any] | None:
    """A forwarded log line as fields, or None if it is something else (a crash's traceback, say)."""
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) and "event" in fields else None
