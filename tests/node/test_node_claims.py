"""The lease of a node: the clock, beats, a ledger that forgets, and the deaths of others."""

from collections.abc import Iterator
from typing import Any

import pytest
from dialogs.ledger import Cluster
from dialogs.memory import HandPool, now
from twisted.internet.defer import Deferred

from node import claims as claims_module
from node.claims import MARGIN_SECONDS
from node.deathwatch import DeathWatch
from node.pools import InlinePool
from store import claim as claim_module
from store.claim import LEASE_TTL_SECONDS, ClaimTable
from store.errors import InUse, LeaseLapsed, LedgerUnavailable, Misconfigured
from store.keys import connection_name

ADA, BOB = "example.org/ada", "example.org/bob"


@pytest.fixture
def cluster(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 0)
    monkeypatch.setattr(claims_module, "GRACE_SECONDS", 0)
    made = Cluster(ledger_url)
    yield made
    for ledger in made.ledgers:
        ledger.close()


# The lease and the clock


@pytest.mark.invariant("I5")
def test_a_claim_is_ours_until_the_margin_before_the_lease_ends_and_no_longer(cluster: Cluster) -> None:
    node = cluster.node()
    assert node.ready
    claim = now(node.take(ADA))
    cluster.clock.now += LEASE_TTL_SECONDS - MARGIN_SECONDS - 0.01
    assert node.still_ours(claim)
    cluster.clock.now += 0.02
    assert not node.still_ours(claim)
    assert not now(node.confirm(claim))
    assert not node.ready
    with pytest.raises(LeaseLapsed):
        now(node.take(BOB))


def test_a_beat_renews_all_claims(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    for _ in range(5):
        cluster.clock.now += LEASE_TTL_SECONDS - MARGIN_SECONDS - 1
        now(node.beat())
        assert node.still_ours(claim)
    assert node.held == 1


@pytest.mark.invariant("I5")
def test_time_is_counted_from_before_the_question(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))

    def slow(*arguments: Any) -> Any:
        answer = ClaimTable.beat(node._table, *arguments)
        cluster.clock.now += LEASE_TTL_SECONDS
        return answer

    node._table.beat = slow
    now(node.beat())
    assert not node.still_ours(claim), "the ledger counts from the question, not from our reading its answer"


def test_an_unanswered_lease_lapses_its_claims_are_lost_and_a_new_one_begins(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    node._table.cut = "before"
    assert now(node.beat()) is None
    assert node.trouble
    assert node.still_ours(claim), "one lost beat is no death"
    cluster.clock.now += LEASE_TTL_SECONDS
    assert now(node.beat()) is None
    assert claim.lost
    assert node.held == 0
    node._table.cut = ""
    assert now(node.beat()) is not None
    assert node.trouble is None
    assert not node.still_ours(claim), "a lease that was lost is never picked up again"
    assert not now(node.confirm(claim))
    assert now(node.take(ADA)).lease != claim.lease


def test_the_seconds_that_the_lease_has_left_are_told(cluster: Cluster) -> None:
    node = cluster.node(pool=InlinePool())
    assert node.lease_seconds_left == 0, "it has not joined yet"
    now(node.join())
    assert node.lease_seconds_left == LEASE_TTL_SECONDS - MARGIN_SECONDS
    cluster.clock.now += 3
    assert node.lease_seconds_left == LEASE_TTL_SECONDS - MARGIN_SECONDS - 3
    cluster.clock.now += LEASE_TTL_SECONDS
    assert node.lease_seconds_left == 0


# The ledger's memory


def test_a_new_epoch_gets_our_claims_back(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 60)
    cluster.forget_everything()
    now(node.beat())
    assert cluster.held(ADA)
    assert node.still_ours(claim)
    assert now(node.confirm(claim))
    now(node.drop(claim))
    assert not cluster.held(ADA)


def test_a_quit_that_meets_the_new_epoch_first_waits_for_the_beat(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 60)
    cluster.forget_everything()
    asked = Deferred.fromCoroutine(node.confirm(claim))
    assert not asked.called, "nobody knows yet whether it is ours"
    now(node.beat())
    assert asked.result is True


@pytest.mark.invariant("I5")
def test_a_quit_that_waited_in_vain_removes_nothing(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    node._table.end_lease(claim.lease)
    asked = Deferred.fromCoroutine(node.confirm(claim))
    assert not asked.called
    now(node.beat())
    assert asked.result is False
    assert claim.lost


def test_a_node_that_leaves_keeps_no_quit_waiting(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    cluster.forget_everything()
    asked = Deferred.fromCoroutine(node.confirm(claim))
    now(node.leave())
    assert asked.result is False


@pytest.mark.invariant("I5")
def test_a_lease_gone_in_the_same_epoch_is_lost(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    node._table.end_lease(claim.lease)
    now(node.beat())
    assert claim.lost
    assert not node.still_ours(claim)
    other = now(node.take(ADA))
    now(node.drop(claim))
    assert now(node.confirm(other))


@pytest.mark.invariant("I5")
def test_after_a_loss_of_memory_who_asserts_first_has_it(cluster: Cluster) -> None:
    first, second = cluster.node("n1"), cluster.node("n2")
    claim = now(first.take(ADA))
    cluster.forget_everything()
    now(second.beat())
    other = now(second.take(ADA))
    now(first.beat())
    assert claim.lost
    assert not now(first.confirm(claim))
    assert now(second.confirm(other))


def test_a_new_ledger_grants_nothing_until_the_grace_is_over(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 60)
    monkeypatch.setattr(claims_module, "GRACE_SECONDS", 60)
    node = cluster.node()
    assert not node.ready
    with pytest.raises(LedgerUnavailable, match="ledger is new"):
        now(node.take(ADA))


# Others


def test_a_broken_claim_is_lost_at_the_next_beat(cluster: Cluster) -> None:
    node = cluster.node()
    claim, other = now(node.take(ADA)), now(node.take(BOB))
    node._table.break_claim(ADA)
    now(node.beat())
    assert claim.lost
    assert not other.lost
    assert node.held == 1


def test_a_live_twin_is_refused_the_name(cluster: Cluster) -> None:
    cluster.node("n1", "1")
    twin = cluster.node("n1", "2", pool=HandPool())
    twin._pool = InlinePool()
    with pytest.raises(Misconfigured, match="is named n1 already"):
        now(twin.join())


def test_a_node_whose_connections_are_gone_is_ended_after_two_looks(cluster: Cluster) -> None:
    watcher, victim = cluster.node("n1"), cluster.node("n2")
    now(victim.take(ADA))
    now(watcher.beat())
    cluster.ledgers[1].close()
    for _ in range(2):
        with pytest.raises(InUse):
            now(watcher.take(ADA))
        now(watcher.beat())
    assert now(watcher.confirm(now(watcher.take(ADA))))


def test_leaving_frees_everything(cluster: Cluster) -> None:
    first, second = cluster.node("n1"), cluster.node("n2")
    claim = now(first.take(ADA))
    now(first.leave())
    assert not first.still_ours(claim)
    assert now(second.take(ADA))
    first._table.cut = "before"
    first._table.end_lease = lambda *_arguments: first._table._through(lambda: None)
    now(first.leave())


class TestDeathWatch:
    LEASE, OTHER = "n2~abc.1", "n3~def.2"
    HERE = frozenset({connection_name(LEASE), connection_name(OTHER)})

    def test_two_looks_without_a_connection_that_was_seen(self) -> None:
        watch = DeathWatch()
        assert watch.look((self.LEASE, self.OTHER), self.HERE) == []
        assert watch.look((self.LEASE, self.OTHER), {connection_name(self.OTHER)}) == []
        assert watch.look((self.LEASE, self.OTHER), {connection_name(self.OTHER)}) == [self.LEASE]

    def test_one_look_between_two_connections_is_no_death(self) -> None:
        watch = DeathWatch()
        for connections in (self.HERE, set(), self.HERE, set(), self.HERE):
            assert watch.look((self.LEASE,), connections) == []

    def test_who_was_never_seen_here_is_not_dead(self) -> None:
        watch = DeathWatch()
        for _ in range(5):
            assert watch.look((self.LEASE,), set()) == []

    def test_what_was_seen_at_another_ledger_does_not_count(self) -> None:
        watch = DeathWatch()
        watch.look((self.LEASE,), self.HERE)
        watch.look((self.LEASE,), set())
        watch.forget()
        for _ in range(5):
            assert watch.look((self.LEASE,), set()) == []

    def test_a_lease_that_ended_is_forgotten(self) -> None:
        watch = DeathWatch()
        watch.look((self.LEASE,), self.HERE)
        watch.look((), self.HERE)
        watch.look((self.LEASE,), set())
        assert watch.look((self.LEASE,), set()) == []
        assert not watch._seen
        assert not watch._absent
