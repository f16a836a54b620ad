"""What a session may count on of the claims: the double in memory and the real ones on a real ledger, alike."""

import uuid
from collections.abc import Callable, Iterator

import pytest
from dialogs.memory import Clock, MemoryClaims, now

from node import claims as claims_module
from node.claims import Claim, Claiming, Claims
from node.pools import InlinePool
from store import claim as claim_module
from store.claim import LEASE_TTL_SECONDS, ClaimTable
from store.errors import InUse, LeaseLapsed
from store.keys import Keys
from store.ledger import Ledger

ADA, BOB = "example.org/ada", "example.org/bob"


class Subject:
    """Claims, and what else can happen to them."""

    def __init__(self, claims: Claiming, break_claim: Callable[[str], object], lapse: Callable[[], None]) -> None:
        self.claims, self.break_claim, self.lapse = claims, break_claim, lapse

    def take(self, mailbox: str = ADA) -> Claim:
        taken = now(self.claims.take(mailbox))
        assert isinstance(taken, Claim)
        return taken

    def confirm(self, claim: Claim) -> bool:
        return bool(now(self.claims.confirm(claim)))

    def drop(self, claim: Claim) -> None:
        assert now(self.claims.drop(claim)) is None


def in_memory() -> Subject:
    claims = MemoryClaims()

    def lapse() -> None:
        claims.lapsed = True

    return Subject(claims, claims.break_claim, lapse)


def on_a_ledger(url: str) -> tuple[Subject, Ledger]:
    clock, keys = Clock(), Keys(str(uuid.uuid4()))
    ledger = Ledger(url, "mailroot:n1~1")
    table = ClaimTable(ledger, keys)
    claims = Claims(node="n1", table=table, ledger=ledger, incarnation="1", pool=InlinePool(), facts=dict, clock=clock)
    now(claims.join())

    def lapse() -> None:
        clock.now += LEASE_TTL_SECONDS

    return Subject(claims, table.break_claim, lapse), ledger


@pytest.fixture(params=["in memory", "on a ledger"])
def subject(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Subject]:
    monkeypatch.setattr(claim_module, "GRACE_SECONDS", 0)
    monkeypatch.setattr(claims_module, "GRACE_SECONDS", 0)
    if request.param == "in memory":
        yield in_memory()
    else:
        made, ledger = on_a_ledger(request.getfixturevalue("ledger_url"))
        yield made
        ledger.close()


def test_a_claim_is_exclusive(subject: Subject) -> None:
    claim = subject.take()
    assert claim.mailbox == ADA
    for _ in range(2):
        with pytest.raises(InUse):
            subject.take()
    assert subject.confirm(claim)
    assert subject.claims.still_ours(claim)


def test_mailboxes_do_not_meet(subject: Subject) -> None:
    ada, bob = subject.take(ADA), subject.take(BOB)
    subject.drop(ada)
    assert subject.confirm(bob)
    with pytest.raises(InUse):
        subject.take(BOB)


def test_what_is_dropped_is_free(subject: Subject) -> None:
    first = subject.take()
    subject.drop(first)
    second = subject.take()
    assert second is not first
    assert second.token != first.token
    assert subject.confirm(second)
    assert not subject.confirm(first)


def test_only_the_owner_of_a_token_drops_it(subject: Subject) -> None:
    first = subject.take()
    subject.drop(first)
    second = subject.take()
    subject.drop(first)
    with pytest.raises(InUse):
        subject.take()
    assert subject.confirm(second)


@pytest.mark.invariant("I5")
def test_a_broken_claim_is_not_confirmed_and_the_mailbox_is_free(subject: Subject) -> None:
    claim = subject.take()
    subject.break_claim(ADA)
    assert not subject.confirm(claim)
    other = subject.take()
    subject.drop(claim)
    assert subject.confirm(other), "the former holder's end must not end the new one"


@pytest.mark.invariant("I5")
def test_nothing_is_ours_when_the_lease_has_lapsed(subject: Subject) -> None:
    claim = subject.take()
    subject.lapse()
    assert not subject.claims.still_ours(claim)
    assert not subject.confirm(claim)
    with pytest.raises(LeaseLapsed):
        subject.take(BOB)
    subject.drop(claim)


def test_dropping_never_fails(subject: Subject) -> None:
    claim = subject.take()
    subject.break_claim(ADA)
    subject.drop(claim)
    subject.drop(claim)
