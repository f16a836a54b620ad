"""
What a drill came to: the figures of each scenario, the promises they are judged by, a time line. Values only.

Guarantees  a report survives JSON unchanged: from_json(as_json(report)) == report.
Fails with  ValueError from from_json(), where the text is no report of this version.
Knows       nothing: the engine makes these values; the table, the page and the pictures read them.
"""

import json
from typing import Any

from attrs import asdict, field, fields, frozen

FORMAT = 1  # Of the JSON. A reader of another one says so instead of showing half of it.


@frozen(kw_only=True)
class Promise:
    """One promise of docs/FAILURES.md, what was measured, and whether it was kept."""

    text: str  # "no accepted message is lost"
    kept: bool
    measured: str  # "0 of 412", "0.81 s (at most 2.0 s)"


@frozen(kw_only=True)
class Second:
    """One second of a scenario's time line, as the load saw it."""

    at: int  # Whole seconds since the scenario began.
    ok: int  # Sessions that came to their end: QUIT was answered with +OK.
    refused: int  # Logins that were told to come later, or found no connection.
    broken: int  # Sessions that had their mailbox and lost their connection, or got -ERR.
    accepted: int  # Deliveries answered 250.
    deferred: int  # Deliveries answered 4xx, or whose connection broke.


@frozen(kw_only=True)
class Outcome:
    """One scenario. ``skipped`` says why it could not be run here; then every number is 0."""

    scenario: str  # "kill-node"
    broken: str  # A sentence: what was broken, "node2 gets SIGKILL."
    began: str  # ISO 8601, UTC.
    seconds: float  # The whole scenario.
    fault_from: float = 0.0  # Seconds since the scenario began.
    fault_to: float = 0.0  # When it was mended.
    sessions_ok: int = 0
    sessions_refused: int = 0
    sessions_broken: int = 0
    refusals: dict[str, int]  # By reason: "[SYS/TEMP]": 12, "no connection": 1.
    breaks: dict[str, int] = field(factory=dict)  # How sessions broke: "the connection ended": 3, or the reply.
    unreachable_seconds: float = 0.0  # The longest time in which every attempt to open some mailbox failed.
    takeover_seconds: tuple[float, ...] = ()  # For each mailbox that was held: from the fault until it was open again.
    accepted: int = 0  # Messages answered 250.
    readable: int = 0  # Of these, there at the end.
    removed: int = 0  # Of these, gone as their user asked.
    lost: int = 0  # Of these, gone and nobody asked.
    twice: int = 0  # Delivered once, there under two uids; or one uid for two messages.
    not_asked: int = 0  # Removed, seen by some session or reader before, and no session had asked.
    two_holders: int = 0  # Pairs of sessions that had one mailbox at one time and both removed.
    violations: tuple[str, ...] = ()  # The history checker's sentences.
    promises: tuple[Promise, ...] = ()
    timeline: tuple[Second, ...] = ()
    skipped: str = ""

    @property
    def kept(self) -> bool:
        """Tell whether every promise was kept; nothing was broken by what was skipped."""
        return all(promise.kept for promise in self.promises)


@frozen(kw_only=True)
class Report:
    """A whole drill, and how to make it again."""

    place: str  # "lab" | "compose"
    nodes: int
    command: str  # "mailroot drill --on lab kill-node"
    version: str  # Mailroot's.
    machine: str  # "2 cores, Linux 6.1, Python 3.11": no host name.
    began: str  # ISO 8601, UTC.
    outcomes: tuple[Outcome, ...]

    @property
    def kept(self) -> bool:
        """Tell whether every promise of every scenario was kept."""
        return all(outcome.kept for outcome in self.outcomes)

    def as_json(self) -> str:
        """Return the report as JSON, with ``kept`` spelled out for those who read only that."""
        return json.dumps({"format": FORMAT, "kept": self.kept, **asdict(self)}, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> "Report":
        """Read what as_json() wrote. :raises ValueError: it is something else."""
        try:
            values = json.loads(text)
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']!r}; this version reads {FORMAT}")
            return cls(**_of(cls, values) | {"outcomes": tuple(map(_outcome, values["outcomes"]))})
        except (KeyError, TypeError) as error:
            raise ValueError(f"no report of a drill: {error!r}") from error


def _outcome(values: dict[str, Any]) -> Outcome:
    several = {
        "takeover_seconds": tuple(values["takeover_seconds"]),
        "violations": tuple(values["violations"]),
        "promises": tuple(Promise(**_of(Promise, promise)) for promise in values["promises"]),
        "timeline": tuple(Second(**_of(Second, second)) for second in values["timeline"]),
    }
    return Outcome(**_of(Outcome, values) | several)


def _of(kind: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return the values that are fields of an attrs class; KeyError names a missing one."""
    return {each.name: values[each.name] for each in fields(kind)}
