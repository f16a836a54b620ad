"""
POP3 as bytes: commands in, replies out. Knows no states and no sockets.

Fails with  nothing: what is no command is returned as None, and the session says -ERR.
"""

import re
from typing import NamedTuple

COMMAND_OCTETS_MAX = 255  # RFC 2449 section 4: a command line has at most 255 octets, CRLF included.
SASL_OCTETS_MAX = 12_288  # RFC 5034 section 4: a line of an authentication exchange.
REPLY_OCTETS_MAX = 512  # RFC 2449 section 4: the first line of a reply, CRLF included.

_COMMAND = re.compile(rb"([A-Za-z]{3,4})(?: (.*))?", re.DOTALL)
_CONTROL = re.compile(rb"[\x00-\x1f\x7f]")


class Command(NamedTuple):
    """
    A verb in upper case and everything after the first space.

    A NamedTuple, not attrs: one is made for every line of every client, at a third of the price.
    """

    verb: str
    argument: bytes


class Reply(NamedTuple):
    """
    One reply. ``body`` is what follows the first line, dot-stuffed and ended already, or empty.

    ``ends`` says that the connection closes behind it.
    """

    line: bytes
    body: bytes = b""
    ends: bool = False

    def encode(self) -> bytes:
        """Return the reply's bytes."""
        return self.line + self.body


def ok(text: str = "", body: bytes = b"", *, ends: bool = False) -> Reply:
    """Return a positive reply."""
    return Reply(f"+OK {text}\r\n".encode("ascii", "replace") if text else b"+OK\r\n", body, ends)


def err(text: str, code: str = "", *, ends: bool = False) -> Reply:
    """Return a negative reply, with a response code of RFC 2449 section 8 or RFC 3206 where there is one."""
    line = f"-ERR [{code}] {text}" if code else f"-ERR {text}"
    return Reply(line.encode("ascii", "replace") + b"\r\n", b"", ends)


def continuation() -> Reply:
    """Return the request for the next line of an authentication exchange (RFC 5034 section 4)."""
    return Reply(b"+ \r\n")


def parse(line: bytes) -> Command | None:
    """Return the command on a line without its end, or None where it is none."""
    match = _COMMAND.fullmatch(line)
    if match is None or _CONTROL.search(line):
        return None
    return Command(match[1].upper().decode("ascii"), match[2] or b"")
