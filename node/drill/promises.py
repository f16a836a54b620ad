"""
The promises of docs/FAILURES.md, each as a function that looks at what was measured and says whether it was kept.

Knows       figures only. Which scenario makes which promise is in `scenarios.py`.
"""

import math
from collections.abc import Callable, Sequence

from attrs import field, frozen

from node.drill.outcome import Outcome, Promise
from store.claim import LEASE_TTL_SECONDS

KILL_SECONDS_MAX = 2.0  # docs/FAILURES.md: a killed node's claimed mailbox opens elsewhere.
LAPSE_SECONDS_MAX = LEASE_TTL_SECONDS + 1.0  # The same: a node that is paused or cut off holds no mailbox for longer.
PERCENTILE = 99


@frozen(kw_only=True)
class Measured:
    """An outcome without its promises, and what only they look at."""

    outcome: Outcome
    refused_for_good: int = 0  # Deliveries answered 5xx.
    held: int = 0  # Sessions that were open at the victim.
    held_broken: int = 0  # Of these, how many did not end with +OK.
    exit_statuses: tuple[int, ...] = ()  # Of nodes that were told to stop.
    ready_seconds: float = 0.0  # From the mending until every node was ready.
    contradictions: int = 0  # What clients saw that does not fit together, mailboxes that nobody could read.
    trouble: tuple[str, ...] = field(default=())  # What did not come back.


Judge = Callable[[Measured], Promise]


def nothing_lost(found: Measured) -> Promise:
    """Every message that was answered with 250 is there, or its user asked to remove it."""
    outcome = found.outcome
    return Promise(
        text="no accepted message is lost", kept=outcome.lost == 0, measured=f"{outcome.lost} of {outcome.accepted}"
    )


def nothing_twice(found: Measured) -> Promise:
    """What was sent once is there once, and a uid names one message."""
    outcome = found.outcome
    return Promise(
        text="no message is there twice", kept=outcome.twice == 0, measured=f"{outcome.twice} of {outcome.accepted}"
    )


def nothing_unasked(found: Measured) -> Promise:
    """Only what a session marked, and asked to remove by QUIT, is gone."""
    outcome = found.outcome
    text = "nothing is removed that nobody asked to remove"
    return Promise(text=text, kept=outcome.not_asked == 0, measured=f"{outcome.not_asked} beside {outcome.removed}")


def one_holder(found: Measured) -> Promise:
    """No two sessions that both removed had one mailbox at one time."""
    outcome = found.outcome
    return Promise(
        text="no mailbox has two holders", kept=outcome.two_holders == 0, measured=f"{outcome.two_holders} pairs"
    )


def it_fits_together(found: Measured) -> Promise:
    """What was accepted is listed, what was removed stays away, and who was told that nothing was removed was told so rightly."""
    text = "what clients saw fits together, and every mailbox can be read at the end"
    return Promise(text=text, kept=found.contradictions == 0, measured=f"{found.contradictions} contradictions")


def no_mail_refused_for_good(found: Measured) -> Promise:
    """No sender is told to give up."""
    text = "no mail is refused for good"
    return Promise(text=text, kept=found.refused_for_good == 0, measured=f"{found.refused_for_good} answered 5xx")


def ready_again(found: Measured) -> Promise:
    """When it is mended, the cluster is whole without anybody's help."""
    text = "every node is ready again by itself"
    measured = found.trouble[0] if found.trouble else f"{found.ready_seconds:.1f} s after it was mended"
    return Promise(text=text, kept=not found.trouble, measured=measured)


def opens_within(seconds_max: float, who: str) -> Judge:
    """Return the promise that a mailbox which was held by ``who`` opens elsewhere in time."""

    def judge(found: Measured) -> Promise:
        took = found.outcome.takeover_seconds
        text = f"a mailbox that {who} held opens elsewhere within {seconds_max:g} s (p{PERCENTILE})"
        if not took:
            return Promise(text=text, kept=False, measured="no mailbox was held there")
        slow = percentile(took, PERCENTILE)
        return Promise(
            text=text, kept=slow <= seconds_max, measured=f"{slow:.2f} s of {len(took)} (at most {seconds_max:g} s)"
        )

    return judge


def no_session_broken(found: Measured) -> Promise:
    """Who had a mailbox open keeps it until QUIT."""
    broken = found.outcome.sessions_broken
    return Promise(
        text="no session is broken",
        kept=broken == 0,
        measured=f"{broken} beside {found.outcome.sessions_ok} that ended well",
    )


def no_session_refused(found: Measured) -> Promise:
    """Every login finds a node that takes it."""
    refused = found.outcome.sessions_refused
    return Promise(
        text="no session is refused that the balancer could place", kept=refused == 0, measured=f"{refused} refused"
    )


def held_sessions_go_on(found: Measured) -> Promise:
    """Sessions that were open when it broke end as their users want, and remove what they marked."""
    text = "sessions that were open go on, and remove what they marked"
    return Promise(
        text=text,
        kept=found.held > 0 and found.held_broken == 0,
        measured=f"{found.held_broken} of {found.held} did not",
    )


def stops_with_zero(found: Measured) -> Promise:
    """A node that is told to stop ends by itself, with exit status 0."""
    statuses = ", ".join(map(str, found.exit_statuses)) or "none"
    return Promise(
        text="a node that is told to stop ends with status 0",
        kept=bool(found.exit_statuses) and not any(found.exit_statuses),
        measured=f"exit status {statuses}",
    )


ALWAYS: tuple[Judge, ...] = (
    nothing_lost,
    nothing_twice,
    nothing_unasked,
    one_holder,
    it_fits_together,
    no_mail_refused_for_good,
    ready_again,
)


def percentile(values: Sequence[float], percent: int) -> float:
    """Return the nearest-rank percentile: of fewer than a hundred values the 99th is the greatest."""
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]
