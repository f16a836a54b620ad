"""
The first thing the Compose lab runs: a GUID, the store's marker, a domain, mailboxes, an alias, some mail.

Guarantees  a second run changes nothing and says so: it never writes over a GUID or a marker, and mail that somebody
            removed does not come back. Prints where everything is.
Fails with  exit status 1 and a sentence.
Knows       the lab's configuration, and the administrator's functions that `winpop` uses too.
"""

import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from node import config as configuration
from node.admin import Admin, Report
from node.config import Config, ConfigError
from node.envelope import Envelope, trace
from store import identity
from store.address import Address
from store.errors import Exists, LedgerUnavailable, Missing, StoreError

GUID_PATH = Path("/run/mailroot/guid")  # guid_file in node.yaml.
DOMAIN = "example.com"
ACCOUNTS = {"ada": "lovelace", "grace": "hopper", "alan": "turing"}
ALIAS = ("postmaster", "ada")
LEDGER_SECONDS_MAX = 60.0  # Redis starts at the same time; on a busy machine it takes some seconds.

WELCOME = (
    ("Welcome to the Mailroot lab", "Three nodes serve this mailbox, and it does not matter which one you are at."),
    ("Kill a node", "docker-compose kill node2 ends a node without a goodbye. Your mail is not in it."),
    ("Nothing is left", "docker-compose down --volumes removes the lab with all its mail."),
)

ADDRESSES = """\
The lab serves, on this machine only:
  POP3         127.0.0.1:{MAILROOT_POP3_PORT}   through the balancer
  LMTP         127.0.0.1:{MAILROOT_LMTP_PORT}   through the balancer
  SMTP         127.0.0.1:{MAILROOT_SMTP_PORT}   through the balancer
  node1        http://127.0.0.1:{MAILROOT_NODE1_HTTP_PORT}/readyz   /healthz /metrics
  node2        http://127.0.0.1:{MAILROOT_NODE2_HTTP_PORT}/readyz
  node3        http://127.0.0.1:{MAILROOT_NODE3_HTTP_PORT}/readyz
  balancer     http://127.0.0.1:{MAILROOT_STATS_PORT}/         which nodes it places sessions on
Accounts:      {accounts}
Alias:         {alias}
Log in:        curl --user ada@{domain}:lovelace pop3://127.0.0.1:{MAILROOT_POP3_PORT}/1"""


def main() -> int:
    """Make what is missing, say what was there."""
    try:
        changed = _guid()
        config = configuration.load(configuration.path_of(None))
        changed |= _marker(config)
        changed |= _content(Admin(config), config)
    except (ConfigError, StoreError, OSError) as error:
        print(f"setup: {getattr(error, 'detail', error)}", file=sys.stderr)
        return 1
    print("The lab is set up." if changed else "Everything was there already; nothing was changed.")
    print(
        ADDRESSES.format(
            accounts=", ".join(f"{name}@{DOMAIN} (password {password})" for name, password in ACCOUNTS.items()),
            alias=f"{ALIAS[0]}@{DOMAIN} leads to {ALIAS[1]}@{DOMAIN}",
            domain=DOMAIN,
            **{name: port for name, port in os.environ.items() if name.startswith("MAILROOT_")},
        )
    )
    return 0


def _guid() -> bool:
    """Make the cluster's GUID: the key to the passwords, readable for the nodes' account alone."""
    if GUID_PATH.exists():
        return False
    draft = GUID_PATH.with_suffix(".tmp")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "w", encoding="ascii") as file:
        file.write(f"{uuid.uuid4()}\n")
        file.flush()
        os.fsync(file.fileno())
    draft.rename(GUID_PATH)  # Whole, or not there.
    print("GUID made.")
    return True


def _marker(config: Config) -> bool:
    try:
        identity.found(config.mail_store, config.guid, config.method)
    except Exists:
        return False
    print(f"Marker of the mail store {config.mail_store} written.")
    return True


def _content(admin: Admin, config: Config) -> bool:
    report = _when_the_ledger_is_there(lambda: admin.add_domain(DOMAIN))
    changed = bool(report.facts["directory_made"] or report.facts["registered"])
    print(*report.sentences)
    for name, password in ACCOUNTS.items():
        address = Address(name, DOMAIN)
        if _exists(admin, address):
            continue
        print(*admin.add_mailbox(str(address), password).sentences)
        for subject, text in WELCOME:
            _deliver(admin, config, address, subject, text)
        changed = True
    alias, target = (Address(name, DOMAIN) for name in ALIAS)
    if not _exists(admin, alias):
        print(*admin.add_alias(str(alias), str(target)).sentences)
        changed = True
    return changed


def _when_the_ledger_is_there(work: Callable[[], Report]) -> Report:
    deadline = time.monotonic() + LEDGER_SECONDS_MAX
    while True:
        try:
            return work()
        except LedgerUnavailable:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _exists(admin: Admin, address: Address) -> bool:
    try:
        admin.store.find(address)
    except Missing:
        return False
    return True


def _deliver(admin: Admin, config: Config, to: Address, subject: str, text: str) -> None:
    envelope = Envelope(sender="", helo="localhost", peer="local", protocol="local", node=config.node)
    mail = f"From: The lab <postmaster@{DOMAIN}>\r\nTo: {to}\r\nSubject: {subject}\r\n\r\n{text}\r\n"
    admin.store.find(to).deliver(admin.store.names, iter((trace(envelope, str(to)), mail.encode())))


if __name__ == "__main__":
    sys.exit(main())
