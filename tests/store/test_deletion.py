"""What deletions leave, and what a store whose share has gone may say."""

import errno
import os
import shutil
import uuid
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails

from store import files, identity
from store.address import Address
from store.errors import Missing, StoreError, Unavailable
from store.names import NameSource

ADA, BOB = Address("ada", "example.com"), Address("bob", "example.com")
POSTMASTER = Address("postmaster", "example.com")


@pytest.fixture
def store(mail_store):
    mail_store.add_domain("example.com")
    for address in (ADA, BOB):
        mailbox = mail_store.add_mailbox(address)
        mailbox.deliver(mail_store.names, [b"hello"])
        mail_store.set_lock(mailbox.path, locked=False)
    mail_store.add_alias(POSTMASTER, BOB)
    return mail_store


def names_in(store, domain="example.com"):
    return sorted(os.listdir(f"{store.root}/{domain}"))


def test_a_mailbox_is_deleted_with_its_mail_and_nothing_else(store):
    assert store.delete_mailbox(ADA) == 1
    assert names_in(store) == ["P3_bob.mbx", "P3_postmaster.mbx"]


def test_a_domain_is_deleted_with_everything_in_it(store):
    store.set_lock(store.domain_path("example.com"), locked=True)
    seen = []
    assert store.delete_domain("example.com", seen.append) == 2
    assert seen == [ADA, BOB, POSTMASTER]
    assert store.domains() == {}
    with pytest.raises(Missing):
        store.delete_domain("example.com", seen.append)


def test_deleting_by_an_alias_deletes_the_mailbox_it_leads_to(store):
    assert store.delete_mailbox(POSTMASTER) == 1
    with pytest.raises(Missing):
        store.find(BOB)


def test_a_deletion_that_crashed_is_finished_by_the_next_one_in_the_domain(store):
    os.rename(f"{store.root}/example.com/P3_ada.mbx", f"{store.root}/example.com/.deleted-1-ada.mbx")
    with pytest.raises(Missing):
        store.find(ADA)
    assert [entry.address for entry in store.entries("example.com")] == [BOB, POSTMASTER]
    assert store.delete_mailbox(BOB) == 2
    assert names_in(store) == ["P3_postmaster.mbx"]


def test_the_name_of_a_deleted_mailbox_can_be_used_again_and_has_no_old_mail(store):
    os.rename(f"{store.root}/example.com/P3_ada.mbx", f"{store.root}/example.com/.deleted-1-ada.mbx")
    assert store.add_mailbox(ADA).listing() == []


def test_of_two_administrators_who_delete_one_mailbox_the_second_finds_none(store, monkeypatch):
    other_was_faster = NameSource()

    def next_uid():
        shutil.rmtree(f"{store.root}/example.com/P3_ada.mbx", ignore_errors=True)
        return other_was_faster.next_uid()

    monkeypatch.setattr(store.names, "next_uid", next_uid)
    with pytest.raises(Missing):
        store.delete_mailbox(ADA)


def test_two_nodes_may_finish_one_deletion(store, monkeypatch):
    os.mkdir(f"{store.root}/example.com/.deleted-1-eve.mbx")
    real = files.list_names

    def list_names(directory):
        if ".deleted-1" in directory:
            os.rmdir(directory)
        return real(directory)

    monkeypatch.setattr(files, "list_names", list_names)
    assert store.finish_deletions(f"{store.root}/example.com") == 0


# A share that is not there (I9)


def unmount(store):
    os.rename(store.root, f"{store.root}-elsewhere")
    os.mkdir(store.root)


ATTEMPTS = {
    "find": lambda store: store.find(ADA),
    "find a stranger": lambda store: store.find(Address("nobody", "example.com")),
    "find an alias": lambda store: store.find(POSTMASTER),
    "domain": lambda store: store.domain_path("example.com"),
    "domains": lambda store: store.domains(),
    "entries": lambda store: list(store.entries("example.com")),
    "add a domain": lambda store: store.add_domain("example.org"),
    "add a mailbox": lambda store: store.add_mailbox(Address("eve", "example.com")),
    "delete a mailbox": lambda store: store.delete_mailbox(ADA),
    "delete an alias": lambda store: store.delete_alias(POSTMASTER),
    "delete a domain": lambda store: store.delete_domain("example.com", print),
}


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("attempt", ATTEMPTS)
def test_an_unmounted_share_is_unavailable_and_never_missing(store, attempt):
    unmount(store)
    with pytest.raises(Unavailable):
        ATTEMPTS[attempt](store)
    assert os.listdir(store.root) == []


@pytest.mark.invariant("I9")
def test_a_share_that_goes_away_in_the_middle_of_finding_is_unavailable(store, monkeypatch):
    real = files.kind

    def kind(path):
        if not os.path.exists(f"{store.root}-elsewhere"):
            unmount(store)
        return real(path)

    monkeypatch.setattr(files, "kind", kind)
    with pytest.raises(Unavailable):
        store.find(ADA)


@pytest.mark.invariant("I9")
def test_another_store_at_the_same_place_is_unavailable(store):
    unmount(store)
    identity.found(store.root, uuid.uuid4(), "encrypted_file")
    with pytest.raises(Unavailable, match="another store"):
        store.find(ADA)


def found_or_failure(store, address):
    try:
        return store.find(address)
    except StoreError as failure:
        return failure


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("number", [errno.EIO, errno.ETIMEDOUT, errno.EACCES])
@pytest.mark.parametrize("call", ["lstat", "stat", "readlink", "readlink and lstat"])
@pytest.mark.parametrize("address", [ADA, POSTMASTER])
def test_a_hiccup_of_a_share_bounces_no_mail(store, monkeypatch, call, number, address):
    mailbox = store.find(address)
    with pytest.raises(Missing):
        store.find(Address("nobody", "example.com"))  # the folded listings are in memory now
    monkeypatch.setattr(files, "os", FailingDisk(**dict.fromkeys(call.split(" and "), fails(number))))
    found = found_or_failure(store, address)
    assert found == mailbox or found.temporary


@pytest.mark.invariant("I9")
def test_a_marker_that_cannot_be_read_makes_nothing_missing(store, monkeypatch):
    monkeypatch.setattr(files, "os", FailingDisk(read=fails(errno.EIO)))
    with pytest.raises(Unavailable):
        store.find(Address("nobody", "example.com"))


def test_files_that_are_no_domains_are_not_listed(store):
    Path(store.root, "example.net").touch()
    Path(store.root, "lost+found").mkdir()
    Path(store.root, ".snapshot").mkdir()
    assert list(store.domains()) == ["example.com"]
    with pytest.raises(Missing):
        store.find(Address("ada", "example.net"))


def test_a_domain_with_a_strangers_file_is_emptied_of_mail_and_then_the_operator_is_asked(store):
    Path(store.root, "example.com", "Thumbs.db").touch()
    with pytest.raises(StoreError, match="ENOTEMPTY"):
        store.delete_domain("example.com", lambda _: None)
    assert names_in(store) == ["Thumbs.db"]
