"""Taking and dropping claims while answers are lost, leases end and exchanges queue up."""

from collections.abc import Iterator

import pytest
from dialogs.ledger import Cluster
from dialogs.memory import HandPool, now
from twisted.internet.defer import Deferred

from node import claims as claims_module
from node.claims import Claim
from node.pools import InlinePool
from store import claim as claim_module
from store.errors import InUse, LeaseLapsed, LedgerUnavailable

ADA, BOB = "example.org/ada", "example.org/bob"


@pytest.fixture
def cluster(ledger_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 0)
    monkeypatch.setattr(claims_module, "GRACE_SECONDS", 0)
    made = Cluster(ledger_url)
    yield made
    for ledger in made.ledgers:
        ledger.close()


# Drops that were not heard


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_drop_that_was_not_answered_is_sent_again(cluster: Cluster, cut: str) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    node._table.cut = cut
    now(node.drop(claim))
    assert cluster.held(ADA) == (cut == "before")
    assert now(node.beat()) is None
    node._table.cut = ""
    now(node.beat())
    assert not cluster.held(ADA)
    assert node._owed == []


def test_a_claim_that_was_granted_unheard_is_given_back(cluster: Cluster) -> None:
    node = cluster.node()
    node._table.cut = "after"
    with pytest.raises(LedgerUnavailable):
        now(node.take(ADA))
    assert cluster.held(ADA)
    node._table.cut = ""
    now(node.beat())
    assert not cluster.held(ADA)


def test_an_owed_drop_stays_owed_until_it_is_heard(cluster: Cluster) -> None:
    node = cluster.node()
    claim = now(node.take(ADA))
    node._table.cut = "before"
    now(node.drop(claim))
    node._table.cut = "exchange"
    assert now(node.beat()) is None, "the beat was heard, the drop was not"
    assert len(node._owed) == 1
    assert node.trouble
    node._table.cut = ""
    assert now(node.beat()) is not None
    assert node._owed == []
    assert not cluster.held(ADA)
    assert now(node.take(ADA))


# One exchange in flight


def test_what_comes_in_during_an_exchange_goes_with_the_next(cluster: Cluster) -> None:
    node = cluster.node()
    node._pool = HandPool()
    outcomes: list[object] = []
    for mailbox in (ADA, BOB, ADA):
        Deferred.fromCoroutine(node.take(mailbox)).addBoth(outcomes.append)
    assert len(node._pool.calls) == 1
    node._pool.step()
    assert len(node._pool.calls) == 1, "two waited and go together"
    node._pool.step()
    assert [type(outcome) for outcome in outcomes[:2]] == [Claim, Claim]
    assert outcomes[2].check(InUse)
    assert node.held == 2


def test_what_waited_while_its_lease_ended_is_not_done_for_the_next(cluster: Cluster) -> None:
    node = cluster.node()
    pool = node._pool = HandPool()
    outcomes: list[object] = []
    for mailbox in (ADA, BOB):
        Deferred.fromCoroutine(node.take(mailbox)).addBoth(outcomes.append)
    node._pool = InlinePool()
    now(node.join())
    node._pool = pool
    pool.drain()
    assert [outcome.check(LeaseLapsed) for outcome in outcomes] == [LeaseLapsed, LeaseLapsed]
    assert not cluster.held(BOB)
    assert node.held == 0


@pytest.mark.invariant("I5")
def test_a_claim_whose_answer_comes_after_the_ledger_forgot_it_is_not_believed(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was not among those that were asserted, so somebody else may have it by the time it is used."""
    node = cluster.node()
    pool = node._pool = HandPool()
    outcomes: list[object] = []
    Deferred.fromCoroutine(node.take(ADA)).addBoth(outcomes.append)
    answer, work = pool.calls.pop()
    granted = work()
    node._pool = InlinePool()
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 60)
    cluster.forget_everything()
    now(node.beat())
    answer.callback(granted)
    assert granted == ["ok"]
    assert outcomes[0].check(LedgerUnavailable)
    assert node.held == 0


def test_however_many_wait_none_is_forgotten(cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(claims_module, "BATCH_MAX", 2)
    node = cluster.node()
    pool = node._pool = HandPool()
    outcomes: list[object] = []
    for number in range(8):
        Deferred.fromCoroutine(node.take(f"example.org/{number}")).addBoth(outcomes.append)
    node._pool = InlinePool()
    now(node.join())
    node._pool = pool
    pool.drain()
    assert len(outcomes) == 8, "what waited in the name of a lease that ended has to be told"
