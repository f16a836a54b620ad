"""Trees that Mailroot would not make itself, but may be given."""

import os
import unicodedata

import pytest

from store.address import Address
from store.domain import MailStore
from store.errors import BrokenAlias, Missing

ADA = Address.parse("ada@example.com")


@pytest.fixture
def store(mail_store: MailStore) -> MailStore:
    mail_store.add_domain("example.com")
    mail_store.add_mailbox(ADA)
    return mail_store


def test_a_domain_that_is_a_link_would_give_a_mailbox_two_claims(store):
    os.symlink("example.com", f"{store.root}/example.net")
    with pytest.raises(BrokenAlias, match="a domain can't be one"):
        store.find(Address.parse("ada@example.net"))
    assert list(store.domains()) == ["example.com"]


def test_a_file_where_a_mailbox_should_be_is_no_mailbox(store):
    open(f"{store.root}/example.com/P3_bob.mbx", "w").close()
    with pytest.raises(BrokenAlias):
        store.find(Address.parse("bob@example.com"))


def test_a_directory_inside_an_adopted_mailbox_goes_with_it(store):
    os.makedirs(f"{store.root}/example.com/P3_ada.mbx/old/older")
    open(f"{store.root}/example.com/P3_ada.mbx/old/older/1.eml", "w").close()
    assert store.delete_mailbox(ADA) == 1
    with pytest.raises(Missing):
        store.find(ADA)
    assert store.finish_deletions(f"{store.root}/example.com") == 0


def test_a_directory_that_is_named_like_a_message_is_none(store):
    mailbox = store.find(ADA)
    os.mkdir(f"{mailbox.path}/1.eml")
    assert mailbox.snapshot(mailbox.listing()).messages == ()


def test_a_tree_copied_from_a_mac_is_found(store):
    decomposed = unicodedata.normalize("NFD", "zoë")
    os.mkdir(f"{store.root}/example.com/P3_{decomposed}.mbx")
    assert store.find(Address.parse("zoë@example.com")).key == "example.com/zoë"
