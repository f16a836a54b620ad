"""A mailbox of our own messages: delivered, listed, read, removed."""

import errno
import os
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails, lies, works
from hypothesis import given, settings
from hypothesis import strategies as st

from store import files
from store.errors import Full, HalfRemoved, LeaseLapsed, Unavailable
from store.mailbox import CHUNK_OCTETS, Mailbox, newest, read_setting, write_setting
from store.message import Message, canonical, read_name
from store.names import NameSource

NAMES = NameSource()


@pytest.fixture
def mailbox(tmp_path):
    return Mailbox(str(tmp_path), "example.com/ada")


def content_of(mailbox, message):
    reading = mailbox.read(message)
    return b"".join(iter(reading.next_chunk, b""))


def names_in(mailbox):
    return sorted(os.listdir(mailbox.path))


def yes():
    return True


def deliver(mailbox, *contents):
    return [mailbox.deliver(NAMES, [content]) for content in contents]


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I6")
def test_what_was_delivered_is_listed_and_read(mailbox):
    message = mailbox.deliver(NAMES, [b"Subject: hello\n", b"\n", b"world"])

    snapshot = mailbox.snapshot(mailbox.listing())
    assert snapshot.messages == (message,)
    assert snapshot.octets == message.octets == len(b"Subject: hello\r\n\r\nworld\r\n")
    assert content_of(mailbox, message) == b"Subject: hello\r\n\r\nworld\r\n"
    assert names_in(mailbox) == [message.name]


@pytest.mark.invariant("I1")
@settings(deadline=None, max_examples=60)
@given(chunks=st.lists(st.binary(max_size=40) | st.text("\r\n.x", max_size=9).map(str.encode), max_size=8))
def test_any_bytes_in_any_chunks_come_back_as_they_rest(tmp_path_factory, chunks):
    mailbox = Mailbox(str(tmp_path_factory.mktemp("mailbox")), "example.com/ada")
    message = mailbox.deliver(NAMES, chunks)
    (listed,) = mailbox.snapshot(mailbox.listing()).messages
    content = content_of(mailbox, listed)
    assert listed == message
    assert content == b"".join(canonical([b"".join(chunks)]))
    assert listed.octets == len(content) == os.path.getsize(f"{mailbox.path}/{listed.name}")


def test_a_large_message_is_read_in_chunks_with_one_descriptor(mailbox):
    (message,) = deliver(mailbox, b"x" * (CHUNK_OCTETS + 1))
    before = len(os.listdir("/proc/self/fd"))
    reading = mailbox.read(message)
    assert len(reading.next_chunk()) == CHUNK_OCTETS
    assert len(os.listdir("/proc/self/fd")) == before + 1
    reading.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert reading.next_chunk() == b""


def test_the_listing_is_in_the_order_of_arrival(mailbox):
    sent = deliver(mailbox, b"1", b"2", b"3")
    assert list(mailbox.snapshot(list(reversed(mailbox.listing()))).messages) == sent


def test_a_message_that_is_gone_says_so_at_the_first_chunk(mailbox):
    (message,) = deliver(mailbox, b"hello")
    os.unlink(f"{mailbox.path}/{message.name}")
    with pytest.raises(FileNotFoundError):
        mailbox.read(message).next_chunk()


@pytest.mark.invariant("I9")
def test_a_mailbox_whose_directory_went_away_asks_to_try_later(mailbox, monkeypatch):
    (message,) = deliver(mailbox, b"hello")
    os.rename(mailbox.path, f"{mailbox.path}-gone")

    for attempt in (lambda: mailbox.deliver(NAMES, [b"x"]), mailbox.listing, lambda: mailbox.sweep(NAMES)):
        with pytest.raises(Unavailable):
            attempt()
    assert mailbox.remove([message], yes) == [message]
    Path(mailbox.path).touch()  # a file in its place is no mailbox either
    with pytest.raises(Unavailable):
        mailbox.deliver(NAMES, [b"x"])
    assert mailbox.remove([message], yes) == [message]


@pytest.mark.invariant("I2")
def test_a_mailbox_removed_during_a_delivery_takes_nothing(mailbox):
    def chunks():
        yield b"first"
        os.rename(mailbox.path, f"{mailbox.path}-gone")
        yield b"second"

    with pytest.raises(Unavailable, match="during a delivery"):
        mailbox.deliver(NAMES, chunks())


def test_a_source_that_fails_leaves_nothing(mailbox):
    def chunks():
        yield b"first"
        raise ConnectionError

    with pytest.raises(ConnectionError):
        mailbox.deliver(NAMES, chunks())
    assert names_in(mailbox) == []


@pytest.mark.invariant("I2")
@pytest.mark.parametrize(("number", "failure"), [(errno.ENOSPC, Full), (errno.EDQUOT, Full), (errno.EIO, Unavailable)])
def test_a_full_or_failing_share_takes_nothing(mailbox, monkeypatch, number, failure):
    monkeypatch.setattr(files, "os", FailingDisk(write=[works, fails(number)]))
    with pytest.raises(failure):
        mailbox.deliver(NAMES, [b"first", b"second"])
    assert names_in(mailbox) == []


@pytest.mark.invariant("I4")
def test_only_the_named_messages_are_removed(mailbox):
    first, second, third = deliver(mailbox, b"1", b"2", b"3")
    assert mailbox.remove([first, third], yes) == []
    assert names_in(mailbox) == [second.name]


@pytest.mark.invariant("I4")
def test_mail_that_arrived_after_the_snapshot_is_not_touched(mailbox):
    deliver(mailbox, b"1", b"2")
    marked = mailbox.snapshot(mailbox.listing()).messages
    (late,) = deliver(mailbox, b"3")
    assert mailbox.remove(marked, yes) == []
    assert names_in(mailbox) == [late.name]


@pytest.mark.invariant("I5")
def test_a_lease_that_lapses_during_the_removal_stops_it_at_the_next_message(mailbox):
    sent = deliver(mailbox, b"1", b"2", b"3")
    looks = iter([True, False])
    with pytest.raises(HalfRemoved):
        mailbox.remove(sent, lambda: next(looks))
    assert names_in(mailbox) == [message.name for message in sent[1:]]


@pytest.mark.invariant("I5")
def test_without_the_claim_nothing_is_removed(mailbox):
    sent = deliver(mailbox, b"1")
    with pytest.raises(LeaseLapsed) as lapsed:
        mailbox.remove(sent, lambda: False)
    assert type(lapsed.value) is LeaseLapsed
    assert names_in(mailbox) == [sent[0].name]


def test_a_message_that_somebody_removed_before_is_removed(mailbox):
    sent = deliver(mailbox, b"1")
    assert mailbox.remove(sent, yes) == []
    assert mailbox.remove(sent, yes) == []


def test_a_removal_whose_answer_was_lost_is_a_removal(mailbox, monkeypatch):
    sent = deliver(mailbox, b"1")
    monkeypatch.setattr(files, "os", FailingDisk(unlink=lies(errno.ENOENT)))
    assert mailbox.remove(sent, yes) == []
    assert names_in(mailbox) == []


def test_what_the_share_refuses_to_remove_is_left_and_told(mailbox, monkeypatch):
    first, second = deliver(mailbox, b"1", b"2")
    monkeypatch.setattr(files, "os", FailingDisk(unlink=[fails(errno.EIO)]))
    assert mailbox.remove([first, second], yes) == [first]
    assert names_in(mailbox) == [first.name]


def test_a_message_is_read_by_its_name_only(mailbox):
    (message,) = deliver(mailbox, b"hello")
    assert read_name(message.name) == message
    assert Message(message.uid, 7, message.name) == message


def test_the_newest_setting_wins_whatever_the_order():
    listing = [".auth-000002-b", ".auth-000010-a", ".auth-000009-z", ".auth-x-1", ".auth-3", ".lock-000099-a-on"]
    assert newest(listing, "auth").name == ".auth-000010-a"
    assert newest(listing, "lock").state == "on"
    assert newest([], "auth") is None


def test_a_new_value_replaces_the_old_one(mailbox):
    assert read_setting(mailbox.path, mailbox.listing(), "auth") is None
    write_setting(mailbox.path, NAMES, "auth", b"old")
    name = write_setting(mailbox.path, NAMES, "auth", b"new")
    setting, content = read_setting(mailbox.path, mailbox.listing(), "auth")
    assert (setting.name, setting.number, content) == (name, 2, b"new")
    assert names_in(mailbox) == [name]


def test_two_administrators_at_one_instant_agree_on_one_value(mailbox, monkeypatch):
    before = mailbox.listing()
    write_setting(mailbox.path, NAMES, "auth", b"mine")
    monkeypatch.setattr(files, "list_names", lambda _: before)  # the other one listed at the same instant
    write_setting(mailbox.path, NAMES, "auth", b"yours")
    monkeypatch.undo()
    listing = mailbox.listing()
    assert len(listing) == 2
    seen = {read_setting(mailbox.path, order, "auth")[1] for order in (listing, listing[::-1])}
    assert len(seen) == 1


def test_a_value_replaced_between_listing_and_reading_is_looked_for_again(mailbox):
    write_setting(mailbox.path, NAMES, "auth", b"old")
    old_listing = mailbox.listing()
    write_setting(mailbox.path, NAMES, "auth", b"new")
    assert read_setting(mailbox.path, old_listing, "auth")[1] == b"new"


def test_a_value_that_changes_all_the_time_cannot_be_told(mailbox, monkeypatch):
    monkeypatch.setattr(files, "list_names", lambda _: [".auth-000009-x"])
    with pytest.raises(Unavailable):
        read_setting(mailbox.path, [".auth-000008-x"], "auth")
