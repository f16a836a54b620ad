"""
One scenario from its first message to its verdict.

The load begins and runs for a while; sessions are opened at the node that will be broken; the fault; whoever held a
mailbox there is followed by others who knock until it opens; it is mended, and every node is ready again; the load ends;
every mailbox is read through the balancer; the history is judged.

Guarantees  whatever happens, Ctrl-C too: no thread goes on, every session is ended. What the place cannot break is skipped.
Knows       the seams of `place.py`. Every time is measured by one clock, from before the fault is begun.
"""

import contextlib
import secrets
import time
from collections.abc import Iterator
from datetime import UTC, datetime

from attrs import evolve, field, frozen

from node.drill.held import CANDIDATES, MESSAGES_EACH, Held
from node.drill.history import History
from node.drill.load import LOAD_MAILBOXES, Clients, Load
from node.drill.outcome import Outcome
from node.drill.place import Display, Place, Unready
from node.drill.pop import Refused
from node.drill.promises import Measured
from node.drill.scenarios import Scenario
from node.drill.tally import Tally
from node.lab import DOMAIN

STEADY_SECONDS = 3.0  # The load before the fault and after the mending: what "as usual" looks like on the time line.
STEPS = 5  # That a display is told of each scenario: made, runs, broken, mended, read.
LOOK_SECONDS = 0.1
READ_SECONDS_MAX = 60.0  # For reading all mailboxes at the end; then the rest counts as unreadable.
READ_AGAIN_SECONDS = 0.2
DELIVERIES_MAX = 50  # Attempts at one message that has to be there before the scenario begins.


def run(scenario: Scenario, place: Place, display: Display, *, steady_seconds: float = STEADY_SECONDS) -> Outcome:
    """Run one scenario. :raises Unready: the place was not whole when it began."""
    victim = place.nodes[min(1, len(place.nodes) - 1)]
    sentence = scenario.sentence.format(victim=victim)
    blank = Outcome(
        scenario=scenario.name,
        broken=sentence,
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        seconds=0.0,
        refusals={},
    )
    why_not = place.cannot(scenario.name)
    steps = STEPS + (len(place.nodes) if scenario.is_node_by_node else 0)
    display.begin(scenario.name, sentence, steps)
    outcome = evolve(blank, skipped=why_not)
    if not why_not:
        act = _Act(scenario=scenario, place=place, display=display, victim=victim, steady_seconds=steady_seconds)
        outcome = act.run(blank)
    display.end(outcome)
    return outcome


@frozen(kw_only=True)
class _Boxes:
    """The mailboxes of one scenario. Their names are its own, so that a second drill on one store meets new ones."""

    load: tuple[str, ...]
    held: tuple[str, ...]
    passwords: dict[str, str] = field(repr=False)

    @classmethod
    def named(cls, scenario: Scenario) -> "_Boxes":
        tag = secrets.token_hex(3)
        load = tuple(f"drill-{tag}-{number}@{DOMAIN}" for number in range(1, LOAD_MAILBOXES + 1))
        held = tuple(f"drill-{tag}-held-{number}@{DOMAIN}" for number in range(1, CANDIDATES + 1))
        held = held if scenario.holds else ()
        return cls(load=load, held=held, passwords={box: secrets.token_urlsafe(12) for box in load + held})


class _Act:
    """One run of one scenario; the Stage of its actions."""

    def __init__(
        self, *, scenario: Scenario, place: Place, display: Display, victim: str, steady_seconds: float
    ) -> None:
        self.place = place
        self.victim = victim
        self._scenario = scenario
        self._display = display
        self._steady_seconds = steady_seconds
        self._boxes = _Boxes.named(scenario)
        self._history = History()
        self._tally = Tally()
        self._clients = Clients(
            pop3=place.pop3, lmtp=place.lmtp, passwords=self._boxes.passwords, history=self._history, tally=self._tally
        )
        self._held = Held(self._clients)
        self._exit_statuses: list[int] = []
        self._trouble: list[str] = []
        self._fault_from = self._fault_to = self._ready_seconds = 0.0

    # The Stage

    def step(self, text: str) -> None:
        """Say what is being done."""
        self._display.step(text)

    def finish_held(self) -> None:
        """Let the sessions that are open at the victim say QUIT."""
        self._held.finish()

    def stopped(self, exit_status: int) -> None:
        """Note an exit status."""
        self._exit_statuses.append(exit_status)

    # From the first message to the verdict

    def run(self, blank: Outcome) -> Outcome:
        """Run it; return what it came to."""
        self._display.step("mailboxes are made")
        self.place.add_mailboxes(self._boxes.passwords)
        for mailbox in self._boxes.held:
            for _ in range(MESSAGES_EACH):
                self._fill(mailbox)
        with Load(self._clients, self._boxes.load), self._held:
            self._display.step("the load runs")
            self._dwell(self._steady_seconds)
            if self._scenario.holds:
                self._held.open_at(self.victim, self._boxes.held, self.place.holder)
            self._break()
            self._mend()
            self._dwell(self._steady_seconds)
            self._held.finish()
        self._display.step("every mailbox is read")
        self._read_all()
        return self._judged(evolve(blank, seconds=round(self._tally.since_began(), 3)))

    def _fill(self, mailbox: str) -> None:
        for _ in range(DELIVERIES_MAX):
            if self._clients.deliver(mailbox) is not None:
                return
        raise Unready(f"the balancer takes no mail for {mailbox} although nothing is broken yet")

    def _break(self) -> None:
        scenario = self._scenario
        self._display.step(self._sentence())
        began = time.monotonic()
        self._fault_from = self._tally.since_began()
        if scenario.is_taken_over:
            self._held.knock(began)
        with self._noting_trouble():
            scenario.fault(self)
        self._dwell(scenario.lasts_seconds - (time.monotonic() - began))
        while self._held.is_knocking:
            self._dwell(LOOK_SECONDS)

    def _mend(self) -> None:
        self._display.step("it is mended; waiting until every node is ready")
        with self._noting_trouble():
            self._scenario.mend(self)
            self._fault_to = self._tally.since_began()
            self.place.wait_until_ready()
        self._ready_seconds = self._tally.since_began() - self._fault_to

    @contextlib.contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        """What does not go away or come back as it should is a broken promise, and the scenario goes on."""
        try:
            yield
        except Unready as error:
            self._trouble.append(str(error))

    def _sentence(self) -> str:
        return self._scenario.sentence.format(victim=self.victim)

    def _dwell(self, seconds: float) -> None:
        """Let time pass, and show how the load does."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_SECONDS))
            counts = self._tally.counts()
            self._display.tick(counts.ok, counts.refused, counts.broken, counts.accepted)

    # The verdict

    def _read_all(self) -> None:
        deadline = time.monotonic() + READ_SECONDS_MAX
        for mailbox in self._boxes.load + self._boxes.held:
            while not self._read(mailbox) and time.monotonic() < deadline:
                time.sleep(READ_AGAIN_SECONDS)

    def _read(self, mailbox: str) -> bool:
        asked_at = time.monotonic()
        try:
            session = self._clients.open(mailbox)
        except (Refused, OSError):
            self._tally.tried(mailbox, asked_at, opened=False)
            return False
        self._tally.tried(mailbox, asked_at, opened=True)
        with contextlib.suppress(Refused, OSError):
            self._history.note_readable(mailbox, {uid: session.fetch(uid) for uid in session.list()})
            session.quit()
            return True
        session.break_off()
        return False

    def _judged(self, blank: Outcome) -> Outcome:
        violations = self._history.judge()
        kinds = [violation.kind for violation in violations]
        counts = self._tally.counts()
        accepted = {delivery.uid for delivery in self._history.accepted}
        readable = accepted & {uid for messages in self._history.readable.values() for uid in messages}
        asked = {uid for seen in self._history.sessions for uid in seen.asked}
        outcome = evolve(
            blank,
            fault_from=round(self._fault_from, 3),
            fault_to=round(self._fault_to, 3),
            sessions_ok=counts.ok,
            sessions_refused=counts.refused,
            sessions_broken=counts.broken,
            refusals=counts.refusals,
            breaks=counts.breaks,
            unreachable_seconds=round(self._tally.unreachable_seconds(), 3),
            takeover_seconds=tuple(round(seconds, 3) for seconds in self._held.takeover_seconds),
            accepted=len(self._history.accepted),
            readable=len(readable),
            removed=len((accepted - readable) & asked),
            lost=kinds.count("lost"),
            twice=kinds.count("twice"),
            not_asked=kinds.count("not asked"),
            two_holders=kinds.count("two holders"),
            violations=tuple(violation.sentence for violation in violations) + tuple(self._tally.surprises),
            timeline=self._tally.timeline(),
        )
        measured = Measured(
            outcome=outcome,
            refused_for_good=counts.refused_for_good,
            held=len(self._held),
            held_broken=self._held.broken,
            exit_statuses=tuple(self._exit_statuses),
            ready_seconds=self._ready_seconds,
            contradictions=kinds.count("contradiction") + kinds.count("unread"),
            trouble=tuple(self._trouble),
        )
        return evolve(outcome, promises=tuple(judge(measured) for judge in self._scenario.promises))
