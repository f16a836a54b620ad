"""
The names and fields of all log events, one line each, to standard error. Never a secret, never a body (I10).

    2026-03-01T12:00:00.123 INFO session node=n1 peer=192.0.2.7 mailbox=example.com/ada messages=3 fetched=1 …

One line for each session and each delivery, with all its facts, written when it ends. Values with blanks are quoted.
"""

import logging
import secrets
import sys
import time
from typing import Any, cast

from twisted.logger import STDLibLogObserver, globalLogBeginner

from store.errors import StoreError

_log = logging.getLogger("mailroot")


class _Line(logging.Formatter):
    """``time LEVEL event key=value …``."""

    _second = 0
    _stamp = ""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; a traceback, where there is one, follows it."""
        second = int(record.created)
        if second != self._second:
            self._second, self._stamp = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(second))
        line = f"{self._stamp}.{int(record.msecs):03d} {record.levelname} {record.getMessage()}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def start(level: int = logging.INFO) -> None:
    """Send everything to standard error."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(_Line())
    root = logging.getLogger()
    root.handlers[:] = [target]
    root.setLevel(level)
    # What a record needs none of: looking for the caller alone costs as much as the line (logging's own advice).
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    logging._srcfile = None  # noqa: SLF001
    # What Twisted has to say (an exception in a callback, most of all) goes the same way.
    globalLogBeginner.beginLoggingTo([cast("Any", STDLibLogObserver())], discardBuffer=True, redirectStandardIO=False)
    logging.getLogger("twisted").setLevel(logging.WARNING)
    # aiosmtpd logs every command of a stranger at INFO, addresses and all; our own line says what matters.
    logging.getLogger("mail.log").setLevel(logging.CRITICAL)
    logging.getLogger("asyncio").setLevel(logging.WARNING)


def event(name: str, **fields: object) -> None:
    """Write one event of the ordinary course."""
    if _log.isEnabledFor(logging.INFO):
        _log.info("%s", _told(name, fields))


def warning(name: str, **fields: object) -> None:
    """Write one event that an operator should look at."""
    _log.warning("%s", _told(name, fields))


def failure(name: str, error: BaseException | None, **fields: object) -> str:
    """
    Write a failure and return its reference, four hexadecimal digits, which the stranger is told too.

    A StoreError is an event of the world and gets its detail; anything else is a bug and gets its traceback.
    """
    reference = secrets.token_hex(2)
    if isinstance(error, StoreError):
        warning(name, ref=reference, failure=type(error).__name__, detail=error.detail, **fields)
    else:
        trace = (type(error), error, error.__traceback__) if error is not None else None
        _log.error("%s", _told(name, {"ref": reference, "bug": type(error).__name__, **fields}), exc_info=trace)
    return reference


def _told(name: str, fields: dict[str, object]) -> str:
    return " ".join([name, *[f"{key}={_value(value)}" for key, value in fields.items()]])


def _value(value: object) -> str:
    if type(value) is int:  # The commonest, and never in need of quotes.
        return str(value)
    text = f"{value:.3f}" if isinstance(value, float) else str(value)
    if text and text.isprintable() and " " not in text and '"' not in text:
        return text
    # repr() takes care of control characters that a stranger put into a name.
    return '"' + repr(text)[1:-1].replace('"', '\\"') + '"'
