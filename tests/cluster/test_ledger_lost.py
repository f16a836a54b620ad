"""The ledger dies, forgets, or is out of one node's reach: mail comes in, nobody removes what he may not."""

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable

import pytest
import redis
from commands import mailroot
from load import Load
from scene import Scene

from node.lab import DOMAIN, LabNode, wait_until
from store.claim import LEASE_TTL_SECONDS

pytestmark = pytest.mark.cluster

LAPSE_SECONDS_MAX = LEASE_TTL_SECONDS + 1.0
TEMPORARY = "-ERR [SYS/TEMP]"
EXPIRED = "-ERR [SYS/TEMP] session expired, nothing was removed"


def claims_held(node: LabNode) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/metrics", timeout=5) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("mailroot_claims_held "))


def is_alive(node: LabNode) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/healthz", timeout=5) as page:
        return page.status == 200


def flush(scene: Scene) -> None:
    with redis.Redis.from_url(scene.lab.ledger_url) as client:
        client.flushall()


def restart(scene: Scene) -> None:
    assert scene.lab.ledger is not None
    scene.lab.ledger.terminate()
    scene.lab.start_ledger()


def registered(scene: Scene) -> dict[str, bool]:
    """Return the registered domains, each with whether the nodes take it for locked."""
    return {r.domain: r.locked for r in scene.lab.admin()._registry.changes_after(0) if not r.deleted}


@pytest.mark.invariant("I5")
@pytest.mark.invariant("I6")
def test_without_a_ledger_mail_comes_in_and_sessions_read_on(proxied: Scene):
    scene, (first, second, third) = proxied, proxied.lab.nodes
    quick, slow, closed = (scene.mailbox(f"dark-{name}") for name in ("quick", "slow", "closed"))
    uids = {mailbox: [scene.deliver(first, mailbox) for _ in range(2)] for mailbox in (quick, slow)}
    with scene.judged(), Load(scene, "dark-load"):
        hasty, patient = scene.open(first, quick), scene.open(second, slow)
        hasty.mark(hasty.list()[0])
        patient.mark(patient.list()[0])
        assert scene.lab.ledger is not None
        scene.lab.ledger.terminate()
        for node in (first, second, third):
            scene.wait_for_trouble(node, "ledger", "does not answer")
            scene.deliver(node, closed)
            assert scene.refusal(node, closed).startswith(TEMPORARY)
        assert hasty.quit().startswith(TEMPORARY), "nobody could say that the claim was still its own"
        command = [sys.executable, "-m", "node.winpop", "add", "dark.example", "--config"]
        asked = subprocess.run([*command, str(scene.lab.config_path)], capture_output=True, check=False)
        assert asked.returncode == 75
        assert not (scene.lab.store / "dark.example").exists(), "rather no directory than one nobody registered"
        assert mailroot("cluster", "status", config=scene.lab.config_path).returncode == 75
        scene.deliver_by_script(closed)
        assert all(map(is_alive, scene.lab.nodes)), "/healthz must not follow /readyz: a supervisor would kill the node"
        wait_until(lambda: claims_held(second) == 0, "the lease never lapsed", LAPSE_SECONDS_MAX)
        assert patient.fetch(patient.list()[-1])
        assert patient.quit().startswith(EXPIRED)
        scene.lab.start_ledger()
        seconds = wait_until(lambda: not any(node.readiness() for node in scene.lab.nodes), "no node came back")
        scene.figure("ledger back without its memory: logins again at every node", seconds)
        assert DOMAIN in registered(scene)
    assert [*scene.history.readable[quick], *scene.history.readable[slow]] == uids[quick] + uids[slow]


@pytest.mark.invariant("I5")
@pytest.mark.parametrize("forget", [restart, flush])
def test_a_ledger_that_forgets_is_told_the_claims_again(proxied: Scene, forget: Callable[[Scene], None]):
    scene, (holder, *others) = proxied, proxied.lab.nodes
    mailbox = scene.mailbox(f"forgotten-{forget.__name__}")
    uids = tuple(scene.deliver(holder, mailbox) for _ in range(2))
    scene.lab.admin().add_domain("locked.example")
    scene.lab.admin().set_lock("locked.example", locked=True)
    domains = registered(scene)
    assert domains["locked.example"]
    with scene.judged(), Load(scene, f"{forget.__name__}-load"):
        session = scene.open(holder, mailbox)
        assert session.list() == uids
        session.mark(uids[0])
        forget(scene)

        def is_in_use_again() -> bool:
            refusals = [scene.refusal(node, mailbox) for node in others]
            assert all("[IN-USE]" in refusal or "[SYS/TEMP]" in refusal for refusal in refusals), refusals
            return all(
                "[IN-USE]" in refusal and not node.readiness() for refusal, node in zip(refusals, others, strict=True)
            )

        seconds = wait_until(is_in_use_again, "the claim was never asserted again")
        scene.figure(f"ledger forgets ({forget.__name__}): claims asserted, logins again", seconds)
        assert session.fetch(uids[1])
        assert session.quit() == "+OK bye"
        assert registered(scene) == domains
        successor = scene.open(others[0], mailbox)
        assert successor.list() == uids[1:]
        successor.quit()


@pytest.mark.invariant("I5")
def test_a_node_that_sleeps_while_the_ledger_forgets_has_lost_its_claims(proxied: Scene):
    scene, (first, second, sleeper) = proxied, proxied.lab.nodes
    mailbox = scene.mailbox("overslept")
    uids = tuple(scene.deliver(first, mailbox) for _ in range(2))
    with scene.judged():
        session = scene.open(sleeper, mailbox)
        session.mark(uids[0])
        sleeper.signal(signal.SIGSTOP)
        flush(scene)
        successor, seconds = scene.open_when_free([first, second], mailbox, LAPSE_SECONDS_MAX)
        scene.figure("ledger forgets while the holder sleeps: open at another", seconds)
        sleeper.signal(signal.SIGCONT)
        assert session.quit().startswith(EXPIRED)
        assert successor.list() == uids
        successor.quit()


@pytest.mark.invariant("I5")
@pytest.mark.invariant("I8")
def test_a_node_in_a_partition_says_that_it_is_behind_and_removes_nothing(proxied: Scene):
    scene, (first, second, lonely) = proxied, proxied.lab.nodes
    mailbox, later = scene.mailbox("partition"), scene.mailbox("partition-healed")
    uids = tuple(scene.deliver(first, mailbox) for _ in range(3))
    kept = scene.deliver(first, later)
    with scene.judged(), Load(scene, "partition-load"):
        session, patient = scene.open(lonely, mailbox), scene.open(lonely, later)
        session.mark(uids[0], uids[1])
        patient.mark(kept)
        scene.lab.proxy.hole()
        successor, seconds = scene.open_when_free([first, second], mailbox, LAPSE_SECONDS_MAX)
        scene.figure("partition of a node from the ledger: its claimed mailbox opens at another", seconds)
        assert successor.list() == uids
        successor.mark(uids[0])
        assert successor.quit() == "+OK bye"
        scene.lab.admin().add_domain("later.example")
        scene.mailbox("new", "later.example")
        wait_until(lambda: scene.try_to_deliver(first, "new@later.example")[0] is not None, "node 1 never heard")
        scene.wait_for_trouble(lonely, "registrations", "changes of domains are not seen")
        assert scene.try_to_deliver(lonely, "new@later.example")[1].startswith("451 ")
        uids += (scene.deliver(lonely, mailbox),)
        assert scene.refusal(lonely, mailbox).startswith(TEMPORARY)
        assert session.fetch(uids[2])
        assert session.quit().startswith(EXPIRED)
        scene.lab.proxy.heal()
        seconds = wait_until(lambda: not lonely.readiness(), "the node never came back")
        scene.figure("partition healed: the node is ready and knows the new domain", seconds)
        scene.deliver(lonely, "new@later.example")
        assert patient.quit().startswith(EXPIRED), "a lease that was lost must not be picked up again"
    assert tuple(scene.history.readable[mailbox]) == uids[1:]
    assert list(scene.history.readable[later]) == [kept]


@pytest.mark.invariant("I5")
def test_a_ledger_that_hangs_for_less_than_a_lease_ends_nobody(proxied: Scene):
    """It answers late what it was asked long ago: a claim that nobody waits for any more must not stay."""
    scene, (first, second, _) = proxied, proxied.lab.nodes
    held, asked = scene.mailbox("hang-held"), scene.mailbox("hang-asked")
    uids = [scene.deliver(first, held) for _ in range(2)]
    with scene.judged(), Load(scene, "hang-load"):
        session = scene.open(first, held)
        session.mark(uids[0])
        assert scene.lab.ledger is not None
        process = scene.lab.ledger._process
        process.send_signal(signal.SIGSTOP)
        try:
            assert scene.refusal(second, asked).startswith(TEMPORARY)
            scene.wait_for_trouble(second, "ledger", "does not answer")
            scene.deliver(second, asked)
        finally:
            process.send_signal(signal.SIGCONT)
        successor, seconds = scene.open_when_free([first, second], asked, LEASE_TTL_SECONDS / 2)
        scene.figure("ledger hung and answers again: a login at the node that asked meanwhile", seconds)
        successor.quit()
        assert session.quit() == "+OK bye"
    assert list(scene.history.readable[held]) == uids[1:]


@pytest.mark.invariant("I5")
def test_a_node_whose_connection_to_the_ledger_breaks_counts_as_dead(proxied: Scene):
    scene, (first, second, lonely) = proxied, proxied.lab.nodes
    mailboxes = [scene.mailbox(f"cut-{number}") for number in (1, 2)]
    uids = [tuple(scene.deliver(first, mailbox) for _ in range(2)) for mailbox in mailboxes]
    with scene.judged(), Load(scene, "cut-load"):
        sessions = [scene.open(lonely, mailbox) for mailbox in mailboxes]
        for session, known in zip(sessions, uids, strict=True):
            session.mark(known[0])
        scene.lab.proxy.cut()
        for mailbox, known in zip(mailboxes, uids, strict=True):
            successor, seconds = scene.open_when_free([first, second], mailbox, LAPSE_SECONDS_MAX)
            assert successor.list() == known
            successor.quit()
            if mailbox == mailboxes[0]:
                scene.figure("connection of a node to the ledger cut: its claimed mailbox opens at another", seconds)
        assert sessions[0].quit().startswith(TEMPORARY)
        scene.lab.proxy.heal()
        wait_until(lambda: not lonely.readiness(), "the node never came back")
        assert sessions[1].quit().startswith(EXPIRED)
    assert [tuple(scene.history.readable[mailbox]) for mailbox in mailboxes] == uids
