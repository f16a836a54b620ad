"""
Dot-stuffing, and the first lines of a message: byte-exact at every chunk size.

Knows       RFC 1939 section 3. Input is canonical (every LF after a CR), which the store guarantees.
"""

END_OF_MESSAGE = b".\r\n"


class Stuffer:
    """Puts a dot before every line that begins with one."""

    def __init__(self) -> None:
        # Start as if a line had just ended: the first byte of a message begins a line like any other.
        self._at_line_start = True

    def feed(self, chunk: bytes) -> bytes:
        """Return the chunk as it goes over the wire."""
        if not chunk:
            return chunk
        out = chunk.replace(b"\n.", b"\n..") if b"\n." in chunk else chunk
        if self._at_line_start and chunk[0] == 0x2E:  # noqa: PLR2004 (a dot)
            out = b"." + out
        self._at_line_start = chunk[-1] == 0x0A  # noqa: PLR2004 (LF)
        return out


class TopCutter:
    """Lets the header, the empty line and the first n lines of the body pass (RFC 1939 section 7, TOP)."""

    def __init__(self, body_lines: int) -> None:
        self._body_lines = body_lines
        self._in_header = True
        self._line_is_empty = True
        self.done = False

    def feed(self, chunk: bytes) -> bytes:
        """Return the part of the chunk that belongs to the answer; ``done`` says that nothing more will."""
        position = 0
        while not self.done and position < len(chunk):
            end = chunk.find(b"\n", position)
            part = chunk[position:] if end < 0 else chunk[position : end + 1]
            position += len(part)
            self._line_is_empty = self._line_is_empty and not part.strip(b"\r\n")
            if end >= 0:
                self._end_line()
        return chunk[:position]

    def _end_line(self) -> None:
        if self._in_header:
            self._in_header = not self._line_is_empty
            self.done = not self._in_header and self._body_lines == 0
        else:
            self._body_lines -= 1
            self.done = self._body_lines <= 0
        self._line_is_empty = True
