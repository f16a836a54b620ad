"""A node that stops behind a balancer: it says so first, goes on serving meanwhile, and loses nobody who was placed."""

import contextlib
import signal
import smtplib
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Self

import pytest
from scene import Scene

from node.drill.pop import Client
from node.lab import LabNode, wait_until

pytestmark = pytest.mark.cluster

ANSWER_SECONDS_MAX = 60.0
CHECK_SECONDS = 0.1
QUEUED = 30


def page(node: LabNode, path: str) -> int:
    """Return the status of a page; 0 where nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}{path}", timeout=ANSWER_SECONDS_MAX) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code
    except OSError:
        return 0


class Checks:
    """What a balancer asks, again and again."""

    def __init__(self, node: LabNode, path: str = "/readyz") -> None:
        self._node, self._path = node, path
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"checks of {path}")
        self.answers: list[int] = []

    def _run(self) -> None:
        while not self._ended.wait(CHECK_SECONDS):
            self.answers.append(page(self._node, self._path))

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: 200 in self.answers, f"{self._path} is never 200", ANSWER_SECONDS_MAX)
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def wait_for_close(node: LabNode, reader: Client, *senders: smtplib.LMTP) -> None:
    """Wait until a node takes no more connections; meanwhile these are not silent, as short as the time may be."""

    def closed() -> bool:
        assert reader.say("USER nobody").startswith("+OK")
        for sender in senders:
            assert sender.noop()[0] == 250
        return is_refused(node.ports.pop3) and is_refused(node.ports.lmtp)

    wait_until(closed, f"{node.name} still takes connections", ANSWER_SECONDS_MAX)


def wait_for_end(node: LabNode) -> None:
    assert node.process is not None
    wait_until(lambda: node.process is not None and node.process.poll() is not None, "it did not end", 60.0)
    assert node.process.returncode == 0


def read_one(client: Client, mailbox: str, password: str) -> None:
    for command in (f"USER {mailbox}", f"PASS {password}", "STAT", "DELE 1", "QUIT"):
        assert client.say(command).startswith("+OK"), command
    client.end()


def post(client: smtplib.LMTP, mailbox: str) -> None:
    assert client.sendmail("sender@example.net", [mailbox], "Subject: hello\r\n\r\nyou\r\n") == {}


def lmtp(node: LabNode) -> smtplib.LMTP:
    return smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="an MTA", timeout=ANSWER_SECONDS_MAX)


@pytest.fixture
def leaving(scene: Scene) -> Iterator[LabNode]:
    """A node that the test stops; it runs again afterwards."""
    node = scene.node(1)
    yield node
    node.signal(signal.SIGCONT)
    node.kill()
    node.start()
    scene.lab.wait_until_ready()


def test_a_node_tells_its_balancer_before_it_refuses_anybody(scene: Scene, leaving: LabNode):
    mailbox = scene.mailbox("noticed")
    scene.deliver(leaving, mailbox)
    with Checks(leaving, "/readyz") as logins, Checks(leaving, "/readyz/mail") as mail:
        leaving.signal(signal.SIGTERM)
        wait_until(lambda: 503 in logins.answers and 503 in mail.answers, "the pages never said it", 60.0)
        placed, sender = Client(("127.0.0.1", leaving.ports.pop3), ANSWER_SECONDS_MAX), lmtp(leaving)
        assert scene.refusal(leaving, mailbox) == "", "a login was refused during the notice"
        wait_for_close(leaving, placed, sender)
        post(sender, mailbox)
        sender.close()
        read_one(placed, mailbox, scene.password(mailbox))
        wait_for_end(leaving)
    for checks in (logins, mail):
        before = checks.answers.index(503)
        assert set(checks.answers[:before]) == {200}
        assert 200 not in checks.answers[before:], "it said ready after it had said that it stops"


def test_a_client_that_was_placed_just_before_the_stop_has_its_session(scene: Scene, leaving: LabNode):
    mailbox, other = scene.mailbox("placed"), scene.mailbox("placed-mail")
    scene.deliver(leaving, mailbox)
    client, sender, regular = (
        Client(("127.0.0.1", leaving.ports.pop3), ANSWER_SECONDS_MAX),
        lmtp(leaving),
        lmtp(leaving),
    )
    post(regular, other)
    leaving.signal(signal.SIGTERM)
    wait_for_close(leaving, client, sender, regular)
    post(sender, other)
    with contextlib.closing(regular), pytest.raises(smtplib.SMTPResponseException) as refused:
        # One message for each: an MTA with a queue would keep the node until it cuts the connection in a message.
        post(regular, other)
    assert refused.value.smtp_code == 421
    sender.close()
    read_one(client, mailbox, scene.password(mailbox))
    wait_for_end(leaving)


def test_connections_that_wait_for_a_busy_node_are_served_though_it_is_told_to_stop(scene: Scene, leaving: LabNode):
    leaving.signal(signal.SIGSTOP)
    ports = (leaving.ports.pop3, leaving.ports.lmtp, leaving.ports.smtp)
    with contextlib.ExitStack() as stack:
        waiting = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX))
            for port in ports
            for _ in range(QUEUED)
        ]
        leaving.signal(signal.SIGTERM)
        leaving.signal(signal.SIGCONT)
        for connection in waiting:
            assert connection.recv(3) in (b"+OK", b"220")
    wait_for_end(leaving)


@pytest.mark.invariant("I6")
def test_mail_is_ready_without_a_ledger_and_logins_are_not(scene: Scene):
    node = scene.node(2)
    mailbox = scene.mailbox("unledgered")
    assert scene.lab.ledger is not None
    scene.lab.ledger.terminate()
    try:
        wait_until(lambda: page(node, "/readyz") == 503, "logins are ready without a ledger", 60.0)
        assert page(node, "/readyz/mail") == 200
        scene.deliver(node, mailbox)
        node.kill()
        node.start()
        wait_until(lambda: page(node, "/readyz/mail") == 200, "a node that starts without a ledger takes no mail", 60.0)
        scene.deliver(node, mailbox)
        assert page(node, "/readyz") == 503
        marker = scene.lab.store / ".mailroot"
        marker.rename(marker.with_name("away"))
        try:
            wait_until(lambda: page(node, "/readyz/mail") == 503, "mail is ready without a store", 60.0)
        finally:
            marker.with_name("away").rename(marker)
        wait_until(lambda: page(node, "/readyz/mail") == 200, "mail was never ready again", 60.0)
    finally:
        scene.lab.start_ledger()
        scene.lab.wait_until_ready()
