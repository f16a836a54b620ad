"""Do we take mail for this address? "No" must be certain; everything else is "try later"."""

import os
from pathlib import Path

import pytest
from dialogs.memory import HandPool, House, now
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred

from node.pools import InlinePool
from node.recipients import Recipients, Verdict
from store import credential
from store.address import Address
from store.errors import BrokenAlias, Missing, Overloaded, Unavailable

ADA = "ada@example.org"


class Known:
    """A node's knowledge, which a test changes."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.domains = {"example.org"}
        self.complete = True
        self.trouble: str | None = None
        self.disk = InlinePool()

    @property
    def recipients(self) -> Recipients:
        return Recipients(
            disk=self.disk,
            store=self.house.store,
            accepts=lambda domain: domain in self.domains,
            is_complete=lambda: self.complete,
            store_trouble=lambda: self.trouble,
        )

    def mailbox(self, text: str) -> Verdict:
        return now(self.recipients.mailbox(text))

    def domain(self, text: str) -> Verdict:
        return self.recipients.domain(text)


@pytest.fixture
def known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Known:
    monkeypatch.setattr(credential, "ITERATIONS", 1)
    house = House.build(str(tmp_path))
    house.mailbox(ADA, "lovelace")
    house.alias("postmaster@example.org", ADA)
    return Known(house)


@pytest.mark.parametrize("written", [ADA, "ADA@Example.ORG", "ada@example.org.", "postmaster@example.org"])
def test_a_mailbox_and_an_alias_are_found_as_addresses_are_written(known: Known, written: str) -> None:
    assert known.mailbox(written) is Verdict.YES


@pytest.mark.parametrize("written", ["example.org", "EXAMPLE.org", "example.org."])
def test_a_domain_is_found_as_it_is_written(known: Known, written: str) -> None:
    assert known.domain(written) is Verdict.YES


def test_each_no_has_its_reason(known: Known) -> None:
    assert known.mailbox("nobody@example.org") is Verdict.NO_MAILBOX
    assert known.mailbox("ada@unknown.example") is Verdict.NO_DOMAIN
    assert known.domain("unknown.example") is Verdict.NO_DOMAIN
    assert known.domain("sub.example.org") is Verdict.NO_DOMAIN


@pytest.mark.parametrize("key", ["", "@", "ada", "@example.org", "a b@example.org", "../x@example.org", "ada@[::1]"])
def test_what_can_be_no_address_is_none(known: Known, key: str) -> None:
    known.complete, known.trouble = False, "away"
    assert known.mailbox(key) is Verdict.NO_MAILBOX


@pytest.mark.parametrize("key", ["", ".", ".example.org", "localhost", "[192.0.2.1]", "192.0.2.1 "])
def test_what_can_be_no_domain_is_none(known: Known, key: str) -> None:
    assert known.domain(key) is Verdict.NO_DOMAIN


def test_a_lock_keeps_nobodys_mail_away(known: Known) -> None:
    known.house.lock(ADA, locked=True)
    known.house.store.set_lock(known.house.store.domain_path("example.org"), locked=True)
    assert known.mailbox(ADA) is Verdict.YES


def test_an_unknown_domain_is_no_domain_only_when_all_have_been_read(known: Known) -> None:
    known.complete = False
    assert known.domain("example.org") is Verdict.YES
    assert known.mailbox(ADA) is Verdict.YES
    with pytest.raises(Unavailable):
        known.domain("unknown.example")
    with pytest.raises(Unavailable):
        known.mailbox("ada@unknown.example")


@pytest.mark.invariant("I9")
def test_without_its_store_a_node_denies_nobody(known: Known) -> None:
    known.trouble = "has no marker"
    for address in (ADA, "nobody@example.org", "ada@unknown.example"):
        with pytest.raises(Unavailable):
            known.mailbox(address)
    assert known.domain("example.org") is Verdict.YES, "the registrations are in memory"


@pytest.mark.invariant("I9")
def test_a_store_that_went_away_a_moment_ago_denies_nobody(known: Known) -> None:
    root = known.house.store.root
    os.rename(root, f"{root}.away")
    os.mkdir(root)
    for address in (ADA, "nobody@example.org"):
        with pytest.raises(Unavailable):
            known.mailbox(address)
    os.rmdir(root)
    os.rename(f"{root}.away", root)
    assert known.mailbox("nobody@example.org") is Verdict.NO_MAILBOX


def test_a_broken_alias_is_for_the_operator_to_mend(known: Known) -> None:
    directory = known.house.store.domain_path("example.org")
    os.symlink("P3_loop.mbx", f"{directory}/P3_loop.mbx")
    with pytest.raises(BrokenAlias):
        known.mailbox("loop@example.org")


def test_an_alias_of_a_mailbox_that_was_deleted_is_none(known: Known) -> None:
    directory = known.house.store.domain_path("example.org")
    os.symlink("P3_gone.mbx", f"{directory}/P3_left.mbx")
    assert known.mailbox("left@example.org") is Verdict.NO_MAILBOX


def test_a_pool_that_fails_is_no_answer(known: Known) -> None:
    known.disk = pool = HandPool()
    failures: list[BaseException] = []
    asked = Deferred.fromCoroutine(known.recipients.mailbox(ADA))
    asked.addErrback(lambda failure: failures.append(failure.value))
    pool.fail(Overloaded("too much waits"))
    assert isinstance(failures[0], Overloaded)


@given(text=st.text(max_size=80))
def test_any_text_has_an_answer(text: str) -> None:
    class NoStore:
        asked: object = None

        def find(self, address: object) -> None:
            self.asked = address
            raise Missing("nobody is here")

    store = NoStore()
    recipients = Recipients(
        disk=InlinePool(),
        store=store,
        accepts=lambda _domain: True,
        is_complete=lambda: True,
        store_trouble=lambda: None,
    )
    assert recipients.domain(text) in (Verdict.YES, Verdict.NO_DOMAIN)
    assert now(recipients.mailbox(text)) is Verdict.NO_MAILBOX
    assert store.asked is None or isinstance(store.asked, Address), "only a proper address gets to the store"
