"""A node is killed at every system call of a delivery, a removal, and a change of a password."""

import itertools
import os
import time

import pytest
from support import GUID

from crash.killing import MODES, every_death
from store.credential import Credential, seal, unseal
from store.identity import derived_key
from store.mailbox import DRAFT_PREFIX, LITTER_SECONDS, Mailbox, read_setting, write_setting
from store.message import canonical, read_name
from store.names import NameSource

NAMES = NameSource()
STORE = "4f6f9a5e-0d9c-4b53-8d59-a5f6d2f3a111"
KEY = derived_key(GUID, STORE, "credentials")
OLD, NEW = Credential.of("old"), Credential.of("new")

CHUNKS = [b"Subject: new\n\n", b"first\r", b"\nsecond\n", b"x" * 1000]
WHOLE = b"".join(canonical(CHUNKS))
DELIVERY = ["open", *["write"] * (len(CHUNKS) + 1), "fsync", "rename", "fsync", "open", "fsync", "close", "close"]


@pytest.fixture
def new_mailbox(tmp_path):
    """Makes mailboxes with three old messages and the old password."""
    numbers = itertools.count()

    def make():
        path = tmp_path / f"P3_ada{next(numbers)}.mbx"
        path.mkdir()
        mailbox = Mailbox(str(path), "example.com/ada")
        sent = {mailbox.deliver(NAMES, [text]): text + b"\r\n" for text in (b"one", b"two", b"three")}
        write_setting(mailbox.path, NAMES, "auth", seal(OLD, KEY, STORE))
        return mailbox, sent

    return make


def content_of(mailbox, message):
    reading = mailbox.read(message)
    return b"".join(iter(reading.next_chunk, b""))


def messages_in(mailbox):
    return {message: content_of(mailbox, message) for message in mailbox.snapshot(mailbox.listing()).messages}


def every_message_is_complete(mailbox):
    for name in mailbox.listing():
        if name.endswith(".eml"):
            message = read_name(name)
            assert message is not None
            assert os.path.getsize(f"{mailbox.path}/{name}") == message.octets


def password_is(mailbox, *possible):
    found = read_setting(mailbox.path, mailbox.listing(), "auth")
    assert found is not None
    assert unseal(found[1], KEY, STORE) in possible


def young_litter_stays(mailbox):
    """It may be the work of a process that lives."""
    before = mailbox.listing()
    assert mailbox.sweep(NAMES) == []
    assert sorted(mailbox.listing()) == sorted(before)


def still_works(mailbox):
    """Take mail, give it out, remove it, change the password; then no litter stays for ever."""
    before = messages_in(mailbox)
    message = mailbox.deliver(NAMES, [b"after the crash"])
    assert messages_in(mailbox) == before | {message: b"after the crash\r\n"}
    assert mailbox.remove([message], lambda: True) == []

    long_ago = time.time() - LITTER_SECONDS - 60
    for name in mailbox.listing():
        os.utime(f"{mailbox.path}/{name}", (long_ago, long_ago))
    mailbox.sweep(NAMES)
    assert mailbox.litter(mailbox.listing()) == []
    assert not any(name.startswith(DRAFT_PREFIX) for name in mailbox.listing())
    assert messages_in(mailbox) == before
    password_is(mailbox, OLD, NEW)

    write_setting(mailbox.path, NAMES, "auth", seal(NEW, KEY, STORE))
    password_is(mailbox, NEW)


@pytest.mark.invariant("I1")
@pytest.mark.invariant("I2")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", MODES)
def test_a_delivery(new_mailbox, mode):
    arrived = []

    def prepare():
        mailbox, sent = new_mailbox()

        def check(returned):
            every_message_is_complete(mailbox)
            now = messages_in(mailbox)
            assert now.items() >= sent.items()
            added = [content for message, content in now.items() if message not in sent]
            assert added in ([], [WHOLE])
            if returned:
                assert added == [WHOLE]
            arrived.append(bool(added))
            password_is(mailbox, OLD)
            young_litter_stays(mailbox)
            still_works(mailbox)

        return (lambda: mailbox.deliver(NAMES, CHUNKS)), check

    lived = every_death(mode, prepare)

    assert list(lived.calls) == DELIVERY
    # The instant of delivery is the rename: never before it, always after it.
    if mode != "half":
        instant = DELIVERY.index("rename") + (mode == "before")
        assert arrived == [at >= instant for at in range(len(DELIVERY) + 1)]
    else:
        assert arrived == [False] * (len(CHUNKS) + 1) + [True]


@pytest.mark.invariant("I4")
@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_removal(new_mailbox, mode):
    def prepare():
        mailbox, sent = new_mailbox()
        one, two, three = sent

        def check(returned):
            every_message_is_complete(mailbox)
            now = messages_in(mailbox)
            assert now.items() <= sent.items()
            assert two in now
            if returned:
                assert set(now) == {two}
            password_is(mailbox, OLD)
            still_works(mailbox)

        return (lambda: mailbox.remove([one, three], lambda: True)), check

    assert list(every_death(mode, prepare).calls) == ["unlink", "unlink"]


@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", MODES)
def test_a_change_of_password(new_mailbox, mode):
    def prepare():
        mailbox, sent = new_mailbox()

        def check(returned):
            password_is(mailbox, *([NEW] if returned else [OLD, NEW]))
            every_message_is_complete(mailbox)
            assert messages_in(mailbox) == sent
            young_litter_stays(mailbox)
            still_works(mailbox)

        return (lambda: write_setting(mailbox.path, NAMES, "auth", seal(NEW, KEY, STORE))), check

    calls = list(every_death(mode, prepare).calls)
    assert calls == [
        "listdir",
        "open",
        "write",
        "fsync",
        "rename",
        "fsync",
        "open",
        "fsync",
        "close",
        "close",
        "unlink",
    ]


@pytest.mark.invariant("I7")
@pytest.mark.parametrize("mode", ["before", "after"])
def test_a_sweep(new_mailbox, mode):
    def prepare():
        mailbox, sent = new_mailbox()
        long_ago = time.time() - LITTER_SECONDS - 60
        for name in (".tmp-1", ".tmp-2", ".auth-000000-x"):
            with open(f"{mailbox.path}/{name}", "wb"):
                os.utime(f"{mailbox.path}/{name}", (long_ago, long_ago))

        def check(returned):
            assert messages_in(mailbox) == sent
            password_is(mailbox, OLD)
            if returned:
                assert mailbox.litter(mailbox.listing()) == []
            still_works(mailbox)

        return (lambda: mailbox.sweep(NAMES)), check

    calls = every_death(mode, prepare).calls
    assert calls.count("unlink") == 4  # three of litter, and the probe
