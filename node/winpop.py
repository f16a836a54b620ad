"""
``winpop``: the command line of the Windows POP3 service, on admin.py. Words and options as documented there.

Exit codes  0 done; 1 refused, with a sentence; 2 not understood; 75 try again later (the share or the ledger).
"""

import json
import os
import sys
from collections.abc import Callable
from typing import NoReturn

from node.admin import Admin, Declined, Report
from node.config import ConfigError, load, path_of
from store.errors import StoreError

HELP = """\
winpop: domains and mailboxes of a Mailroot cluster. Any node, any time, for all nodes.

  winpop add Domain                              make a domain; every node receives its mail
  winpop add User@Domain /createuser Password    make a mailbox
  winpop add Alias@Domain /alias User@Domain     make an alias of a mailbox
  winpop delete Domain [/y]                      delete a domain with all mailboxes and mail
  winpop delete User@Domain [/y]                 delete a mailbox with its mail, or an alias alone
  winpop list [Domain]                           the domains, or the mailboxes of one
  winpop stat [Domain]                           messages and octets of each
  winpop lock|unlock Domain|User@Domain          refuse or allow retrieval; mail is received all the same
  winpop changepwd User@Domain NewPassword       give a mailbox a new password
  winpop help

  A Password written as - is read from standard input, so that no process list shows it:
      printf %s "$PASSWORD" | winpop add ada@example.com /createuser -
  /y        do not ask before mail is deleted
  --json    answer in JSON, for scripts
  --config FILE   the node's configuration; else MAILROOT_CONFIG, else /etc/mailroot/node.yaml

  Exit codes: 0 done, 1 refused, 2 not understood, 75 try again later.
"""

EXIT_REFUSED = 1
EXIT_USAGE = 2


class UsageError(Exception):
    """The words are not understood; the text says what they should be."""


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run the command line."""
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))


def run(arguments: list[str]) -> int:
    """Run the command line; return the exit code."""
    try:
        options, words = _split(arguments)
        if not words or words[0].lower() in ("help", "/?", "-h", "--help"):
            print(HELP, end="")
            return 0 if words else EXIT_USAGE
        verb = VERBS.get(words[0].lower())
        if verb is None:
            raise UsageError(f"{words[0]!r} is no verb; winpop help shows them all")
        report = verb(Admin(load(path_of(options.get("--config")))), words[1:], options)
    except UsageError as error:
        return _fail(str(error), EXIT_USAGE)
    except ConfigError as error:
        return _fail(str(error), EXIT_REFUSED)
    except Declined:
        return _fail("nothing was deleted", EXIT_REFUSED)
    except StoreError as error:
        return _fail(error.detail, os.EX_TEMPFAIL if error.temporary else EXIT_REFUSED)
    if "--json" in options:
        print(json.dumps(report.facts, indent=2))
    else:
        for sentence in report.sentences:
            print(sentence)
    return 0


def _fail(sentence: str, code: int) -> int:
    for line in sentence.splitlines():
        print(f"winpop: {line}", file=sys.stderr)
    return code


# What may follow an option: the options with a value, and those without.
_WITH_VALUE = ("--config", "/createuser", "/alias")
_WITHOUT = ("/y", "--json", "/deleteuser")


def _split(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Part options from words; options may stand anywhere and in any case, as on Windows."""
    options: dict[str, str] = {}
    words: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        name, _, value = argument.partition(":") if argument.startswith("/") else argument.partition("=")
        name = name.lower()
        if name in _WITH_VALUE:
            options[name] = value or next(rest, "")
            if not options[name]:
                raise UsageError(f"{argument} needs a value behind it")
        elif argument.lower() in _WITHOUT:
            options[argument.lower()] = ""
        elif argument.startswith("/") and len(argument) > 2 and argument != "/?":  # noqa: PLR2004
            raise UsageError(f"{argument!r} is no option; winpop help shows them all")
        else:
            words.append(argument)
    return options, words


def _one(words: list[str], what: str) -> str:
    if len(words) != 1:
        raise UsageError(f"this takes one {what}; winpop help shows how")
    return words[0]


def _password(text: str) -> str:
    return sys.stdin.readline().rstrip("\r\n") if text == "-" else text


def _confirm(options: dict[str, str]) -> Callable[[str], bool]:
    def ask(question: str) -> bool:
        if "/y" in options:
            return True
        if not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody is there to answer; add /y to do it without asking")
        try:
            return input(f"{question} [y/N] ").strip().lower() in ("y", "yes")
        except EOFError:  # Ctrl-D
            return False

    return ask


def _add(admin: Admin, words: list[str], options: dict[str, str]) -> Report:
    name = _one(words, "domain or mailbox")
    if "/alias" in options:
        return admin.add_alias(name, options["/alias"])
    if "@" not in name:
        return admin.add_domain(name)
    password = options.get("/createuser")
    return admin.add_mailbox(name, None if password is None else _password(password))


def _delete(admin: Admin, words: list[str], options: dict[str, str]) -> Report:
    name = _one(words, "domain or mailbox")
    if "@" in name:
        return admin.delete_mailbox(name, _confirm(options))

    def progress(address: object) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[Kdeleting {address}", end="", file=sys.stderr)

    report = admin.delete_domain(name, _confirm(options), progress)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr)
    return report


def _list(admin: Admin, words: list[str], _options: dict[str, str]) -> Report:
    if not words:
        domains = admin.domains()
        lines = [_line(str(row["domain"]), row) for row in domains] or ["No domains yet: winpop add example.com"]
        return Report(tuple(lines), {"domains": domains})
    rows = list(admin.mailboxes(_one(words, "domain")))
    lines = [_line(str(row["address"]), row) for row in rows] or [f"No mailboxes yet: winpop add someone@{words[0]} …"]
    return Report(tuple(lines), {"mailboxes": rows})


def _line(name: str, row: dict[str, object]) -> str:
    marks = []
    if row.get("alias_of"):
        marks.append(f"-> {row['alias_of']}")
    if row["locked"]:
        marks.append("locked")
    if row["problem"]:
        marks.append(f"({row['problem']})")
    return "  ".join([name, *marks])


def _stat(admin: Admin, words: list[str], _options: dict[str, str]) -> Report:
    if words:
        rows = list(admin.mailboxes(_one(words, "domain")))
    else:
        rows = []
        for domain in admin.domains():
            rows_of_domain = [] if domain["problem"] else admin.mailboxes(str(domain["domain"]))
            boxes = [box for box in rows_of_domain if not box["alias_of"] and not box["problem"]]
            counts = {key: sum(int(str(box[key])) for box in boxes) for key in ("messages", "octets")}
            rows.append({"domain": domain["domain"], "mailboxes": len(boxes), **counts})
    lines = []
    for row in rows:
        name = str(row.get("domain") or row["address"])
        mailboxes = f"{row['mailboxes']:>9} mailboxes" if "mailboxes" in row else ""
        lines.append(f"{name:<40} {mailboxes} {row['messages']:>9} messages {row['octets']:>15} octets")
    return Report(tuple(lines), {"statistics": rows})


def _lock(admin: Admin, words: list[str], _options: dict[str, str]) -> Report:
    return admin.set_lock(_one(words, "domain or mailbox"), locked=True)


def _unlock(admin: Admin, words: list[str], _options: dict[str, str]) -> Report:
    return admin.set_lock(_one(words, "domain or mailbox"), locked=False)


def _changepwd(admin: Admin, words: list[str], _options: dict[str, str]) -> Report:
    if len(words) != 2:  # noqa: PLR2004 (a mailbox and a password)
        raise UsageError("changepwd takes a mailbox and its new password (or -)")
    return admin.change_password(words[0], _password(words[1]))


VERBS: dict[str, Callable[[Admin, list[str], dict[str, str]], Report]] = {
    "add": _add,
    "delete": _delete,
    "del": _delete,
    "list": _list,
    "stat": _stat,
    "lock": _lock,
    "unlock": _unlock,
    "changepwd": _changepwd,
}

if __name__ == "__main__":
    main()
