"""
The content of one message between DATA and its mailboxes: in memory while it is small, else in an unnamed local file.

Guarantees  about SPOOL_OCTETS of memory a message; nothing stays on the node's disk, whatever happens to the process.
Knows       the disk pool. Nothing of SMTP.
"""

import asyncio
import tempfile
from collections.abc import Iterator
from typing import IO

from node.pools import Pool
from store.mailbox import CHUNK_OCTETS

SPOOL_OCTETS = 256 * 1024  # Messages up to this size never touch the node's own disk.


class Spool:
    """The content of one message between DATA and its mailboxes."""

    def __init__(self, disk: Pool) -> None:
        self._disk = disk
        self._memory: list[bytes] = []
        self._in_memory = 0
        self._file: IO[bytes] | None = None
        self.octets = 0

    async def add(self, line: bytes) -> None:
        """Append to the content."""
        self._memory.append(line)
        self._in_memory += len(line)
        self.octets += len(line)
        if self._in_memory > SPOOL_OCTETS:
            await self._disk.run(self._write_out).asFuture(asyncio.get_running_loop())

    def chunks(self, heading: bytes) -> Iterator[bytes]:
        """Yield a heading and the content, in chunks of about CHUNK_OCTETS. Blocking, repeatable."""
        parts, size = [heading], len(heading)
        if self._file is not None:
            yield heading
            parts, size = [], 0
            self._file.seek(0)
            while chunk := self._file.read(CHUNK_OCTETS):
                yield chunk
        for part in self._memory:
            parts.append(part)
            size += len(part)
            if size >= CHUNK_OCTETS:
                yield b"".join(parts)
                parts, size = [], 0
        if parts:
            yield b"".join(parts)

    def close(self) -> None:
        """Forget the content."""
        self._memory.clear()
        if self._file is not None:
            self._file.close()

    def _write_out(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        self._file.write(b"".join(self._memory))
        self._memory.clear()
        self._in_memory = 0
