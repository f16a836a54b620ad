"""A node dies, sleeps, or is told to stop: its mailboxes open elsewhere, and nothing is lost or removed unasked."""

import contextlib
import os
import signal
import smtplib
import socket
import time

import pytest
from load import Load
from scene import Scene

from node.delivery import CONNECTIONS_MAX
from node.lab import DOMAIN, LabNode, wait_until
from store.claim import LEASE_TTL_SECONDS

pytestmark = pytest.mark.cluster

KILL_SECONDS_MAX = 2.0
LAPSE_SECONDS_MAX = LEASE_TTL_SECONDS + 1.0


class HalfSent:
    """A delivery that is between DATA and the final dot; its MTA keeps the connection afterwards."""

    def __init__(self, scene: Scene, node: LabNode, mailbox: str) -> None:
        self._scene, self._mailbox, self._token = scene, mailbox, scene.token()
        self._client = smtplib.LMTP("127.0.0.1", node.ports.lmtp, local_hostname="an MTA", timeout=5)
        self._client.ehlo_or_helo_if_needed()
        self._client.mail("sender@example.net")
        self._client.rcpt(mailbox)
        assert self._client.docmd("DATA")[0] == 354
        self._client.send(f"Subject: {self._token}\r\n\r\n".encode())

    def finish(self) -> None:
        """Send the rest: it is accepted, and then the node ends the connection."""
        self._client.send(b"the other half\r\n.\r\n")
        code, reply = self._client.getreply()
        assert code == 250, reply
        self._scene.history.note_accepted(
            self._mailbox, reply.decode().rpartition(" ")[2], self._token, time.monotonic()
        )
        assert self._client.getreply()[0] == 421, "a connection that was busy keeps the node from stopping"
        self._client.close()


class Removal:
    """A QUIT that removes so many messages that a test can stop its node in the middle."""

    COUNT = 20_000

    def __init__(self, scene: Scene, node: LabNode) -> None:
        self.mailbox = f"many@{DOMAIN}"
        scene.lab.admin().add_mailbox(self.mailbox, scene.password(self.mailbox))
        self._path = scene.lab.store / DOMAIN / "P3_many.mbx"
        for number in range(self.COUNT):
            (self._path / f"P3{number:026x}-3.eml").write_bytes(b"x\r\n")
        self.session = scene.open(node, self.mailbox)
        self.session.mark_all()

    def left(self) -> set[str]:
        return {name for name in os.listdir(self._path) if name.endswith(".eml")}

    def stop_in_the_middle(self, node: LabNode) -> None:
        first = self._path / f"P3{0:026x}-3.eml"
        self.session.send_quit()
        while first.exists():
            pass
        node.signal(signal.SIGSTOP)


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def takes_mail(scene: Scene, node: LabNode, mailbox: str) -> bool:
    with contextlib.suppress(smtplib.SMTPException):
        return scene.try_to_deliver(node, mailbox)[0] is not None
    return False


def restart(scene: Scene, node: LabNode) -> None:
    node.start()
    scene.lab.wait_until_ready()


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
def test_a_killed_nodes_mailbox_opens_elsewhere_at_once(scene: Scene):
    victim, others = scene.node(2), [scene.node(1), scene.node(3)]
    mailbox = scene.mailbox("killed")
    uids = tuple(scene.deliver(scene.node(number), mailbox) for number in (1, 2, 3))
    with scene.judged(), Load(scene, "kill-load"):
        session = scene.open(victim, mailbox)
        assert session.list() == uids
        session.mark(uids[0])
        assert "[IN-USE]" in scene.refusal(others[0], mailbox)
        victim.kill()
        successor, seconds = scene.open_when_free(others, mailbox, KILL_SECONDS_MAX)
        scene.figure("SIGKILL of a node: its claimed mailbox opens at another", seconds)
        session.break_off()
        assert successor.list() == uids, "a mark without QUIT removed something"
        successor.mark(uids[1])
        assert successor.quit().startswith("+OK")
        scene.figure("SIGKILL of a node: it is ready again after its start", wait_until_restarted(scene, victim))


def wait_until_restarted(scene: Scene, node: LabNode) -> float:
    node.start()
    return wait_until(lambda: not node.readiness(), f"{node.name} did not come back")


@pytest.mark.invariant("I5")
def test_a_node_that_slept_beyond_its_lease_removes_nothing(scene: Scene):
    sleeper, others = scene.node(3), [scene.node(1), scene.node(2)]
    mailboxes = [scene.mailbox(f"slept-{number}") for number in (1, 2)]
    uids = [tuple(scene.deliver(scene.node(1), mailbox) for _ in range(3)) for mailbox in mailboxes]
    removal = Removal(scene, sleeper)
    with scene.judged(), Load(scene, "sleep-load"):
        asleep, awake = (scene.open(sleeper, mailbox) for mailbox in mailboxes)
        for session, known in zip((asleep, awake), uids, strict=True):
            assert session.list() == known
            session.mark(known[0], known[1])
        removal.stop_in_the_middle(sleeper)
        # Its QUIT waits in the sleeper's socket: the first thing it will see, before its own clockwork runs.
        asleep.send_quit()
        successor, seconds = scene.open_when_free(others, mailboxes[0], LAPSE_SECONDS_MAX)
        scene.figure("SIGSTOP of a node: its claimed mailbox opens at another", seconds)
        assert successor.list() == uids[0]
        successor.mark(uids[0][0])
        assert successor.quit().startswith("+OK")
        middle, _ = scene.open_when_free(others, removal.mailbox, LAPSE_SECONDS_MAX)
        left = removal.left()
        assert 0 < len(left) < Removal.COUNT, "it was not stopped in the middle"
        # Connections that come and go while it sleeps, as a balancer's probes do, leave nothing behind.
        for _ in range(CONNECTIONS_MAX):
            socket.create_connection(("127.0.0.1", sleeper.ports.lmtp)).close()
        sleeper.signal(signal.SIGCONT)
        assert asleep.hear().startswith("-ERR [SYS/TEMP] session expired, nothing was removed")
        wait_until(lambda: not sleeper.readiness(), "the sleeper never came back")
        wait_until(lambda: takes_mail(scene, sleeper, mailboxes[1]), "gone connections still count", 5.0)
        assert removal.session.hear().startswith("-ERR [SYS/TEMP] session expired, only some of the marked")
        # One look at the lease may have been before the sleep, and its unlink after it.
        assert len(left - removal.left()) <= 1, "it went on removing what another session holds"
        assert len(middle.list()) == len(left)
        middle.quit()
        assert awake.fetch(uids[1][2]), "a session may read on after its claim is lost"
        assert awake.quit().startswith("-ERR [SYS/TEMP] session expired, nothing was removed")
    sleeper.signal(signal.SIGTERM)
    seconds = wait_until(lambda: sleeper.process.poll() is not None, "it waits for connections that are gone", 5.0)
    scene.figure("SIGTERM of an idle node: it ends", seconds)
    sleeper.start()
    scene.lab.wait_until_ready()
    assert list(scene.history.readable[mailboxes[0]]) == list(uids[0][1:])
    assert list(scene.history.readable[mailboxes[1]])[:3] == list(uids[1])


def test_a_node_that_is_told_to_stop_lets_its_sessions_finish(scene: Scene):
    leaving = scene.node(1)
    mailbox = scene.mailbox("drained")
    uids = tuple(scene.deliver(leaving, mailbox) for _ in range(2))
    with scene.judged():
        with Load(scene, "drain-load"):
            session = scene.open(leaving, mailbox)
            assert session.list() == uids
            session.mark(uids[0])
            idle = smtplib.LMTP(
                "127.0.0.1", leaving.ports.lmtp, local_hostname="an MTA that keeps connections", timeout=5
            )
            half_sent = HalfSent(scene, leaving, scene.mailbox("drained-later"))
            leaving.signal(signal.SIGTERM)
            assert idle.getreply()[0] == 421, "an idle connection for mail would keep the node from stopping"
            idle.close()
            ports = leaving.ports
            wait_until(
                lambda: all(map(is_refused, (ports.pop3, ports.lmtp, ports.smtp))), "it still takes connections", 5.0
            )
            assert leaving.process is not None
            assert leaving.process.poll() is None, "it did not wait for its session"
            assert "[IN-USE]" in scene.refusal(scene.node(2), mailbox), "it gave the claim away under its session"
            assert session.fetch(uids[1])
            assert session.quit() == "+OK bye"
            assert leaving.process.poll() is None, "it did not wait for its delivery"
            half_sent.finish()
            seconds = wait_until(lambda: leaving.process.poll() is not None, "it did not end", 10.0)
            scene.figure("SIGTERM of a node: it ends after its last session", seconds)
            assert leaving.process.returncode == 0
            left, seconds = scene.open_when_free([scene.node(2)], mailbox, KILL_SECONDS_MAX)
            assert left.list() == uids[1:]
            left.quit()
        restart(scene, leaving)
