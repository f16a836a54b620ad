"""winpop list, stat, lock and unlock; claims that are broken; exit codes where the store or the ledger is away."""

from pathlib import Path

import pytest
from winpop_console import Console

from store.address import Address
from store.claim import ClaimRequest
from store.domain import MailStore
from store.identity import MARKER

ADA = "ada@example.com"


@pytest.fixture
def console(tmp_path, store_root, ledger_url, capsys, monkeypatch) -> Console:
    found = Console.build(tmp_path, store_root, ledger_url, capsys, monkeypatch)
    found.done("add", "example.com")
    found.done("add", ADA, "/createuser", "lovelace")
    return found


def deliver(mail_store: MailStore, content: bytes = b"a: b\r\n\r\nc\r\n") -> None:
    mail_store.find(Address.parse(ADA)).deliver(mail_store.names, [content])


def test_list(console: Console, mail_store: MailStore) -> None:
    assert console.done("list").out == "example.com\n"
    assert console.done("list", "example.com").out == f"{ADA}\n"
    console.done("add", "post@example.com", "/alias", ADA)
    console.done("add", "empty.example")
    console.done("lock", ADA)
    assert console.done("list", "example.com").out == f"{ADA}  locked\npost@example.com  -> {ADA}\n"
    assert console.done("list", "empty.example").out.startswith("No mailboxes yet")
    console.refused("list", "none.example", says="no domain none.example")
    mail_store.add_domain("by-hand.example")
    assert "by-hand.example  (not registered yet" in console.done("list").out
    Path(mail_store.domain_path("empty.example")).rmdir()
    assert "empty.example  (no directory; repeat: winpop add empty.example" in console.done("list").out


def test_list_shows_a_broken_alias_with_its_reason(console: Console, mail_store: MailStore) -> None:
    Path(f"{mail_store.domain_path('example.com')}/P3_loop.mbx").symlink_to("P3_loop.mbx")
    out = console.done("list", "example.com").out
    assert "loop@example.com  (the alias loop@example.com is part of a loop" in out
    rows = console.done("list", "example.com", "--json").json["mailboxes"]
    assert [(row["address"], bool(row["problem"])) for row in rows] == [(ADA, False), ("loop@example.com", True)]


def test_list_in_json(console: Console, mail_store: MailStore) -> None:
    deliver(mail_store)
    domain = {"domain": "example.com", "locked": False, "registered": True, "problem": ""}
    assert console.done("list", "--json").json == {"domains": [domain]}
    assert console.done("--json", "list", "example.com").json == {
        "mailboxes": [
            {
                "address": ADA,
                "alias_of": None,
                "locked": False,
                "messages": 1,
                "octets": 11,
                "has_password": True,
                "problem": "",
            }
        ]
    }


def test_stat_counts_what_a_client_would_get(console: Console, mail_store: MailStore) -> None:
    deliver(mail_store, b"a: b\n\nc")
    deliver(mail_store, b"a: b\r\n\r\nc\r\n")
    console.done("add", "post@example.com", "/alias", ADA)
    (line,) = console.done("stat").out.splitlines()
    assert line.split() == ["example.com", "1", "mailboxes", "2", "messages", "22", "octets"]
    lines = console.done("stat", "example.com").out.splitlines()
    assert lines[0].split() == [ADA, "2", "messages", "22", "octets"]
    assert console.done("stat", "--json").json == {
        "statistics": [{"domain": "example.com", "mailboxes": 1, "messages": 2, "octets": 22}]
    }


def test_lock_and_unlock_a_mailbox(console: Console, mail_store: MailStore) -> None:
    path = mail_store.find(Address.parse(ADA)).path
    assert console.done("lock", ADA).out == f"Mailbox {ADA} is now locked.\n"
    assert console.done("lock", ADA).out == f"Mailbox {ADA} was locked.\n"
    assert mail_store.is_locked(path)
    console.done("add", "post@example.com", "/alias", ADA)
    out = console.done("unlock", "post@example.com").out
    assert out == f"Mailbox {ADA} (the target of the alias post@example.com) is now unlocked.\n"
    assert not mail_store.is_locked(path)
    assert console.done("unlock", ADA, "--json").json == {"mailbox": ADA, "locked": False}
    console.refused("lock", "bob@example.com", says="no mailbox bob@example.com")


def test_in_a_locked_domain_no_single_mailbox_can_be_unlocked(console: Console) -> None:
    console.done("lock", ADA)
    assert console.done("lock", "example.com").out == "Domain example.com is now locked.\n"
    console.refused("unlock", ADA, says="the domain example.com is locked, so no single mailbox can be unlocked")
    assert console.done("list").out == "example.com  locked\n"
    console.done("unlock", "example.com")
    console.done("unlock", ADA)
    console.refused("lock", "none.example", says="no domain none.example")


def test_a_lock_is_registered_so_that_every_node_sees_it(console: Console) -> None:
    admin = console.admin()
    console.done("lock", "example.com")
    assert [r.locked for r in admin._registry.changes_after(0)] == [True]
    console.done("unlock", "example.com")
    assert [r.locked for r in admin._registry.changes_after(0)] == [False]
    assert admin.registrations_version() == 3


def test_who_holds_a_claim_and_breaking_it(console: Console) -> None:
    admin = console.admin()
    table = admin._claims
    assert admin.claims() == []
    assert admin.break_claim(ADA).facts == {"broken": False}
    table.beat("n1~a.1", "join", "n1", '{"lease": "n1~a.1"}', "e")
    set_epoch_old(admin)
    assert table.exchange("n1~a.1", [ClaimRequest("take", "example.com/ada", 1)]) == ["ok"]
    assert [(claim.mailbox, claim.node) for claim in admin.claims()] == [("example.com/ada", "n1")]
    report = admin.break_claim(ADA)
    assert report.facts == {"broken": True, "node": "n1"}
    assert admin.claims() == []
    assert table.exchange("n1~a.1", [ClaimRequest("confirm", "example.com/ada", 1)]) == ["lost"]


def set_epoch_old(admin) -> None:
    """Let the grace of a new ledger be over without waiting for it."""
    redis, key = admin._ledger._redis, admin._claims._keys.epoch
    redis.set(key, redis.get(key).rpartition(" ")[0] + " 0")


@pytest.mark.invariant("I9")
def test_a_store_that_is_not_mounted_is_refused_and_nothing_is_made(console: Console, store_root: str) -> None:
    marker = Path(store_root, MARKER)
    content = marker.read_bytes()
    marker.unlink()
    console.refused("add", "new.example", says="has no marker")
    console.refused("list", says="has no marker")
    marker.write_bytes(content)
    assert console.done("list").out == "example.com\n"


@pytest.mark.invariant("I10")
def test_a_ledger_that_does_not_answer_is_exit_75_and_leaves_no_directory(
    console: Console, ledger_url: str, mail_store: MailStore
) -> None:
    text = console.config.read_text()
    console.config.write_text(text.replace(ledger_url, "redis://user:hunter2@127.0.0.1:1/0"))
    outcome = console.refused("add", "new.example", code=75, says="does not answer")
    assert "hunter2" not in outcome.err
    assert list(mail_store.domains()) == ["example.com"]
    console.refused("delete", "example.com", "/y", code=75, says="does not answer")
    assert list(mail_store.domains()) == ["example.com"]
    # What needs no ledger is done without one.
    console.done("changepwd", ADA, "byron")
    console.done("stat", "example.com")


def test_another_guid_or_a_bad_configuration_is_refused(console: Console) -> None:
    text = console.config.read_text()
    console.config.write_text(text.replace("5f1c2f5e", "00000000"))
    console.refused("list", says="the GUID of this node is not the one of the mail store")
    console.config.write_text("guid: x\n")
    console.refused("list", says="guid needs a GUID")
    console.config.unlink()
    console.refused("list", says="--config FILE or MAILROOT_CONFIG")
