"""An administrator's less ordinary days: aliases that lead nowhere, answers that never come, numbers that must agree."""

import os
from pathlib import Path

import pytest
from winpop_console import Console

from store.domain import MailStore

ADA = "ada@example.com"


@pytest.fixture
def console(tmp_path, store_root, ledger_url, capsys, monkeypatch) -> Console:
    found = Console.build(tmp_path, store_root, ledger_url, capsys, monkeypatch)
    found.done("add", "example.com")
    found.done("add", ADA, "/createuser", "lovelace")
    return found


@pytest.fixture
def domain(console: Console, mail_store: MailStore) -> Path:
    return Path(mail_store.domain_path("example.com"))


@pytest.mark.parametrize("target", ["P3_gone.mbx", "P3_lost.mbx", "../../../etc"])
def test_an_alias_that_leads_nowhere_can_be_deleted(console: Console, domain: Path, target: str) -> None:
    (domain / "P3_lost.mbx").symlink_to(target)
    assert console.done("delete", "lost@example.com").out.startswith("Alias lost@example.com deleted.")
    assert not os.path.lexists(domain / "P3_lost.mbx")
    assert console.done("list", "example.com").out == f"{ADA}\n"


def test_an_alias_that_leads_nowhere_is_no_mailbox_of_the_statistics(console: Console, domain: Path) -> None:
    (domain / "P3_lost.mbx").symlink_to("P3_gone.mbx")
    (row,) = console.done("stat", "--json").json["statistics"]
    assert row == {"domain": "example.com", "mailboxes": 1, "messages": 0, "octets": 0}


def test_who_ends_the_input_instead_of_an_answer_has_not_said_yes(console: Console, domain: Path) -> None:
    for name in (ADA, "example.com"):
        outcome = console.type("delete", name, stdin="", terminal=True)
        assert (outcome.code, outcome.err) == (1, "winpop: nothing was deleted\n")
    assert (domain / "P3_ada.mbx").is_dir()
