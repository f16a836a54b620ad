"""
A lab with a history: scripted deliveries and sessions that write down what they saw.

Knows       node.lab, the clients of the standard library. Every test takes mailboxes of its own.
"""

import contextlib
import itertools
import json
import smtplib
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator

from commands import mailroot

from node.drill import witness
from node.drill.history import History
from node.drill.pop import ANSWER_SECONDS_MAX, Refused
from node.drill.witness import Session
from node.lab import DOMAIN, Lab, LabNode, wait_until


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
        at = ("127.0.0.1", node.ports.lmtp)
        return witness.deliver(at, mailbox, self.token(), history=self.history)

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

    def open(self, node: LabNode, mailbox: str, *, seconds: float = ANSWER_SECONDS_MAX) -> Session:
        at = ("127.0.0.1", node.ports.pop3)
        password = self.password(mailbox)
        return Session(at, mailbox, password, history=self.history, node=node.name, seconds=seconds)

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
