"""
Sessions that are open at the node that will be broken; and the clients who knock at their mailboxes afterwards.

A held session has marked its first message when the fault comes. Whoever takes its mailbox over removes the second. So
the history shows, for each of them, who removed what, and whether that one might.

Guarantees  every session is ended by finish(), every knocking thread by the ``with``.
Knows       the place only by asking it who holds a mailbox.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Self

from node.drill.load import Clients, how, say_farewell
from node.drill.place import Unready
from node.drill.pop import Refused
from node.drill.witness import Session

HELD = 4  # Sessions at the victim: enough to see them differ, few enough to knock often.
CANDIDATES = 20  # Mailboxes that are opened until so many are at the victim, which is one of three nodes.
MESSAGES_EACH = 3
KNOCK_EVERY_SECONDS = 0.05  # What a take-over is measured to.
KNOCK_SECONDS_MAX = 1.5  # A knock that a paused node got is given up for the next one.
SUCCESSOR = "its successor"  # What the history calls the node that took a mailbox over: any but the victim.
TAKEOVER_SECONDS_MAX = 60.0  # Then a mailbox counts as never taken over.


class Held:
    """Sessions at the victim, and what became of their mailboxes."""

    def __init__(self, clients: Clients) -> None:
        self._clients = clients
        self._sessions: list[Session] = []  # Those that finish() has still to end.
        self._mailboxes: list[str] = []
        self._ended = threading.Event()
        self._knocking: list[threading.Thread] = []
        self._taken_over: dict[str, float] = {}  # Seconds after the fault.
        self._broken_at = 0.0  # When the fault began.
        self.broken = 0  # Of those that were held, known after finish().

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._knocking:
            thread.join()
        for session in self._sessions:
            session.break_off()

    def __len__(self) -> int:
        return len(self._mailboxes)

    def open_at(self, victim: str, mailboxes: Sequence[str], holder: Callable[[str], str]) -> None:
        """
        Open mailboxes through the balancer until HELD of them are at the victim; end the other sessions.

        The others stay open until then: a balancer that counts connections would choose their nodes again.
        :raises Unready: none is there, or a session is refused.
        """
        others: list[Session] = []
        try:
            for mailbox in mailboxes:
                session = self._clients.open(mailbox)
                session.seen.node = holder(mailbox)
                (self._sessions if session.seen.node == victim else others).append(session)
                session.list()
                if len(self._sessions) == HELD:
                    break
            for session in others:
                session.quit()
            for session in self._sessions:
                session.mark(session.list()[0])
        except (Refused, OSError) as error:
            raise Unready(f"a session was not served although nothing is broken yet: {error}") from error
        finally:
            for session in others:
                session.break_off()
        if not self._sessions:
            raise Unready(f"the balancer placed none of {len(mailboxes)} sessions at {victim}")
        self._mailboxes = [session.seen.mailbox for session in self._sessions]

    # Knocking

    def knock(self, broken_at: float) -> None:
        """Begin to knock at each held mailbox; ``broken_at`` is when the fault began."""
        self._broken_at = broken_at
        for mailbox in self._mailboxes:
            thread = threading.Thread(target=self._knock, args=(mailbox, broken_at), name=f"knock at {mailbox}")
            self._knocking.append(thread)
            thread.start()

    @property
    def is_knocking(self) -> bool:
        """Tell whether some mailbox has not opened yet, and is still waited for."""
        return any(thread.is_alive() for thread in self._knocking)

    @property
    def takeover_seconds(self) -> tuple[float, ...]:
        """Return how long each mailbox took, those that never opened with the limit."""
        knocked = self._mailboxes if self._knocking else []
        return tuple(sorted(self._taken_over.get(mailbox, TAKEOVER_SECONDS_MAX) for mailbox in knocked))

    def _knock(self, mailbox: str, broken_at: float) -> None:
        tally = self._clients.tally
        while time.monotonic() - broken_at < TAKEOVER_SECONDS_MAX:
            asked_at = time.monotonic()
            try:
                session = self._clients.open(mailbox, seconds=KNOCK_SECONDS_MAX)
            except (Refused, OSError):
                tally.tried(mailbox, asked_at, opened=False)
                if self._ended.wait(KNOCK_EVERY_SECONDS):
                    return
                continue
            tally.tried(mailbox, asked_at, opened=True)
            session.seen.node = SUCCESSOR
            self._taken_over[mailbox] = session.seen.opened_at - broken_at
            self._end(session, self._mark_second)
            return

    @staticmethod
    def _mark_second(successor: Session) -> None:
        successor.mark(*successor.list()[1:2])

    # The end

    def finish(self) -> None:
        """Let each held session fetch its last message and QUIT, as its user would."""
        while self._sessions:
            self.broken += not self._end(self._sessions.pop(), self._fetch_last)

    @staticmethod
    def _fetch_last(session: Session) -> None:
        session.fetch(session.list()[-1])

    def _end(self, session: Session, last: Callable[[Session], None]) -> bool:
        """Let a session do one last thing and QUIT; tell whether it came to its end."""
        try:
            last(session)
            say_farewell(session)
        except (Refused, OSError) as error:
            # One that was taken over had lost its mailbox then, though its client may find out only now.
            taken_over = self._taken_over.get(session.seen.mailbox)
            self._clients.tally.broken(how(error), None if taken_over is None else self._broken_at + taken_over)
            return False
        finally:
            session.break_off()
        self._clients.tally.ok()
        return True
