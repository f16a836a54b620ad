"""A node dies at a system call, and the next one that takes up its work dies too."""

import itertools
import os
import time
from pathlib import Path

import pytest
from support import GUID

from crash.killing import MODES, every_death, life
from store import identity
from store.address import Address
from store.domain import MailStore
from store.errors import Missing
from store.mailbox import DRAFT_PREFIX, LITTER_SECONDS, Mailbox, write_setting
from store.message import canonical
from store.names import NameSource

NEIGHBOUR = Address("ada", "example.org")
SECOND_DEATHS = range(1, 40, 5)  # Every pair would be a thousand deaths; the first ones are all tried.


@pytest.fixture
def new_adopted_store(tmp_path):
    """Makes stores with an adopted domain in upper case, a deletion that was begun long ago, and a neighbour."""
    numbers = itertools.count()

    def make():
        root = tmp_path / f"mailroot{next(numbers)}"
        root.mkdir()
        store = MailStore(str(root), identity.found(str(root), GUID, "encrypted_file").store_id, NameSource())
        for directory in ("p3_Bob.MBX/folder", "P3_eve.mbx", ".deleted-x-mal.mbx"):
            (root / "EXAMPLE.COM" / directory).mkdir(parents=True)
        for name in ("p3_Bob.MBX/P347865.EML", "p3_Bob.MBX/folder/old.eml", ".deleted-x-mal.mbx/one.eml"):
            (root / "EXAMPLE.COM" / name).write_bytes(b"old\n")
        os.symlink("p3_Bob.MBX", root / "EXAMPLE.COM/P3_postmaster.mbx")
        store.set_lock(f"{root}/EXAMPLE.COM", locked=True)
        store.add_domain(NEIGHBOUR.domain)
        store.add_mailbox(NEIGHBOUR).deliver(store.names, [b"hello"])
        return store

    return make


def delete(store):
    """The administrator on a fresh node says it; the domain may be gone already."""
    again = MailStore(store.root, store.store_id, NameSource())
    try:
        again.delete_domain("example.com", lambda _: None)
    except Missing:
        assert "example.com" not in again.domains()


def neighbour_is_whole(store):
    mailbox = store.find(NEIGHBOUR)
    (message,) = mailbox.snapshot(mailbox.listing()).messages
    assert mailbox.read(message).next_chunk() == b"hello\r\n"


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", ["before", "after"])
def test_the_deletion_of_an_adopted_domain(new_adopted_store, mode):
    def prepare():
        store = new_adopted_store()

        def check(_returned):
            neighbour_is_whole(store)
            delete(store)
            assert sorted(os.listdir(store.root)) == [identity.MARKER, "example.org"]
            neighbour_is_whole(store)

        return (lambda: delete(store)), check

    calls = every_death(mode, prepare).calls
    # bob and eve are moved away; three letters, the lock and the alias go; bob, its folder, eve, mal and the domain
    assert (calls.count("rename"), calls.count("rmdir")) == (2, 5)
    assert len(calls) >= 2 + 5 + 5


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("second", SECOND_DEATHS)
def test_the_repetition_of_a_deletion_that_dies_too(new_adopted_store, second):
    died_twice = 0
    for first in itertools.count(1, 4):
        store = new_adopted_store()
        if life(lambda store=store: delete(store), "after", first).returned:
            break
        died_twice += not life(lambda store=store: delete(store), "before", second).returned
        neighbour_is_whole(store)
        delete(store)
        assert sorted(os.listdir(store.root)) == [identity.MARKER, "example.org"]
    assert died_twice > 0


@pytest.fixture
def mailbox(tmp_path):
    path = tmp_path / "P3_ada.mbx"
    path.mkdir()
    return Mailbox(str(path), "example.com/ada")


def contents(mailbox):
    """Every message by its uid; each is as long as its name says (I1)."""
    found = {}
    for message in mailbox.snapshot(mailbox.listing()).messages:
        reading = mailbox.read(message)
        found[message.uid] = b"".join(iter(reading.next_chunk, b""))
        assert len(found[message.uid]) == message.octets
    return found


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I3")
@pytest.mark.parametrize("mode", MODES)
def test_deliveries_into_a_mailbox_where_all_before_them_died(mailbox, mode):
    """The litter of one is in the way of none, no uid comes twice, and exactly the litter is swept."""
    chunks = [b"one\n", b"two\r", b"\nthree"]
    whole = b"".join(canonical(chunks))
    known = {}
    deaths = 0
    for die_at in itertools.count(1):
        returned = life(lambda: mailbox.deliver(NameSource(), chunks), mode, die_at).returned
        now = contents(mailbox)
        assert now.items() >= known.items()
        added = [content for uid, content in now.items() if uid not in known]
        assert added in ([[whole]] if returned else [[], [whole]])
        known = now
        if returned:
            break
        deaths += 1
    assert deaths == (4 if mode == "half" else 12)  # open, 4 writes, fsync, rename, fsync, open, fsync, 2 closes

    write_setting(mailbox.path, NameSource(), "auth", b"sealed")
    Path(mailbox.path, ".nfs0001").write_bytes(b"")  # the server's own, and old
    before = set(mailbox.listing())
    long_ago = time.time() - LITTER_SECONDS - 60
    for name in before:
        os.utime(f"{mailbox.path}/{name}", (long_ago, long_ago))
    Path(mailbox.path, f"{DRAFT_PREFIX}running").write_bytes(b"young")
    litter = {name for name in before if name.startswith(DRAFT_PREFIX)}
    assert litter
    assert set(mailbox.sweep(NameSource())) == litter
    assert set(mailbox.listing()) == before - litter | {f"{DRAFT_PREFIX}running"}
    assert contents(mailbox) == known


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", MODES)
def test_a_delivery_that_fails_and_dies_while_it_cleans_up(tmp_path, mode):
    numbers = itertools.count()

    def chunks():
        yield b"half of a letter\n"
        message = "the client went away"
        raise ConnectionError(message)

    def prepare():
        path = tmp_path / f"P3_ada{next(numbers)}.mbx"
        path.mkdir()
        box = Mailbox(str(path), "example.com/ada")

        def deliver():
            with pytest.raises(ConnectionError):
                box.deliver(NameSource(), chunks())

        def check(returned):
            assert contents(box) == {}
            assert all(name.startswith(DRAFT_PREFIX) for name in box.listing())
            assert not (returned and box.listing())
            box.deliver(NameSource(), [b"again"])
            assert list(contents(box).values()) == [b"again\r\n"]

        return deliver, check

    assert list(every_death(mode, prepare).calls) == ["open", "write", "close", "unlink"]
