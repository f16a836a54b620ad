"""
Clients that write down what they saw: a session, and a delivery by LMTP.

Fails with  OSError where a connection ended or was silent (smtplib's exceptions are OSErrors, too); Refused where a
            login was answered with -ERR, or a command of a session was.
Knows       the history; an address to connect to, a node's or a balancer's.
"""

import contextlib
import smtplib
import time
from collections.abc import Callable

from node.drill.history import History, Seen
from node.drill.pop import ANSWER_SECONDS_MAX, Client, Refused

GREETED, ACCEPTED = 220, 250
SUBJECT = b"Subject: "
Step = Callable[[], tuple[int, bytes]]  # Of a conversation: the code and the text of its answer.


class Session:
    """A session that writes down what it sees. ``node`` is what the history calls the server."""

    def __init__(
        self,
        at: tuple[str, int],
        mailbox: str,
        password: str,
        *,
        history: History,
        node: str,
        seconds: float = ANSWER_SECONDS_MAX,
    ) -> None:
        self.seen = Seen(mailbox=mailbox, node=node, asked_at=time.monotonic())
        self._client = Client(at, seconds)
        try:
            self._log_in(mailbox, password)
        except BaseException:
            self._client.end()
            raise
        self.seen.opened_at = time.monotonic()
        history.note_session(self.seen)

    def _log_in(self, mailbox: str, password: str) -> None:
        replies = [self._client.greeting]
        for line in (f"USER {mailbox}", f"PASS {password}"):
            if replies[-1].startswith("+OK"):
                replies.append(self._client.say(line))
        if not replies[-1].startswith("+OK"):
            raise Refused(replies[-1])

    def list(self) -> tuple[str, ...]:
        """Return the uids of the snapshot, by UIDL before the first mark."""
        if self.seen.listed is None:
            lines = self._client.block("UIDL")
            self.seen.listed = tuple(line.split()[1].decode() for line in lines)
        return self.seen.listed

    def fetch(self, uid: str) -> str:
        """Return the token of a message."""
        lines = self._client.block(f"RETR {self._number(uid)}")
        token = next((line[len(SUBJECT) :].decode() for line in lines if line.startswith(SUBJECT)), "")
        self.seen.fetched[uid] = token
        return token

    def mark(self, *uids: str) -> None:
        """Mark messages, pipelined: there may be many. :raises Refused: one was not marked."""
        numbers = {uid: number for number, uid in enumerate(self.list(), 1)}
        self._client.send(*(f"DELE {numbers[uid]}" for uid in uids))
        for uid in uids:
            reply = self._client.hear()
            if not reply.startswith("+OK"):
                raise Refused(reply)
            self.seen.marked.append(uid)

    def mark_all(self) -> None:
        """Mark every message."""
        self.mark(*self.list())

    def _number(self, uid: str) -> int:
        return self.list().index(uid) + 1

    def say(self, line: str) -> str:
        """Send a command; return the first line of the reply."""
        return self._client.say(line)

    def limit(self, seconds: float) -> None:
        """Set how long an answer may take from now on."""
        self._client.limit(seconds)

    def send_quit(self) -> None:
        """Say QUIT and do not wait for the answer."""
        self.seen.quit_at = time.monotonic()
        self._client.send("QUIT")

    def hear(self) -> str:
        """Wait for the answer to QUIT and return it; "" where the connection ended without one."""
        try:
            answer = self._client.hear()
        except ConnectionError:
            return ""
        finally:
            self._client.end()
        self.seen.answer, self.seen.answered_at = answer, time.monotonic()
        return answer

    def quit(self) -> str:
        """Say QUIT and return the answer; "" where the connection ended without one."""
        self.send_quit()
        return self.hear()

    def break_off(self) -> None:
        """Break the connection off, without QUIT."""
        self._client.end()


def deliver(
    at: tuple[str, int],
    mailbox: str,
    token: str,
    *,
    history: History,
    seconds: float = ANSWER_SECONDS_MAX,
) -> tuple[str | None, str]:
    """
    Deliver a message by LMTP; return its uid, or None, and the last reply.

    What was answered with 250 is in the history, even where the connection ends right after it.
    """
    client = smtplib.LMTP(local_hostname="witness", timeout=seconds)
    steps: tuple[Step, ...] = (
        client.ehlo,
        lambda: client.mail("sender@example.net"),
        lambda: client.rcpt(mailbox),
    )
    try:
        code, reply = client.connect(*at)
        for step in steps:
            if code in (GREETED, ACCEPTED):
                code, reply = step()
        if code == ACCEPTED:
            code, reply = client.data(f"{SUBJECT.decode()}{token}\r\n\r\nbody-of-{token}\r\n".encode())
        if code != ACCEPTED:
            return None, f"{code} {reply.decode(errors='replace')}"
        uid = reply.decode().rpartition(" ")[2]
        history.note_accepted(mailbox, uid, token, time.monotonic())
        with contextlib.suppress(OSError):
            client.quit()
        return uid, reply.decode()
    except smtplib.SMTPResponseException as error:  # Of DATA, whose reply smtplib raises where it returns all others.
        return None, f"{error.smtp_code} {error.smtp_error!r}"
    finally:
        client.close()
