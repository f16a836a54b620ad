"""
The figures of a drill as words: what the table, the Markdown, the live display and the page all say alike.

Knows       the values of `outcome.py` only. Prints nothing.
"""

from collections.abc import Iterator
from datetime import UTC, datetime

from attrs import frozen

from node.drill.outcome import Outcome, Report
from node.drill.pop import ANSWER_SECONDS_MAX

NONE = "–"  # noqa: RUF001 (the dash of a table, not a minus)
ALL_KEPT = "Everything as promised."
NOTHING_TRIED = "Nothing was tried."

# One word for each thing; the page explains them, the table and the pictures use them.
WORDS = {
    "session": (
        "One conversation of a POP3 client with the balancer: log in, list, read, mark some messages, QUIT. A client waits up"
        f" to {ANSWER_SECONDS_MAX:.0f} s for each answer and does nothing else meanwhile: few clients make a dip where one node hangs."
    ),
    "ok": "The session came to its end: QUIT was answered with +OK.",
    "refused": "The session was told to come again later (-ERR at login), or found no connection. Nothing is at stake.",
    "broken": (
        "The session had its mailbox, and its connection ended or QUIT was answered with -ERR. What it marked stays. One that is"
        " held open through a fault counts in the second in which its mailbox opened for somebody else."
    ),
    "accepted": "Deliveries answered with 250, by LMTP through the balancer. From then on the cluster answers for them.",
    "deferred": "Deliveries answered with 4xx or cut off. The sender keeps the message and tries again, as any MTA does.",
    "readable": "Accepted messages that are in their mailbox at the end, each known by the token in its subject.",
    "removed": "Accepted messages that a session marked and QUIT removed, as their user asked.",
    "lost": "Accepted, not removed by their user, and not there at the end. Promised: 0.",
    "twice": "Messages that were delivered once and are in their mailbox under two uids, or share one uid.",
    "not asked": "Messages that were removed though no session asked for it. Promised: 0.",
    "two holders": "Pairs of sessions that had one mailbox at the same time and both removed. Promised: 0.",
    "unreachable": "The longest time in which every attempt to open some mailbox failed, at whichever node.",
    "take-over": "From the fault until a mailbox that was held by what broke was open again; the longest of them.",
    "fault, mended": "When the thing was broken, and when it was put right again, in seconds since the scenario began.",
    "skipped": "The scenario cannot be made in this place, for the reason given. It counts neither way.",
}


@frozen(kw_only=True)
class Verdict:
    """What a report comes to: one sentence for everybody, and what it rests on."""

    kept: bool
    tried: bool
    headline: str
    basis: str


def verdict(report: Report) -> Verdict:
    """Judge a report."""
    tried = [outcome for outcome in report.outcomes if not outcome.skipped]
    skipped = len(report.outcomes) - len(tried)
    promises = [promise for outcome in tried for promise in outcome.promises]
    broken = sum(not promise.kept for promise in promises)
    basis = f"{counted(len(tried), 'scenario')}, {counted(len(promises), 'promise')}"
    basis += f", {broken} broken" if broken else ", all kept" if promises else ""
    basis += f"; {skipped} skipped" if skipped else ""
    failed = [outcome.scenario for outcome in tried if not outcome.kept]
    headline = NOTHING_TRIED if not tried else ALL_KEPT
    if failed:
        headline = f"{counted(broken, 'promise')} broken: look at {_listed(failed)}."
    return Verdict(kept=bool(tried) and not failed, tried=bool(tried), headline=headline, basis=f"{basis}.")


def broken_promises(report: Report) -> Iterator[str]:
    """Yield each broken promise as a sentence."""
    for outcome in report.outcomes:
        for promise in outcome.promises:
            if not promise.kept:
                yield f"{outcome.scenario}: the promise “{promise.text}” was broken: {promise.measured}"


def violations(outcome: Outcome, most: int) -> Iterator[str]:
    """Yield what the history shows, the first few sentences: a drill that goes wrong can have thousands."""
    yield from outcome.violations[:most]
    if len(outcome.violations) > most:
        yield f"… and {len(outcome.violations) - most:,} more; --json shows all"


def skipped(report: Report) -> Iterator[Outcome]:
    """Yield the scenarios that were not tried; ``skipped`` says why."""
    return (outcome for outcome in report.outcomes if outcome.skipped)


def tried(report: Report) -> Iterator[Outcome]:
    """Yield the scenarios that were tried."""
    return (outcome for outcome in report.outcomes if not outcome.skipped)


def takeover(outcome: Outcome) -> str:
    """Return the longest take-over, or a dash where no mailbox was held."""
    return seconds(max(outcome.takeover_seconds)) if outcome.takeover_seconds else NONE


def seconds(value: float) -> str:
    """Return seconds without their unit, as exact as a person can use them."""
    return f"{value:.2f}" if value < 100 else f"{value:,.0f}"  # noqa: PLR2004 (three digits say enough)


def key_figures(outcome: Outcome) -> str:
    """Return what matters of one outcome on one line of a terminal."""
    parts = [
        f"sessions {outcome.sessions_ok:,} ok, {outcome.sessions_refused:,} refused, {outcome.sessions_broken:,} broken",
        f"{outcome.accepted:,} accepted, {outcome.lost:,} lost",
    ]
    if outcome.takeover_seconds:
        parts.append(f"take-over {takeover(outcome)} s")
    return "; ".join(parts)


def refusals(outcome: Outcome) -> str:
    """Return why sessions were refused, most frequent first."""
    ordered = sorted(outcome.refusals.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count:,} × {reason}" for reason, count in ordered)  # noqa: RUF001 (a multiplication sign)


def when(moment: str) -> str:
    """Return an ISO 8601 time as a person writes it, in UTC; what is none is returned as it is."""
    try:
        return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return moment


def place(report: Report) -> str:
    """Say where the drill ran."""
    names = {"lab": "mailroot lab", "compose": "Docker Compose"}
    return f"{counted(report.nodes, 'node')} of {names.get(report.place, report.place)}"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Return "1 promise", "2 promises"; ``plural`` where it takes more than an s."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {plural or noun + 's'}"


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
