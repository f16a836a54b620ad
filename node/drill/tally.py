"""
What the load counts while it runs: ends of sessions, deliveries, each second of it, and how long a mailbox was shut.

*Unreachable* is, for each mailbox, the longest stretch in which every attempt to open it failed: from the moment the
first failed attempt began until the next one had the mailbox open.

Guarantees  any number of threads may write.
"""

import threading
import time
from collections import Counter

from attrs import field, frozen

from node.drill.outcome import Second

LINES_MAX = 20  # Sentences that are kept of what never may happen; their number is counted on.


@frozen(kw_only=True)
class Counts:
    """The sums so far."""

    ok: int
    refused: int
    broken: int
    accepted: int
    deferred: int
    refused_for_good: int
    refusals: dict[str, int] = field(factory=dict)
    breaks: dict[str, int] = field(factory=dict)


class Tally:
    """The counters of one scenario. Times are of time.monotonic()."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.surprises: list[str] = []
        self._lock = threading.Lock()
        self._sums: Counter[str] = Counter()
        self._refusals: Counter[str] = Counter()
        self._breaks: Counter[str] = Counter()
        self._seconds: dict[int, Counter[str]] = {}
        self._failing_since: dict[str, float] = {}
        self._unreachable = 0.0

    def since_began(self) -> float:
        """Return the seconds since the scenario began."""
        return time.monotonic() - self.began

    # Sessions

    def ok(self) -> None:
        """A session came to its end: QUIT was answered with +OK."""
        self._count("ok")

    def refused(self, reason: str) -> None:
        """A login was refused, or found no connection."""
        self._count("refused")
        with self._lock:
            self._refusals[reason] += 1

    def broken(self, how: str, at: float | None = None) -> None:
        """A session had its mailbox and lost its connection, or was answered with -ERR: now, or at ``at``."""
        self._count("broken", at)
        with self._lock:
            self._breaks[how] += 1

    # Deliveries

    def accepted(self) -> None:
        """A delivery was answered with 250."""
        self._count("accepted")

    def deferred(self) -> None:
        """A delivery was answered with 4xx, or cut off."""
        self._count("deferred")

    def refused_for_good(self, reply: str) -> None:
        """A delivery was answered with 5xx: the sender gives up, and the mail is returned."""
        self._count("refused for good")
        with self._lock:
            if len(self.surprises) < LINES_MAX:
                self.surprises.append(f"a delivery was refused for good: {reply}")

    # Mailboxes

    def tried(self, mailbox: str, asked_at: float, *, opened: bool) -> None:
        """An attempt to open a mailbox has ended just now."""
        now = time.monotonic()
        with self._lock:
            if opened:
                since = self._failing_since.pop(mailbox, now)
                self._unreachable = max(self._unreachable, now - since)
            else:
                self._failing_since.setdefault(mailbox, asked_at)

    def unreachable_seconds(self) -> float:
        """Return the longest stretch of any mailbox, those that never opened again up to now."""
        now = time.monotonic()
        with self._lock:
            return max([self._unreachable, *(now - since for since in self._failing_since.values())])

    # Reading

    def counts(self) -> Counts:
        """Return the sums so far."""
        with self._lock:
            return Counts(
                ok=self._sums["ok"],
                refused=self._sums["refused"],
                broken=self._sums["broken"],
                accepted=self._sums["accepted"],
                deferred=self._sums["deferred"],
                refused_for_good=self._sums["refused for good"],
                refusals=dict(self._refusals.most_common()),
                breaks=dict(self._breaks.most_common()),
            )

    def timeline(self) -> tuple[Second, ...]:
        """Return every second from the first to the last in which something was counted."""
        with self._lock:
            last = max(self._seconds, default=-1)
            kinds = ("ok", "refused", "broken", "accepted", "deferred")
            rows = [(at, self._seconds.get(at, Counter())) for at in range(last + 1)]
            return tuple(Second(at=at, **{kind: row[kind] for kind in kinds}) for at, row in rows)

    def _count(self, kind: str, at: float | None = None) -> None:
        second = int((time.monotonic() if at is None else at) - self.began)
        with self._lock:
            self._sums[kind] += 1
            self._seconds.setdefault(second, Counter())[kind] += 1
