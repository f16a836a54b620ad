"""
Framing: command lines out of a byte stream, the same at every chunk size.

Guarantees  what next_line() returns does not depend on how the bytes were cut; an overlong line is reported once, at
            its end, and never becomes two commands.
Knows       bytes. A line ends at LF; one CR before it is part of the end.
"""

from typing import Final


class Overlong:
    """Stands for a line that was longer than allowed and has been thrown away."""


OVERLONG: Final = Overlong()


class LineBuffer:
    """Bytes received and not yet served."""

    def __init__(self) -> None:
        self._bytes = b""
        self._start = 0
        self._skipping = False

    def __len__(self) -> int:
        return len(self._bytes) - self._start

    def append(self, chunk: bytes) -> None:
        """Add what arrived."""
        if self._start == len(self._bytes):
            self._bytes = chunk
        else:
            self._bytes = self._bytes[self._start :] + chunk
        self._start = 0

    def next_line(self, octets_max: int) -> bytes | Overlong | None:
        """
        Return the next line without its end, OVERLONG, or None where no line is complete.

        :param octets_max: the limit for this line, its CRLF included.
        """
        end = self._bytes.find(b"\n", self._start)
        if end < 0:
            if len(self) > octets_max:
                # Whatever follows up to the next LF belongs to this line; only the fact is kept.
                self._bytes, self._start, self._skipping = b"", 0, True
            return None
        start, self._start = self._start, end + 1
        if self._skipping or end + 1 - start > octets_max:
            self._skipping = False
            return OVERLONG
        if end > start and self._bytes[end - 1] == 0x0D:  # noqa: PLR2004 (CR)
            end -= 1
        return self._bytes[start:end]
