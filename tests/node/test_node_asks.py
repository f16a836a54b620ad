"""Open: failures become refusals, and IN-USE is for right credentials only."""

from pathlib import Path

import pytest
from dialogs.memory import HandPool, House, OrderedClaims, now, world_of
from twisted.internet.defer import Deferred

from node.pop3 import asks
from node.pop3.asks import WRONG, Opened, World
from node.pop3.session import Open, Refusal
from store import credential, files
from store.errors import LedgerUnavailable

ADA, KEY = "ada@example.org", "example.org/ada"
OPEN = Open(ADA, "lovelace")


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> House:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    made = House.build(str(tmp_path))
    made.mailbox(ADA, "lovelace")
    return made


@pytest.fixture
def world(house: House) -> World:
    return world_of(house, claims=OrderedClaims())


def opened(world: World) -> Opened:
    outcome = now(asks.open_mailbox(world, OPEN))
    assert isinstance(outcome, Opened), outcome
    return outcome


def claimed(world: World) -> bool:
    return bool(world.claims.by_mailbox)


# Open


def test_opening_verifies_claims_and_lists(house: House, world: World) -> None:
    uid = house.message(ADA, b"A: b")
    outcome = opened(world)
    assert outcome.mailbox.key == KEY
    assert [message.uid for message in outcome.snapshot.messages] == [uid]
    assert world.claims.by_mailbox == {KEY: outcome.claim}


@pytest.mark.parametrize(
    "ask", [Open(ADA, "no"), Open("x@example.org", "lovelace"), Open("x", ""), Open(ADA, "x" * 2000)]
)
def test_a_wrong_user_or_password_never_touches_the_claims(world: World, ask: Open) -> None:
    assert now(asks.open_mailbox(world, ask)) == WRONG
    assert world.claims.done == []


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"store_trouble": lambda: "unmounted"}, "SYS/TEMP", "mail store unavailable"),
        ({"is_domain_locked": lambda domain: domain == "example.org"}, "SYS/PERM", "locked"),
        ({"authenticator": None}, "SYS/TEMP", "internal failure"),
    ],
)
def test_what_makes_a_login_fail(house: House, change: dict, code: str, text: str) -> None:
    world = world_of(house, **change)
    refusal = now(asks.open_mailbox(world, OPEN))
    assert isinstance(refusal, Refusal)
    assert refusal.code == code
    assert text in refusal.text
    assert "unmounted" not in refusal.text, "the operator's words are not for strangers"
    assert not claimed(world)


@pytest.mark.parametrize("failure", [LedgerUnavailable("10.0.0.1 is gone"), ZeroDivisionError("10.0.0.1")])
def test_no_claim_no_session(world: World, failure: Exception) -> None:
    world.claims.failure = failure
    refusal = now(asks.open_mailbox(world, OPEN))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "SYS/TEMP"
    assert "10.0.0.1" not in refusal.text


@pytest.mark.invariant("I9")
def test_a_store_without_its_marker_is_not_a_wrong_password(house: House, world: World) -> None:
    house.store.root = house.store.root + "/unmounted"
    refusal = now(asks.open_mailbox(world, OPEN))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "SYS/TEMP"


def test_a_remembered_password_costs_one_trip_to_the_disk(house: House) -> None:
    pool = HandPool()
    world = world_of(house, disk=pool)
    for trips in (2, 1, 1):
        outcomes: list[object] = []
        Deferred.fromCoroutine(asks.open_mailbox(world, OPEN)).addBoth(outcomes.append)
        for _ in range(trips):
            assert not outcomes
            pool.step()
        assert isinstance(outcomes[0], Opened)
        now(asks.close(world, outcomes[0]))


def test_a_remembered_password_whose_mailbox_is_in_use(house: House, world: World) -> None:
    first = opened(world)
    refusal = now(asks.open_mailbox(world, OPEN))
    assert isinstance(refusal, Refusal)
    assert refusal.code == "IN-USE"
    house.password(ADA, "countess")
    assert now(asks.open_mailbox(world, OPEN)) == WRONG
    assert world.claims.by_mailbox == {KEY: first.claim}
    now(asks.close(world, first))
    assert now(asks.open_mailbox(world, OPEN)) == WRONG
    assert not claimed(world), "the claim that was taken ahead of the verification is given back"


def test_an_alias_that_leads_elsewhere_since_it_was_remembered(house: House, world: World) -> None:
    house.mailbox("bob@example.org", "lovelace")
    house.alias("post@example.org", ADA)
    ask = Open("post@example.org", "lovelace")
    first = now(asks.open_mailbox(world, ask))
    assert isinstance(first, Opened)
    assert first.mailbox.key == KEY
    files.unlink(f"{house.store.root}/example.org/P3_post.mbx")
    house.alias("post@example.org", "bob@example.org")
    second = now(asks.open_mailbox(world, ask))
    assert isinstance(second, Opened), "ada's claim is not bob's"
    assert second.mailbox.key == "example.org/bob"
    now(asks.close(world, second))
    now(asks.close(world, first))
    third = now(asks.open_mailbox(world, ask))
    assert isinstance(third, Opened)
    assert list(world.claims.by_mailbox) == ["example.org/bob"]
