"""Messages of other programs in an adopted mailbox, and the litter that is swept."""

import errno
import os
import time
from pathlib import Path

import pytest
from failing_disk import FailingDisk, fails

from store import files
from store import mailbox as mailbox_module
from store.errors import Unavailable
from store.mailbox import LITTER_SECONDS, Mailbox, OctetCounts, write_setting
from store.names import NameSource

NAMES = NameSource()
FOREIGN = {
    "P347865.eml": "P347865",
    "UPPER.EML": None,
    "a note to self.eml": None,
    "x" * 100 + ".eml": None,
    "caf\u00e9.eml": None,
    "plain.eml": "plain",
}


@pytest.fixture
def mailbox(tmp_path):
    return Mailbox(str(tmp_path), "example.com/ada")


def content_of(mailbox, message):
    reading = mailbox.read(message)
    return b"".join(iter(reading.next_chunk, b""))


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_message_is_listed_and_sent_with_crlf(mailbox, name):
    Path(mailbox.path, name).write_bytes(b"Subject: old\n\nbare lf\r\nand not")
    (message,) = mailbox.snapshot(mailbox.listing()).messages
    assert message.name == name
    assert 1 <= len(message.uid) <= 70
    assert all(0x21 <= ord(character) <= 0x7E for character in message.uid)
    assert FOREIGN[name] in (None, message.uid)
    assert content_of(mailbox, message) == b"Subject: old\r\n\r\nbare lf\r\nand not\r\n"
    assert message.octets == len(content_of(mailbox, message))
    assert mailbox.remove([message], lambda: True) == []
    assert os.listdir(mailbox.path) == []


def test_foreign_and_own_messages_stand_in_one_listing_with_different_uids(mailbox):
    for name in FOREIGN:
        Path(mailbox.path, name).write_bytes(b"x\r\n")
    own = mailbox.deliver(NAMES, [b"hello"])
    Path(mailbox.path, "Thumbs.db").touch()
    snapshot = mailbox.snapshot(mailbox.listing())
    assert len({message.uid for message in snapshot.messages}) == len(FOREIGN) + 1
    assert snapshot.octets == 3 * len(FOREIGN) + own.octets


def test_an_empty_foreign_message_is_one_empty_line(mailbox):
    Path(mailbox.path, "empty.eml").touch()
    assert mailbox.snapshot(mailbox.listing()).octets == 2


def test_a_foreign_message_that_is_gone_is_left_out(mailbox):
    assert mailbox.snapshot(["gone.eml"]).messages == ()


def test_octets_are_counted_once_until_the_file_changes(mailbox, monkeypatch):
    counts = OctetCounts()
    path = Path(mailbox.path, "old.eml")
    path.write_bytes(b"1\n")
    assert counts.octets(str(path)) == 3
    monkeypatch.setattr(mailbox_module, "_chunks", lambda _: pytest.fail("it was read again"))
    assert counts.octets(str(path)) == 3
    monkeypatch.undo()
    path.write_bytes(b"1\n2\n")
    assert counts.octets(str(path)) == 6


def test_only_so_many_counts_are_remembered(mailbox, monkeypatch):
    monkeypatch.setattr(mailbox_module, "COUNTED_MAX", 2)
    counts = OctetCounts()
    for name in "abc":
        Path(mailbox.path, name).write_bytes(b"1\n")
        counts.octets(f"{mailbox.path}/{name}")
    assert len(counts._counted) == 2


def test_a_share_that_fails_at_a_foreign_message_is_unavailable(mailbox, monkeypatch):
    Path(mailbox.path, "old.eml").write_bytes(b"x")
    for call in ("stat", "open", "read"):
        monkeypatch.setattr(mailbox_module, "os", FailingDisk(**{call: fails(errno.EIO)}))
        with pytest.raises(Unavailable):
            OctetCounts().octets(f"{mailbox.path}/old.eml")


# Litter


def aged(mailbox, name, seconds):
    path = Path(mailbox.path, name)
    path.touch()
    os.utime(path, (time.time() - seconds, time.time() - seconds))
    return name


def test_old_litter_is_swept_and_everything_else_stays(mailbox):
    message = mailbox.deliver(NAMES, [b"hello"])
    current = write_setting(mailbox.path, NAMES, "auth", b"sealed")
    old_age, young = LITTER_SECONDS + 60, LITTER_SECONDS - 60
    litter = {
        aged(mailbox, ".tmp-1", old_age),
        aged(mailbox, ".auth-000000-1", old_age),
        aged(mailbox, ".lock-000001-1-on", old_age),
    }
    kept = {
        message.name,
        current,
        aged(mailbox, ".tmp-2", young),
        aged(mailbox, ".lock-000002-1-off", old_age),
        aged(mailbox, ".quota-1", old_age),
        aged(mailbox, "foreign.eml", old_age),
        aged(mailbox, "notes.txt", old_age),
    }
    for name in (message.name, current):
        aged(mailbox, name, old_age)

    assert set(mailbox.sweep(NAMES)) == litter
    assert set(mailbox.listing()) == kept
    assert mailbox.sweep(NAMES) == []


@pytest.mark.parametrize("days", [-7, 7])
def test_a_node_whose_clock_jumped_sweeps_no_running_delivery(mailbox, monkeypatch, days):
    jumped = time.time() + days * 24 * 3600
    names = NameSource(clock=lambda: jumped)
    monkeypatch.setattr(time, "time", lambda: jumped)
    Path(mailbox.path, ".tmp-running").touch()
    assert mailbox.sweep(names) == []
    assert mailbox.listing() == [".tmp-running"]


def test_age_is_what_the_servers_clock_says(mailbox, monkeypatch):
    Path(mailbox.path, ".tmp-1").touch()
    real = files.modified_seconds
    ahead = {".tmp-1": 0.0}  # the server stamps the probe a week after the litter
    week = 7 * 24 * 3600
    monkeypatch.setattr(files, "modified_seconds", lambda path: real(path) + ahead.get(os.path.basename(path), week))
    assert mailbox.sweep(NAMES) == [".tmp-1"]


def test_a_mailbox_without_litter_costs_a_sweep_nothing(mailbox, monkeypatch):
    mailbox.deliver(NAMES, [b"hello"])
    disk = FailingDisk()
    monkeypatch.setattr(files, "os", disk)
    assert mailbox.sweep(NAMES) == []
    assert disk.calls == ["listdir"]


def test_litter_that_another_node_sweeps_at_the_same_time_is_no_failure(mailbox, monkeypatch):
    monkeypatch.setattr(Mailbox, "listing", lambda _: [".tmp-gone"])
    assert mailbox.sweep(NAMES) == []


def test_a_sweep_leaves_no_probe_behind_when_it_fails(mailbox, monkeypatch):
    aged(mailbox, ".tmp-1", LITTER_SECONDS + 60)
    monkeypatch.setattr(files, "os", FailingDisk(stat=fails(errno.EIO)))
    with pytest.raises(Unavailable):
        mailbox.sweep(NAMES)
    assert os.listdir(mailbox.path) == [".tmp-1"]
