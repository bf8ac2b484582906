"""Structured log lines on stderr: logfmt, one event a line, quiet in steady state."""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime
from typing import Any

_LOGGER = logging.getLogger("wasmlab.node")
_BARE = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@+,[]")


def _value(value: Any) -> str:
    text = str(value)
    if text and set(text) <= _BARE:
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


class _Logfmt(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line = f"time={time.replace('+00:00', 'Z')} level={record.levelname.lower()} msg={_value(record.getMessage())}"
        for key, value in getattr(record, "fields", {}).items():
            line += f" {key}={_value(value)}"
        if record.exc_info:
            line += f" trace={_value(self.formatException(record.exc_info))}"
        return line


def setup(level: str = "info") -> None:
    """Send this package's lines, and asyncio's complaints, to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Logfmt())
    for logger in (_LOGGER, logging.getLogger("asyncio"), logging.getLogger("aiohttp")):
        logger.handlers[:] = [handler]
        logger.propagate = False
        logger.setLevel(logging.WARNING)
    _LOGGER.setLevel(level.upper())


def debug(message: str, **fields: Any) -> None:
    """For whoever looks for a fault."""
    if _LOGGER.isEnabledFor(logging.DEBUG):
        _LOGGER.debug(message, extra={"fields": fields})


def info(message: str, **fields: Any) -> None:
    """Something an operator wants to know; never in steady state."""
    _LOGGER.info(message, extra={"fields": fields})


def warning(message: str, **fields: Any) -> None:
    """Something is wrong and is being dealt with."""
    _LOGGER.warning(message, extra={"fields": fields})


def error(message: str, *, exc_info: BaseException | None = None, **fields: Any) -> None:
    """Something is wrong and stays so."""
    _LOGGER.error(message, exc_info=exc_info, extra={"fields": fields})
