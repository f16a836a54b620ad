"""
A lab with a history: scripted deliveries and sessions that write down what they saw.

Knows       node.lab, the clients of the standard library. Every test takes mailboxes of its own.
"""

import contextlib
import itertools
import json
import poplib
import smtplib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from commands import mailroot
from history import History, Seen
from pop import ANSWER_SECONDS_MAX, Client

from node.lab import DOMAIN, Lab, LabNode, wait_until


class Refused(Exception):
    """A login was refused; the text is the reply."""


class Session:
    """A session that writes down what it sees."""

    def __init__(self, scene: "Scene", node: LabNode, mailbox: str, *, seconds: float = ANSWER_SECONDS_MAX) -> None:
        self.seen = Seen(mailbox=mailbox, node=node.name, asked_at=time.monotonic())
        self._client = Client(node.ports.pop3, seconds)
        try:
            for line in (f"USER {mailbox}", f"PASS {scene.password(mailbox)}"):
                reply = self._client.say(line)
                if not reply.startswith("+OK"):
                    raise Refused(reply)
        except BaseException:
            self._client.end()
            raise
        self.seen.opened_at = time.monotonic()
        scene.history.note_session(self.seen)

    def list(self) -> tuple[str, ...]:
        """Return the uids of the snapshot, by UIDL before the first mark."""
        if self.seen.listed is None:
            _, lines, _ = self._client.uidl()
            self.seen.listed = tuple(line.split()[1].decode() for line in lines)
        return self.seen.listed

    def fetch(self, uid: str) -> str:
        """Return the token of a message."""
        _, lines, _ = self._client.retr(self._number(uid))
        token = next(line[len(b"Subject: ") :].decode() for line in lines if line.startswith(b"Subject: "))
        self.seen.fetched[uid] = token
        return token

    def mark(self, *uids: str) -> None:
        for uid in uids:
            self._client.dele(self._number(uid))
            self.seen.marked.append(uid)

    def mark_all(self) -> None:
        """Mark every message, pipelined: there may be many."""
        uids = self.list()
        self._client.sock.sendall(b"".join(b"DELE %d\r\n" % number for number in range(1, len(uids) + 1)))
        for uid in uids:
            self._client._getresp()
            self.seen.marked.append(uid)

    def _number(self, uid: str) -> int:
        return self.list().index(uid) + 1

    def say(self, line: str) -> str:
        return self._client.say(line)

    def send_quit(self) -> None:
        """Say QUIT and do not wait for the answer."""
        self.seen.quit_at = time.monotonic()
        self._client._putcmd("QUIT")

    def hear(self) -> str:
        """Wait for the answer to QUIT."""
        try:
            answer = self._client._getresp().decode()
        except poplib.error_proto as error:
            answer = error.args[0] if isinstance(error.args[0], str) else error.args[0].decode()
        finally:
            self._client.end()
        if "EOF" not in answer:
            self.seen.answer, self.seen.answered_at = answer, time.monotonic()
        return answer

    def quit(self) -> str:
        self.send_quit()
        return self.hear()

    def break_off(self) -> None:
        self._client.end()


class Scene:
    """A running lab, its history, and the figures that docs/FAILURES.md publishes."""

    def __init__(self, lab: Lab, figures: dict[str, str]) -> None:
        self.lab = lab
        self.history = History()
        self.figures = figures
        self._mailboxes: list[str] = []
        self._tokens = itertools.count(1)
        self._lock = threading.Lock()

    # Mailboxes and deliveries

    def mailbox(self, name: str, domain: str = DOMAIN) -> str:
        """Make a mailbox; return its address. The history's verdict includes it."""
        address = f"{name}@{domain}"
        self.lab.admin().add_mailbox(address, self.password(address))
        self._mailboxes.append(address)
        return address

    @staticmethod
    def password(mailbox: str) -> str:
        return f"secret-of-{mailbox.partition('@')[0]}-Xyzzy"

    def secrets(self) -> list[str]:
        """What no log may hold."""
        return ["wrong-guess-Plugh", *map(self.password, self._mailboxes)]

    def token(self) -> str:
        with self._lock:
            return f"token-{next(self._tokens)}"

    def deliver(self, node: LabNode, mailbox: str) -> str:
        """Deliver a message by LMTP; return its uid. :raises AssertionError: it was not accepted."""
        uid, reply = self.try_to_deliver(node, mailbox)
        assert uid is not None, f"{node.name}: {reply}"
        return uid

    def try_to_deliver(self, node: LabNode, mailbox: str) -> tuple[str | None, str]:
        """Deliver a message by LMTP; return its uid, or None, and the last reply."""
        token = self.token()
        with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="scene", timeout=ANSWER_SECONDS_MAX) as client:
            client.ehlo_or_helo_if_needed()
            client.mail("sender@example.net")
            code, reply = client.rcpt(mailbox)
            if code == 250:
                code, reply = client.data(f"Subject: {token}\r\n\r\nbody-of-{token}\r\n".encode())
            if code == 250:
                uid = reply.decode().rpartition(" ")[2]
                self.history.note_accepted(mailbox, uid, token, time.monotonic())
                return uid, reply.decode()
        return None, f"{code} {reply.decode()}"

    def deliver_by_script(self, mailbox: str) -> str:
        """Deliver a message by ``mailroot deliver``; return its uid."""
        token = self.token()
        content = f"Subject: {token}\n\nbody-of-{token}\n".encode()
        done = mailroot("deliver", mailbox, config=self.lab.config_path, stdin=content)
        assert done.returncode == 0, done.stderr
        uid = done.stdout.decode().strip()
        self.history.note_accepted(mailbox, uid, token, time.monotonic())
        return uid

    def post(self, node: LabNode, mailbox: str, content: bytes) -> None:
        """Deliver these bytes by LMTP, outside the history."""
        with smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="scene", timeout=ANSWER_SECONDS_MAX) as client:
            client.sendmail("a@example.net", [mailbox], content)

    # Sessions

    def open(self, node: LabNode, mailbox: str) -> Session:
        return Session(self, node, mailbox)

    def refusal(self, node: LabNode, mailbox: str) -> str:
        """Return why a login is refused, "" where it is not (then the session ends at once)."""
        try:
            self.open(node, mailbox).quit()
        except Refused as error:
            return str(error)
        return ""

    def open_when_free(self, nodes: list[LabNode], mailbox: str, seconds: float) -> tuple[Session, float]:
        """Knock until a node opens the mailbox; return the session and how long it took."""
        opened: list[Session] = []
        around = itertools.cycle(nodes)

        def knock() -> bool:
            with contextlib.suppress(Refused):
                opened.append(self.open(next(around), mailbox))
            return bool(opened)

        took = wait_until(knock, f"{mailbox} did not open again", seconds)
        return opened[0], took

    # The nodes

    def node(self, number: int) -> LabNode:
        return self.lab.nodes[number - 1]

    def readiness(self, node: LabNode) -> tuple[int, dict[str, str]]:
        """Return what /readyz says: its status and each trouble."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/readyz", timeout=5) as answer:
                return answer.status, json.load(answer)["trouble"]
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)["trouble"]

    def wait_for_trouble(self, node: LabNode, part: str, text: str, seconds: float = 10.0) -> None:
        """Wait until /readyz is 503 and says why."""

        def told() -> bool:
            status, trouble = self.readiness(node)
            return status == 503 and text in trouble[part]

        wait_until(told, f"{node.name} never said {text!r} of the {part}: {self.readiness(node)}", seconds)

    def figure(self, what: str, seconds: float) -> None:
        """Note a figure for the summary."""
        self.figures[what] = f"{seconds:5.2f} s"

    # The verdict

    @contextlib.contextmanager
    def judged(self) -> Iterator[None]:
        """Run a test's body, then read every mailbox and check the whole history."""
        yield
        self.lab.wait_until_ready()
        for mailbox in self._mailboxes:
            session, _ = self.open_when_free([self.node(1)], mailbox, 15.0)
            self.history.note_readable(mailbox, {uid: session.fetch(uid) for uid in session.list()})
            session.quit()
        violations = self.history.violations()
        assert not violations, violations[:5]
