"""A share that was away for a moment: what was seen of it meanwhile says nothing about the mail store (I9)."""

import errno
import os
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails

from store import files, identity
from store.address import Address
from store.domain import FOLDED_SECONDS, MailStore
from store.errors import Missing, Unavailable
from store.names import NameSource

BOB, NOBODY = Address("bob", "example.com"), Address("nobody", "example.com")


@pytest.fixture
def adopted(store_root):
    """An adopted tree in upper case, and a node that has not looked at it yet. Its clock stands still."""
    path = Path(store_root, "EXAMPLE.COM", "p3_Bob.MBX")
    path.mkdir(parents=True)
    return MailStore(store_root, identity.load(store_root).store_id, NameSource(), clock=lambda: 0.0)


def unmount(store):
    os.rename(store.root, f"{store.root}-elsewhere")
    os.mkdir(store.root)


def mount(store):
    os.rmdir(store.root)
    os.rename(f"{store.root}-elsewhere", store.root)


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("seen_before", [False, True])
def test_mail_for_an_adopted_tree_is_taken_at_once_when_the_share_is_back(adopted, seen_before):
    if seen_before:
        adopted.find(BOB)
    unmount(adopted)
    with pytest.raises(Unavailable):
        adopted.find(BOB)
    mount(adopted)
    assert adopted.find(BOB).key == "example.com/bob"
    with pytest.raises(Missing):
        adopted.find(NOBODY)


@pytest.mark.invariant("I9")
def test_a_share_that_comes_back_between_the_listing_and_the_look_at_the_marker_loses_nobody(adopted, monkeypatch):
    unmount(adopted)
    real = identity.believe_missing

    def believe_missing(*arguments):
        if os.path.exists(f"{adopted.root}-elsewhere"):
            mount(adopted)
        return real(*arguments)

    monkeypatch.setattr(identity, "believe_missing", believe_missing)
    assert adopted.find(BOB).key == "example.com/bob"


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("number", [errno.ESTALE, errno.EIO, errno.EACCES])
@pytest.mark.parametrize("which", ["the store", "the domain"])
def test_one_listing_that_failed_is_not_remembered(adopted, monkeypatch, number, which):
    failing = adopted.root if which == "the store" else f"{adopted.root}/EXAMPLE.COM"

    def listdir(real, directory):
        return fails(number)(real) if directory == failing else real(directory)

    monkeypatch.setattr(files, "os", FailingDisk(listdir=listdir))
    if number != errno.ESTALE:
        with pytest.raises(Unavailable):
            adopted.find(BOB)
    else:  # The server says that the directory was removed; nobody can tell that from the truth.
        with pytest.raises((Missing, Unavailable)):
            adopted.find(BOB)
    monkeypatch.undo()
    assert adopted.find(BOB).key == "example.com/bob"


@pytest.mark.invariant("I9")
@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ETIMEDOUT])
@pytest.mark.parametrize("call", ["lstat", "stat", "listdir"])
def test_a_domain_directory_that_does_not_answer_makes_nothing_missing(adopted, monkeypatch, call, number):
    def answer(real, path, *arguments, **options):
        below = path.lower().startswith(f"{adopted.root}/example.com".lower())
        return fails(number)(real) if below else real(path, *arguments, **options)

    monkeypatch.setattr(files, "os", FailingDisk(**{call: answer}))
    with pytest.raises(Unavailable):
        adopted.find(BOB)
    monkeypatch.undo()
    assert adopted.find(BOB).key == "example.com/bob"


def test_a_mailbox_in_another_case_is_listed_once_in_a_while(adopted, monkeypatch):
    disk = FailingDisk()
    monkeypatch.setattr(files, "os", disk)
    for _ in range(50):
        adopted.find(BOB)
        with pytest.raises(Missing):
            adopted.find(NOBODY)
    assert disk.calls.count("listdir") == 2  # the store and the domain
    assert FOLDED_SECONDS > 0
