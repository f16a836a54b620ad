"""
A POP3 client that is fit for servers that die in mid-sentence.

Guarantees  no call takes longer than the time limit for each line of the answer; the socket is closed by end().
Fails with  OSError where the connection ended or was silent; Refused where the answer was -ERR and a listing was wanted.
Knows       lines and dots.

Rejected: poplib, whose one exception says both that a connection ended and that a command was refused.
"""

import contextlib
import socket
from typing import Self

ANSWER_SECONDS_MAX = 5.0  # Above every answer of a node that runs (the ledger's own time-out is 2 s).
LINE_OCTETS_MAX = 1_000_000  # A server that sends no end of line is not read for ever.


class Refused(Exception):
    """A command or a login was refused; the text is the reply."""


class Client:
    """One connection. The greeting is read and in ``greeting``."""

    def __init__(self, at: tuple[str, int], seconds: float = ANSWER_SECONDS_MAX) -> None:
        self._socket = socket.create_connection(at, timeout=seconds)
        self._file = self._socket.makefile("rb")
        try:
            self.greeting = self.hear()
        except BaseException:
            self.end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Break the connection off, without QUIT."""
        with contextlib.suppress(OSError):
            self._file.close()
        self._socket.close()

    def limit(self, seconds: float) -> None:
        """Set how long an answer may take from now on."""
        self._socket.settimeout(seconds)

    def send(self, *lines: str) -> None:
        """Send commands and do not wait for their answers."""
        self._socket.sendall("".join(f"{line}\r\n" for line in lines).encode())

    def hear(self) -> str:
        """Return the first line of the next reply, -ERR too."""
        return self._line().decode(errors="replace")

    def say(self, line: str) -> str:
        """Send a command; return the first line of the reply, -ERR too."""
        self.send(line)
        return self.hear()

    def block(self, line: str) -> list[bytes]:
        """Send a command with a reply of several lines; return them, the first one not. :raises Refused: -ERR."""
        reply = self.say(line)
        if not reply.startswith("+OK"):
            raise Refused(reply)
        lines = []
        while (found := self._line()) != b".":
            lines.append(found[1:] if found.startswith(b"..") else found)
        return lines

    def _line(self) -> bytes:
        line = self._file.readline(LINE_OCTETS_MAX)
        if not line.endswith(b"\n"):
            raise ConnectionResetError("the connection ended in the middle of a conversation")
        return line.rstrip(b"\r\n")
