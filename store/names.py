"""
Unique names of messages. A name is a UIDL for ever, so it must never come twice (I3).

A uid has 26 characters: 13 of time (microseconds since 1970, hexadecimal: names sort by arrival), 8 that no
other process has (host, process id and entropy, hashed), 5 that count within the process. A clock that jumps
back can repeat the first part only.
"""

import itertools
import os
import re
import secrets
import socket
import time
from collections.abc import Callable
from hashlib import blake2b

TIME_DIGITS = 13  # Hexadecimal microseconds stay within 13 digits until the year 2112.
PROCESS_DIGITS = 8
COUNT_DIGITS = 5
COUNT_LIMIT = 16**COUNT_DIGITS

UID = re.compile(rf"[0-9a-f]{{{TIME_DIGITS + PROCESS_DIGITS + COUNT_DIGITS}}}")


class NameSource:
    """Makes uids. Clock, host and entropy are arguments so that a test can make them collide."""

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        host: str | None = None,
        entropy: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self._clock = clock
        seed = f"{host or socket.gethostname()} {os.getpid()} ".encode() + entropy(16)
        self._process = blake2b(seed, digest_size=PROCESS_DIGITS // 2).hexdigest()
        self._count = itertools.count()

    def next_uid(self) -> str:
        """Return a uid that was never returned before, by any process of any host."""
        count = next(self._count) % COUNT_LIMIT
        return f"{int(self._clock() * 1_000_000):0{TIME_DIGITS}x}{self._process}{count:0{COUNT_DIGITS}x}"
