"""The mail store goes away under running nodes and comes back: nobody is refused for good, nothing is lost (I9)."""

import os

import pytest
import redis
from load import Load
from scene import Scene

from node.lab import DOMAIN, wait_until

pytestmark = [pytest.mark.cluster, pytest.mark.invariant("I9")]

LOOK_SECONDS_MAX = 8.0  # A node looks at the marker every 5 s.


def unmount(scene: Scene) -> None:
    """An empty directory shows where the share was, as after a umount."""
    os.rename(scene.lab.store, f"{scene.lab.store}.away")
    os.mkdir(scene.lab.store)


def mount(scene: Scene) -> None:
    os.rmdir(scene.lab.store)  # Fails where a node has written into the mount point.
    os.rename(f"{scene.lab.store}.away", scene.lab.store)


def registrations(scene: Scene) -> dict[str, bool]:
    return {r.domain: r.deleted for r in scene.lab.admin()._registry.changes_after(0)}


def wait_until_noticed(scene: Scene) -> None:
    for node in scene.lab.nodes:
        scene.wait_for_trouble(node, "store", "has no marker", LOOK_SECONDS_MAX)


def wait_until_back(scene: Scene) -> float:
    return wait_until(lambda: not any(node.readiness() for node in scene.lab.nodes), "no node found the store again")


def test_an_unmounted_store_refuses_for_a_while_and_loses_nothing(scene: Scene):
    first, second, third = scene.lab.nodes
    mailbox, idle = scene.mailbox("unmounted"), scene.mailbox("unmounted-idle")
    uids = [scene.deliver(first, mailbox) for _ in range(2)]
    known, version = registrations(scene), scene.lab.admin().registrations_version()
    with scene.judged(), Load(scene, "unmount-load"):
        session = scene.open(second, mailbox)
        session.mark(uids[0])
        unmount(scene)
        # At once, long before the nodes look at the marker by themselves: the first miss is not believed.
        for node in (first, second, third):
            assert scene.try_to_deliver(node, idle)[1].startswith("451 ")
            assert scene.try_to_deliver(node, f"nobody@{DOMAIN}")[1].startswith("451 ")
            assert scene.refusal(node, idle).startswith("-ERR [SYS/TEMP]")
        wait_until_noticed(scene)
        for node in (first, second, third):
            assert scene.try_to_deliver(node, idle)[1].startswith("451 ")
            assert scene.refusal(node, idle).startswith("-ERR [SYS/TEMP]")
        assert session.say("RETR 2").startswith("-ERR [SYS/TEMP]")
        answer = session.quit()
        assert answer.startswith("-ERR [SYS/TEMP]"), f"it removed what is not there: {answer}"
        mount(scene)
        scene.figure("store mounted again: every node is ready", wait_until_back(scene))
        assert scene.try_to_deliver(first, f"nobody@{DOMAIN}")[1].startswith("550 ")
    assert list(scene.history.readable[mailbox]) == uids
    assert registrations(scene) == known
    assert scene.lab.admin().registrations_version() == version


def test_a_ledger_wiped_meanwhile_is_rebuilt_when_the_store_is_back(scene: Scene):
    first = scene.node(1)
    mailbox = scene.mailbox("unmounted-wiped")
    scene.lab.admin().add_domain("second.example")
    scene.lab.admin().delete_domain("second.example", lambda _: True, lambda _: None)
    uids = [scene.deliver(first, mailbox)]
    with scene.judged():
        unmount(scene)
        with redis.Redis.from_url(scene.lab.ledger_url) as client:
            client.flushall()
        # The nodes can write nothing into the new memory, and go on with what they know.
        scene.wait_for_trouble(first, "registrations", "marker")
        assert scene.try_to_deliver(first, mailbox)[1].startswith("451 ")
        mount(scene)
        wait_until_back(scene)
        assert registrations(scene) == {DOMAIN: False}
        uids.append(scene.deliver(first, mailbox))
    assert list(scene.history.readable[mailbox]) == uids
