"""The ledger's primary dies and a replica is promoted: claims are kept, nothing is lost, the former one is not believed."""

import urllib.request

import pytest
import redis
from load import Load
from scene import Scene

from node.claims import MARGIN_SECONDS
from node.lab import LabNode, wait_until
from node.sentinels import SentinelLab, SentinelSet
from store.claim import LEASE_TTL_SECONDS
from store.errors import LedgerUnavailable

pytestmark = pytest.mark.cluster

BACK_SECONDS_MAX = 60.0  # Ends a wait that is lost; it takes about six seconds.


def sentinels(scene: Scene) -> SentinelSet:
    assert isinstance(scene.lab, SentinelLab)
    return scene.lab.sentinels


def epoch(scene: Scene) -> str:
    with redis.Redis.from_url(sentinels(scene).primary_url, decode_responses=True) as client:
        (key,) = client.keys("mailroot:*:epoch")
        return str(client.get(key))


def registered(scene: Scene) -> dict[str, bool]:
    """Return the registered domains, each with whether the nodes take it for locked."""
    return {r.domain: r.locked for r in scene.lab.admin()._registry.changes_after(0) if not r.deleted}


def gauge(node: LabNode, name: str) -> float:
    with urllib.request.urlopen(f"http://127.0.0.1:{node.ports.http}/metrics", timeout=30) as page:
        lines = page.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"mailroot_{name} "))


def wait_until_granting(scene: Scene, held: str, holder: LabNode) -> float:
    """Wait until every node is ready; meanwhile nobody but its holder is let into a mailbox."""
    others = [node for node in scene.lab.nodes if node is not holder]

    def is_in_use_again() -> bool:
        refusals = [scene.refusal(node, held) for node in others]
        assert all("[IN-USE]" in refusal or "[SYS/TEMP]" in refusal for refusal in refusals), refusals
        return all("[IN-USE]" in refusal for refusal in refusals) and not any(
            node.readiness() for node in scene.lab.nodes
        )

    return wait_until(is_in_use_again, "the claim was never asserted again", BACK_SECONDS_MAX)


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I5")
@pytest.mark.invariant("I8")
def test_a_killed_primary_is_succeeded_and_claims_are_kept(watched: Scene):
    scene, (holder, second, third) = watched, watched.lab.nodes
    mailbox = scene.mailbox("succession")
    uids = tuple(scene.deliver(holder, mailbox) for _ in range(2))
    scene.lab.admin().add_domain("locked.example")
    scene.lab.admin().set_lock("locked.example", locked=True)
    domains, former = registered(scene), epoch(scene)
    assert domains["locked.example"]
    with scene.judged(), Load(scene, "succession-load"):
        session = scene.open(holder, mailbox)
        session.mark(uids[0])
        assert "[IN-USE]" in scene.refusal(second, mailbox)
        promoted = sentinels(scene).fail_over()
        granting = promoted + wait_until_granting(scene, mailbox, holder)
        scene.figure("ledger's primary killed (Sentinel): a replica is promoted", promoted)
        scene.figure("ledger's primary killed (Sentinel): claims asserted, logins again at every node", granting)
        answer = session.quit()
        # A machine that is so slow that the lease lapsed meanwhile is no broken promise.
        assert answer == "+OK bye" or granting > LEASE_TTL_SECONDS - MARGIN_SECONDS, answer
        assert epoch(scene) != former
        assert registered(scene) == domains
        for node in scene.lab.nodes:
            assert 0 < gauge(node, "lease_seconds_left") <= LEASE_TTL_SECONDS
            wait_until(lambda node=node: gauge(node, "registrations_behind") == 0, f"{node.name} never caught up")
        scene.open(third, mailbox).quit()
    if answer == "+OK bye":
        assert tuple(scene.history.readable[mailbox]) == uids[1:]


@pytest.mark.invariant("I5")
def test_the_connections_names_show_a_death_at_the_new_primary_too(watched: Scene):
    scene, (first, second, third) = watched, watched.lab.nodes
    sentinels(scene).restart_dead()
    mailbox = scene.mailbox("orphaned")
    uid = scene.deliver(first, mailbox)
    with scene.judged():
        session = scene.open(third, mailbox)
        session.mark(uid)
        third.kill()
        session.break_off()
        successor, seconds = scene.open_when_free([first, second], mailbox, BACK_SECONDS_MAX)
        scene.figure("killed node after a fail-over of the ledger: its claimed mailbox opens elsewhere", seconds)
        assert successor.list() == (uid,)
        successor.quit()
        assert any("lease_ended" in node.log_path.read_text() for node in (first, second)), "it lapsed instead"
        third.start()


@pytest.mark.invariant("I8")
def test_a_registration_is_acknowledged_when_a_replica_has_it(watched: Scene):
    scene, admin = watched, watched.lab.admin()
    sentinels(scene).pause_replicas()
    try:
        with pytest.raises(LedgerUnavailable, match=r"no replica has it yet|takes no writes"):
            admin.add_domain("kept.example")
    finally:
        sentinels(scene).resume_all()
    sentinels(scene).restart_dead()
    admin.add_domain("kept.example")
    assert registered(scene)["kept.example"] is False


@pytest.mark.invariant("I5")
def test_a_former_primary_that_wakes_up_is_not_believed(watched: Scene):
    scene, (first, second, _) = watched, watched.lab.nodes
    mailbox = scene.mailbox("sleeping-primary")
    uids = tuple(scene.deliver(first, mailbox) for _ in range(2))
    scene.lab.wait_until_ready()
    with scene.judged(), Load(scene, "sleeping-load"):
        scene.open(first, mailbox).break_off()
        former = sentinels(scene).primary_url
        sentinels(scene).pause_primary()
        sentinels(scene).wait_until_promoted(former)
        session, seconds = scene.open_when_free([second], mailbox, BACK_SECONDS_MAX)
        scene.figure("ledger's primary sleeps (Sentinel): a new login after a replica was promoted", seconds)
        session.mark(uids[0])
        sentinels(scene).resume_all()
        for _ in range(5):
            refusal = scene.refusal(first, mailbox)
            assert "[IN-USE]" in refusal or "[SYS/TEMP]" in refusal
        assert session.quit() == "+OK bye"
        sentinels(scene).restart_dead()
    assert tuple(scene.history.readable[mailbox]) == uids[1:]
