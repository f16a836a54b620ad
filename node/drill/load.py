"""
The load: clients that deliver and read through the balancer while things break, and write down all they see.

Each reader owns its mailboxes, so that no login meets another reader's session: [IN-USE] then means that a session which
broke still has its claim. A reader comes again where it was refused, as any client does, and never gives a mailbox up.

Guarantees  bounded: some threads, a pause after each step, a time limit for each answer and a number of steps.
Knows       what a client may be told while something is broken. A permanent refusal of mail is never right.
"""

import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from attrs import field, frozen

from node.drill import witness
from node.drill.history import History
from node.drill.place import Address
from node.drill.pop import ANSWER_SECONDS_MAX, Refused
from node.drill.tally import Tally
from node.drill.witness import Session

DELIVERERS = 2
READERS = 3
MAILBOXES_EACH = 2  # Of a reader.
LINGERERS = 2  # Readers of one mailbox, which stay for a while: what a stop has to wait for, and a kill breaks.
LOAD_MAILBOXES = READERS * MAILBOXES_EACH + LINGERERS

STEPS_MAX = 50_000  # Of each thread: a drill that hangs does not fill the disk.
PAUSE_SECONDS = 0.04
REFUSED_PAUSE_SECONDS = 0.1
LINGER_SECONDS = 1.5
LINGER_PAUSE_SECONDS = 0.1
REFERENCE = re.compile(r" \(ref \w+\)$")  # A node's word for the operator's log: another one in each reply.
FETCHED_MAX = 6  # Messages of one session; above what comes in, so that mailboxes stay small.


@frozen(kw_only=True)
class Clients:
    """What every client of one scenario has in common."""

    pop3: Address
    lmtp: Address
    passwords: dict[str, str] = field(repr=False)
    history: History
    tally: Tally
    _tokens: "itertools.count[int]" = field(factory=lambda: itertools.count(1), init=False, repr=False)

    def open(self, mailbox: str, *, seconds: float = ANSWER_SECONDS_MAX) -> Session:
        """Log in through the balancer. :raises Refused, OSError: as Session."""
        return Session(
            self.pop3,
            mailbox,
            self.passwords[mailbox],
            history=self.history,
            node="the balancer",
            seconds=seconds,
        )

    def deliver(self, mailbox: str) -> str | None:
        """Deliver one message through the balancer; return its uid where it was accepted."""
        try:
            uid, reply = witness.deliver(self.lmtp, mailbox, f"token-{next(self._tokens)}", history=self.history)
        except OSError:
            self.tally.deferred()
            return None
        if uid is not None:
            self.tally.accepted()
        elif reply.startswith("5"):
            self.tally.refused_for_good(reply)
        else:
            self.tally.deferred()
        return uid


def reason(error: Exception) -> str:
    """Return why a login failed, in the words of the report: a response code, or what became of the connection."""
    if isinstance(error, Refused):
        text = str(error)
        return text[text.index("[") : text.index("]") + 1] if "[" in text and "]" in text else "-ERR"
    return "no answer" if isinstance(error, TimeoutError) else "no connection"


def how(error: Exception) -> str:
    """Return how a session broke, in the words of the report: a reply, or what became of the connection."""
    if isinstance(error, Refused):
        return REFERENCE.sub("", str(error))
    return "no answer" if isinstance(error, TimeoutError) else "the connection ended"


def say_farewell(session: Session) -> None:
    """Say QUIT. :raises Refused: it was not answered with +OK; ConnectionError, TimeoutError: not at all."""
    answer = session.quit()
    if not answer:
        raise ConnectionResetError("no answer to QUIT")
    if not answer.startswith("+OK"):
        raise Refused(answer)


class Load:
    """The threads, for as long as the ``with`` lasts."""

    def __init__(self, clients: Clients, mailboxes: Sequence[str], *, seed: int = 1) -> None:
        self._clients = clients
        self._mailboxes = mailboxes
        self._ended = threading.Event()
        self.crashes: list[Exception] = []
        works: list[Callable[[random.Random], bool]] = [self._deliver] * DELIVERERS
        works += [self._reader([mailbox], lingers=True) for mailbox in mailboxes[:LINGERERS]]
        for start in range(LINGERERS, len(mailboxes), MAILBOXES_EACH):
            works.append(self._reader(mailboxes[start : start + MAILBOXES_EACH], lingers=False))
        self._threads = [
            threading.Thread(target=self._repeat, args=(work, random.Random(seed + number)), name=f"load {number}")
            for number, work in enumerate(works)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()
        if self.crashes:
            raise self.crashes[0]

    def _repeat(self, work: Callable[[random.Random], bool], dice: random.Random) -> None:
        """Work until the end; a step says whether it went well, else the next one comes later."""
        try:
            for _ in range(STEPS_MAX):
                well = work(dice)
                if self._ended.wait(PAUSE_SECONDS if well else REFUSED_PAUSE_SECONDS):
                    return
        except Exception as error:  # noqa: BLE001 (a bug of the drill itself is told by the thread that runs it)
            self.crashes.append(error)

    def _deliver(self, dice: random.Random) -> bool:
        return self._clients.deliver(dice.choice(self._mailboxes)) is not None

    def _reader(self, mailboxes: Sequence[str], *, lingers: bool) -> Callable[[random.Random], bool]:
        around = itertools.cycle(mailboxes)
        return lambda dice: self._read(next(around), dice, lingers=lingers)

    def _read(self, mailbox: str, dice: random.Random, *, lingers: bool) -> bool:
        tally, asked_at = self._clients.tally, time.monotonic()
        try:
            session = self._clients.open(mailbox)
        except (Refused, OSError) as error:
            tally.refused(reason(error))
            tally.tried(mailbox, asked_at, opened=False)
            return False
        tally.tried(mailbox, asked_at, opened=True)
        try:
            self._use(session, dice, lingers=lingers)
        except (Refused, OSError) as error:
            tally.broken(how(error))
            return False
        finally:
            session.break_off()
        tally.ok()
        return True

    def _use(self, session: Session, dice: random.Random, *, lingers: bool) -> None:
        """Fetch some messages and remove them."""
        uids = session.list()
        chosen = dice.sample(uids, min(len(uids), dice.randint(1, FETCHED_MAX)))
        for uid in chosen:
            session.fetch(uid)
        until = time.monotonic() + (LINGER_SECONDS if lingers else 0.0)
        while time.monotonic() < until and not self._ended.wait(LINGER_PAUSE_SECONDS):
            reply = session.say("NOOP")
            if not reply.startswith("+OK"):
                raise Refused(reply)
        session.mark(*chosen)
        say_farewell(session)
