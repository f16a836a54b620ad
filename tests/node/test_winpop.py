"""winpop as an administrator types it, on a real store and a real ledger."""

import sys
from pathlib import Path

import pytest
from winpop_console import Console

from node import winpop
from store.address import Address
from store.domain import MailStore

ADA = "ada@example.com"


@pytest.fixture
def console(tmp_path, store_root, ledger_url, capsys, monkeypatch) -> Console:
    return Console.build(tmp_path, store_root, ledger_url, capsys, monkeypatch)


@pytest.fixture
def with_ada(console: Console) -> Console:
    console.done("add", "example.com")
    console.done("add", ADA, "/createuser", "lovelace")
    return console


def test_help_and_no_words(console: Console, capsys) -> None:
    for words in (["help"], ["/?"], ["-h"], ["HELP"]):
        assert winpop.run(words) == 0
        assert "winpop add Domain" in capsys.readouterr().out
    assert winpop.run([]) == 2
    with pytest.raises(SystemExit) as ended:
        winpop.main(["help"])
    assert ended.value.code == 0


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["frobnicate"], "'frobnicate' is no verb"),
        (["add"], "takes one domain or mailbox"),
        (["add", "a.com", "b.com"], "takes one domain or mailbox"),
        (["delete"], "takes one domain or mailbox"),
        (["lock", "a.com", "b.com"], "takes one domain or mailbox"),
        (["list", "a.com", "b.com"], "takes one domain"),
        (["changepwd", ADA], "takes a mailbox and its new password"),
        (["add", ADA, "/createuser"], "needs a value"),
        (["add", ADA, "/alias:"], "needs a value"),
        (["add", ADA, "/createusr", "x"], "is no option"),
        (["delete", "example.com", "/yes"], "is no option"),
    ],
)
def test_what_is_not_understood(console: Console, words: list[str], says: str) -> None:
    console.refused(*words, code=2, says=says)


def test_add_domain_again_and_in_another_spelling(console: Console, mail_store: MailStore) -> None:
    assert "Domain example.com added" in console.done("add", "Example.COM.").out
    assert console.done("add", "example.com").out == "Domain example.com exists already; nothing to do.\n"
    facts = console.done("ADD", "--json", "new.example").json
    assert facts == {"domain": "new.example", "directory_made": True, "registered": True, "version": 2}
    assert sorted(mail_store.domains()) == ["example.com", "new.example"]


def test_add_domain_mends_what_a_crash_left(console: Console, mail_store: MailStore) -> None:
    mail_store.add_domain("half.example")
    assert "had its directory already" in console.done("add", "half.example").out
    Path(mail_store.domain_path("half.example")).rmdir()
    assert "its directory was missing" in console.done("add", "half.example").out


@pytest.mark.parametrize("name", ["localhost", "exa mple.com", "-a.com", "a..com", "", "."])
def test_names_that_are_no_domain(console: Console, name: str) -> None:
    console.refused("add", name, says="is not a fully qualified domain name")


@pytest.mark.parametrize("name", ["a/b@example.com", "..@example.com", "@example.com", "a b@example.com", "a@b"])
def test_names_that_are_no_mailbox(with_ada: Console, name: str) -> None:
    with_ada.refused("add", name, "/createuser", "x", says="winpop: ")


def test_add_mailbox(with_ada: Console, mail_store: MailStore) -> None:
    assert mail_store.find(Address.parse(ADA)).key == "example.com/ada"
    with_ada.refused("add", ADA, "/createuser", "x", says="exists already")
    with_ada.refused("add", "ADA@Example.com", "/createuser", "x", says="exists already")
    with_ada.refused("add", "bob@elsewhere.com", "/createuser", "x", says="no domain elsewhere.com")
    with_ada.refused("add", "bob@example.com", says="needs a password")
    with_ada.refused("add", "bob@example.com", "/createuser", "a\tb", says="control characters")
    with_ada.refused("add", "bob@example.com", "/createuser", "x" * 249, says="249 octets")
    with_ada.done("add", "bob@example.com", "/createuser", "x" * 248)
    assert with_ada.done("add", "/CREATEUSER:secret", "eve@example.com", "--json").json == {
        "mailbox": "eve@example.com"
    }


@pytest.mark.invariant("I10")
def test_a_password_from_standard_input_is_shown_nowhere(console: Console) -> None:
    console.done("add", "example.com")
    outcome = console.done("add", ADA, "/createuser", "-", stdin="from a pipe \r\nnot this\n")
    assert "pipe" not in outcome.out
    assert opens(console, ADA, "from a pipe ")
    console.done("changepwd", ADA, "-", stdin="second")
    assert opens(console, ADA, "second")
    assert not opens(console, ADA, "from a pipe ")
    console.refused("changepwd", ADA, "-", stdin="", says="0 octets")


def test_changepwd(with_ada: Console) -> None:
    assert with_ada.done("changepwd", ADA, "byron").out == f"Password of {ADA} changed.\n"
    assert opens(with_ada, ADA, "byron")
    assert not opens(with_ada, ADA, "lovelace")
    with_ada.refused("changepwd", "bob@example.com", "x", says="no mailbox bob@example.com")


def test_an_alias_is_the_mailbox_by_another_name(with_ada: Console, mail_store: MailStore) -> None:
    out = with_ada.done("add", "post@example.com", "/alias", ADA).out
    assert out == f"Alias post@example.com added; it leads to {ADA} and has its password.\n"
    assert opens(with_ada, "post@example.com", "lovelace")
    out = with_ada.done("changepwd", "post@example.com", "byron").out
    assert out == f"Password of {ADA} (the target of the alias post@example.com) changed.\n"
    assert opens(with_ada, ADA, "byron")
    assert mail_store.find(Address.parse("post@example.com")).key == "example.com/ada"
    # An alias of an alias leads to the mailbox itself, so no chain can break.
    with_ada.done("add", "info@example.com", "/alias", "post@example.com")
    with_ada.done("delete", "post@example.com")
    assert opens(with_ada, "info@example.com", "byron")
    with_ada.refused("add", ADA, "/alias", "info@example.com", says="exists already")
    with_ada.refused("add", "x@example.com", "/alias", "y@example.com", says="no mailbox y@example.com")


def test_delete_mailbox_asks_and_goes_after_its_aliases(with_ada: Console, mail_store: MailStore) -> None:
    mail_store.find(Address.parse(ADA)).deliver(mail_store.names, [b"a: b\r\n\r\nc"])
    with_ada.done("add", "post@example.com", "/alias", ADA)
    with_ada.refused("delete", ADA, "/y", says=f"{ADA} has aliases; delete them first: post@example.com")
    assert with_ada.done("delete", "post@example.com").out.startswith("Alias post@example.com deleted.")
    with_ada.refused("delete", ADA, code=2, says="add /y to do it without asking")
    for answer in ("n\n", "\n", "maybe\n"):
        outcome = with_ada.type("delete", ADA, stdin=answer, terminal=True)
        assert (outcome.code, outcome.err) == (1, "winpop: nothing was deleted\n")
        assert f"Delete the mailbox {ADA} with 1 messages? [y/N]" in outcome.out
    assert f"Mailbox {ADA} deleted, with 1 messages." in with_ada.done("del", ADA, stdin="YES\n", terminal=True).out
    with_ada.refused("delete", ADA, "/Y", says=f"no mailbox {ADA}")


def test_delete_domain(with_ada: Console, mail_store: MailStore) -> None:
    with_ada.done("add", "other.example")
    with_ada.done("add", "ada@other.example", "/alias", ADA)
    with_ada.refused("delete", "example.com", "/y", says=f"{ADA} has aliases in other domains; delete them first")
    assert opens(with_ada, ADA, "lovelace")
    with_ada.done("delete", "ada@other.example")
    with_ada.done("add", "post@example.com", "/alias", ADA)  # Its own aliases go with it.
    with_ada.refused("delete", "example.com", code=2, says="add /y")
    facts = with_ada.done("delete", "example.com", "/y", "--json").json
    assert (facts["directory_removed"], facts["unregistered"], facts["messages"]) == (True, True, 0)
    assert list(mail_store.domains()) == ["other.example"]
    assert with_ada.done("delete", "example.com").out == "Domain example.com was deleted already; nothing to do.\n"
    with_ada.refused("delete", "never.example", says="there is no domain never.example")


def test_a_deletion_that_a_crash_interrupted_is_shown_and_finished(with_ada: Console, mail_store: MailStore) -> None:
    with_ada.admin()._registry.register("example.com", "delete", "test")
    assert "(the deletion is not finished; repeat: winpop delete example.com)" in with_ada.done("list").out
    with_ada.done("delete", "example.com", "/y")
    assert with_ada.done("list").out == "No domains yet: winpop add example.com\n"


def opens(console: Console, user: str, password: str) -> bool:
    from node.auth.encrypted_file import EncryptedFile
    from node.auth.outcome import Yes

    admin = console.admin()
    return isinstance(EncryptedFile(admin.store, admin._key).verify(user, password), Yes)


def test_delete_domain_declined_and_without_its_directory(with_ada: Console, mail_store: MailStore) -> None:
    outcome = with_ada.type("delete", "example.com", stdin="n\n", terminal=True)
    assert (outcome.code, outcome.err) == (1, "winpop: nothing was deleted\n")
    assert "Delete the domain example.com with 1 mailboxes and all their mail? [y/N]" in outcome.out
    with_ada.done("add", "empty.example")
    Path(mail_store.domain_path("empty.example")).rmdir()
    out = with_ada.done("delete", "empty.example").out
    assert out == "Domain empty.example had no directory any more; it is not registered any more either.\n"


def test_a_deletion_at_a_terminal_shows_where_it_is(with_ada: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    outcome = with_ada.type("delete", "example.com", "/y")
    assert outcome.code == 0
    assert outcome.err == f"\r\x1b[Kdeleting {ADA}\r\x1b[K"
