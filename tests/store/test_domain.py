"""Domains, mailboxes, aliases and locks as directories, links and names."""

import errno
import os
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails

from store import files
from store.address import Address
from store.domain import FOLDED_SECONDS, LINKS_MAX, MailStore
from store.errors import BrokenAlias, Exists, Missing, Unavailable
from store.names import NameSource

ADA, BOB = Address("ada", "example.com"), Address("bob", "example.com")
POSTMASTER = Address("postmaster", "example.com")


@pytest.fixture
def store(mail_store):
    mail_store.add_domain("example.com")
    return mail_store


def adopt(store, *parts):
    path = Path(store.root, *parts)
    path.mkdir(parents=True)
    return str(path)


def link(store, target, *parts):
    path = Path(store.root, *parts)
    path.symlink_to(target)
    return str(path)


def test_a_mailbox_that_was_added_is_found(store):
    added = store.add_mailbox(ADA)
    assert store.find(ADA) == added
    assert (added.key, added.path) == ("example.com/ada", f"{store.root}/example.com/P3_ada.mbx")
    assert store.domains() == {"example.com": f"{store.root}/example.com"}
    assert not store.add_domain("example.com")


@pytest.mark.parametrize("address", ["nobody@example.com", "ada@example.org", "nobody@example.org"])
def test_what_was_never_added_is_missing(store, address):
    store.add_mailbox(ADA)
    with pytest.raises(Missing):
        store.find(Address.parse(address))


def test_an_adopted_tree_is_matched_as_windows_would(mail_store):
    path = adopt(mail_store, "EXAMPLE.COM", "p3_Bob.MBX")
    assert (mail_store.find(BOB).path, mail_store.find(BOB).key) == (path, "example.com/bob")
    assert list(mail_store.domains()) == ["example.com"]
    assert [entry.address for entry in mail_store.entries("example.com")] == [BOB]
    assert not mail_store.add_domain("example.com")
    with pytest.raises(Exists):
        mail_store.add_mailbox(BOB)
    assert mail_store.delete_mailbox(BOB) == 0
    with pytest.raises(Missing):
        mail_store.find(BOB)


def test_an_alias_to_an_adopted_mailbox_is_one_claim_with_it(mail_store):
    adopt(mail_store, "EXAMPLE.COM", "P3_Bob.mbx")
    mail_store.add_alias(POSTMASTER, BOB)
    assert mail_store.find(POSTMASTER) == mail_store.find(BOB)


def test_strangers_who_guess_names_do_not_cost_a_listing_each_time(store_root, monkeypatch):
    now = [0.0]
    store = MailStore(store_root, "", NameSource(), clock=lambda: now[0])
    adopt(store, "example.com", "P3_ada.mbx")
    with pytest.raises(Unavailable):
        store.find(BOB)
    disk = FailingDisk()
    monkeypatch.setattr(files, "os", disk)
    with pytest.raises(Unavailable):
        store.find(BOB)
    assert "listdir" not in disk.calls
    adopt(store, "example.com", "p3_BOB.mbx")  # from Windows: seen when the folded listing is old enough
    now[0] += FOLDED_SECONDS
    assert store.find(BOB).key == "example.com/bob"


def test_a_mailbox_made_on_another_node_a_second_ago_is_found(store, monkeypatch):
    with pytest.raises(Missing):
        store.find(ADA)
    store.add_mailbox(ADA)
    monkeypatch.setattr(files, "os", FailingDisk(lstat=[fails(errno.ENOENT)]))  # the stale answer of an NFS client
    assert store.find(ADA).key == "example.com/ada"


# Aliases


def test_an_alias_is_the_mailbox_itself(store):
    mailbox = store.add_mailbox(ADA)
    assert store.add_alias(POSTMASTER, ADA) == mailbox
    assert store.find(POSTMASTER) == mailbox
    assert store.aliases() == {"example.com/ada": [POSTMASTER]}
    assert [(entry.address, entry.target) for entry in store.entries("example.com")] == [
        (ADA, None),
        (POSTMASTER, "example.com/ada"),
    ]


def test_an_alias_of_an_alias_and_in_another_domain_leads_to_the_mailbox_itself(store):
    mailbox = store.add_mailbox(ADA)
    store.add_domain("example.org")
    store.add_alias(POSTMASTER, ADA)
    store.add_alias(Address("root", "example.org"), POSTMASTER)
    assert store.find(Address("root", "example.org")) == mailbox
    assert os.readlink(f"{store.root}/example.org/P3_root.mbx") == "../example.com/P3_ada.mbx"


def test_names_are_taken_once_by_a_mailbox_or_an_alias(store):
    store.add_mailbox(ADA)
    store.add_alias(POSTMASTER, ADA)
    for address in (ADA, POSTMASTER):
        with pytest.raises(Exists):
            store.add_mailbox(address)
        with pytest.raises(Exists):
            store.add_alias(address, ADA)


def test_two_administrators_who_add_at_one_instant_make_one(store, monkeypatch):
    store.add_mailbox(ADA)
    store.add_alias(POSTMASTER, ADA)
    monkeypatch.setattr(store, "domains", dict)
    monkeypatch.setattr(files, "list_names", lambda _: [])
    assert not store.add_domain("example.com")
    with pytest.raises(Exists):
        store.add_mailbox(ADA)
    with pytest.raises(Exists):
        store.add_alias(POSTMASTER, ADA)


BROKEN = {
    "itself": "P3_bob.mbx",
    "outside, absolute": "/tmp",
    "outside, relative": "../../../../tmp/P3_x.mbx",
    "outside, beside": "../../mailroot-old/P3_x.mbx",
    "the store": "../",
    "the domain": ".",
    "the marker": "../.mailroot",
    "no mailbox directory": "../example.com",
}


@pytest.mark.parametrize("way", BROKEN)
def test_a_link_that_leads_astray_is_broken_and_keeps_the_mail(store, way):
    link(store, BROKEN[way], "example.com", "P3_bob.mbx")
    with pytest.raises(BrokenAlias) as broken:
        store.find(BOB)
    assert broken.value.temporary
    (entry,) = store.entries("example.com")
    assert entry.target == ""
    assert entry.problem == broken.value.detail
    assert store.aliases() == {}


def test_links_in_a_ring_are_a_loop_and_a_long_chain_is_not(store):
    link(store, "P3_b.mbx", "example.com", "P3_a.mbx")
    link(store, "P3_a.mbx", "example.com", "P3_b.mbx")
    with pytest.raises(BrokenAlias, match="loop"):
        store.find(Address("a", "example.com"))
    store.add_mailbox(ADA)
    previous = "P3_ada.mbx"
    for number in range(LINKS_MAX - 1):
        link(store, previous, "example.com", f"P3_chain{number}.mbx")
        previous = f"P3_chain{number}.mbx"
    assert store.find(Address(f"chain{LINKS_MAX - 2}", "example.com")).key == "example.com/ada"


def test_an_alias_whose_mailbox_is_gone_is_missing_and_can_be_deleted(store):
    store.add_mailbox(ADA)
    store.add_alias(POSTMASTER, ADA)
    store.delete_mailbox(ADA)
    with pytest.raises(Missing):
        store.find(POSTMASTER)
    assert store.delete_alias(POSTMASTER)
    with pytest.raises(Missing):
        store.delete_alias(POSTMASTER)


def test_deleting_an_alias_never_deletes_a_mailbox(store):
    store.add_mailbox(ADA)
    assert not store.delete_alias(ADA)
    assert store.find(ADA)


# Locks


def test_a_lock_is_set_and_taken_off_on_mailboxes_and_domains(store):
    for directory in (store.add_mailbox(ADA).path, store.domain_path("example.com")):
        assert not store.is_locked(directory)
        store.set_lock(directory, locked=True)
        assert store.is_locked(directory)
        store.set_lock(directory, locked=False)
        assert not store.is_locked(directory)


def test_a_domain_made_on_another_node_a_second_ago_is_found(store, monkeypatch):
    store.add_mailbox(ADA)
    monkeypatch.setattr(files, "os", FailingDisk(lstat=fails(errno.ENOENT)))
    assert store.domain_path("example.com") == f"{store.root}/example.com"
