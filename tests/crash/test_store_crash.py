"""A node is killed at every system call of founding a store, and of adding and deleting domains and mailboxes."""

import itertools
import os
import uuid
from contextlib import suppress

import pytest
from support import GUID

from crash.killing import MODES, every_death
from store import identity
from store.address import Address
from store.domain import MailStore
from store.errors import Exists, Missing
from store.names import NameSource

ADA, BOB = Address("ada", "example.com"), Address("bob", "example.com")
POSTMASTER, EVE = Address("postmaster", "example.com"), Address("eve", "example.com")
NEIGHBOUR = Address("ada", "example.org")


@pytest.fixture
def new_store(tmp_path):
    """Makes stores with two mailboxes, an alias and a neighbouring domain, each with one message."""
    numbers = itertools.count()

    def make():
        root = tmp_path / f"mailroot{next(numbers)}"
        root.mkdir()
        store_id = identity.found(str(root), GUID, "encrypted_file").store_id
        store = MailStore(str(root), store_id, NameSource())
        for domain in ("example.com", "example.org"):
            store.add_domain(domain)
        for address in (ADA, BOB, NEIGHBOUR):
            mailbox = store.add_mailbox(address)
            mailbox.deliver(store.names, [str(address).encode()])
            store.set_lock(mailbox.path, locked=False)
        store.add_alias(POSTMASTER, BOB)
        return store

    return make


def reopened(store):
    """The store as a node sees it that was started after the crash."""
    return MailStore(store.root, identity.verify(store.root, GUID, "encrypted_file").store_id, NameSource())


def is_whole(store, address, owner=None):
    """Tell whether a mailbox has its message; False where the store says Missing. Half a mailbox is a failure."""
    try:
        mailbox = reopened(store).find(address)
    except Missing:
        return False
    (message,) = mailbox.snapshot(mailbox.listing()).messages
    reading = mailbox.read(message)
    assert b"".join(iter(reading.next_chunk, b"")) == f"{owner or address}\r\n".encode()
    return True


@pytest.mark.invariant("I7")
@pytest.mark.invariant("I9")
@pytest.mark.parametrize("mode", MODES)
def test_the_founding_of_a_store(tmp_path, mode):
    numbers = itertools.count()

    def prepare():
        root = tmp_path / f"new{next(numbers)}"
        root.mkdir()

        def check(returned):
            if identity.MARKER in os.listdir(root):
                made = identity.verify(str(root), GUID, "encrypted_file")  # a damaged one would not mend itself
            else:
                assert not returned
                made = identity.found(str(root), GUID, "encrypted_file")
            with pytest.raises(Exists):
                identity.found(str(root), uuid.uuid4(), "encrypted_file")
            assert identity.load(str(root)) == made
            store = MailStore(str(root), made.store_id, NameSource())
            assert store.domains() == {}
            assert store.add_domain("example.com")

        return (lambda: identity.found(str(root), GUID, "encrypted_file")), check

    calls = list(every_death(mode, prepare).calls)
    assert calls[:10] == ["listdir", "open", "write", "fsync", "rename", "fsync", "open", "fsync", "close", "close"]


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", ["before", "after"])
def test_the_deletion_of_a_domain(new_store, mode):
    def prepare():
        store = new_store()

        def check(returned):
            assert is_whole(store, NEIGHBOUR)
            left = [address for address in (ADA, BOB) if is_whole(store, address)]
            again = reopened(store)
            if returned:
                assert left == []
                assert "example.com" not in again.domains()
            elif "example.com" in again.domains():
                again.delete_domain("example.com", lambda _: None)  # the administrator says it once more
            with pytest.raises(Missing):
                again.delete_domain("example.com", lambda _: None)
            assert sorted(os.listdir(store.root)) == [identity.MARKER, "example.org"]
            assert is_whole(store, NEIGHBOUR)
            assert again.add_domain("example.com")
            assert again.add_mailbox(ADA).listing() == []

        return (lambda: store.delete_domain("example.com", lambda _: None)), check

    calls = every_death(mode, prepare).calls
    assert (calls.count("unlink"), calls.count("rename"), calls.count("rmdir")) == (5, 2, 3)


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", ["before", "after"])
def test_the_deletion_of_a_mailbox(new_store, mode):
    def prepare():
        store = new_store()

        def check(returned):
            still_there = is_whole(store, ADA)
            assert not (returned and still_there)
            assert is_whole(store, BOB)
            assert is_whole(store, POSTMASTER, owner=BOB)
            again = reopened(store)
            if still_there:
                again.delete_mailbox(ADA)
            assert again.add_mailbox(ADA).listing() == []
            again.delete_mailbox(ADA)
            assert sorted(os.listdir(f"{store.root}/example.com")) == ["P3_bob.mbx", "P3_postmaster.mbx"]

        return (lambda: store.delete_mailbox(ADA)), check

    calls = every_death(mode, prepare).calls
    assert (calls.count("rename"), calls.count("unlink"), calls.count("rmdir")) == (1, 2, 1)


ADDITIONS = {
    "a domain": (lambda store: store.add_domain("example.net"), lambda store: store.domain_path("example.net")),
    "a mailbox": (lambda store: store.add_mailbox(EVE), lambda store: store.find(EVE)),
    "an alias": (lambda store: store.add_alias(EVE, BOB), lambda store: store.find(EVE)),
    "a lock": (
        lambda store: store.set_lock(store.find(ADA).path, locked=True),
        lambda store: store.is_locked(store.find(ADA).path),
    ),
}


@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("what", ADDITIONS)
def test_the_addition_of(new_store, what, mode):
    add, find = ADDITIONS[what]

    def prepare():
        store = new_store()

        def check(returned):
            if returned:
                assert find(reopened(store))
            else:
                with suppress(Exists):
                    add(reopened(store))  # the administrator says it once more
                assert find(reopened(store))
            for address in (ADA, BOB, NEIGHBOUR):
                assert is_whole(store, address)

        return (lambda: add(store)), check

    calls = every_death(mode, prepare).calls
    assert "fsync" in calls
