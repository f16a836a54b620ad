"""
What an administrator can do, whatever the command line looks like. Returns values, prints nothing.

Guarantees  every change is repeatable on any node and says what it found; what takes mail with it asks first
            (``confirm``). Order of a new domain: directory, then registration; of a deletion: registration, then
            directory: a crash in between is finished by repeating the command.
Fails with  StoreError, whose detail is for the administrator.
Knows       the store and the ledger, directly: an administrator's process may block.
"""

import getpass
import os
import socket
from collections.abc import Callable, Iterator

from attrs import field, frozen

from node.config import Config
from store import identity
from store.address import Address, normal_domain
from store.claim import ClaimTable, HeldClaim, NodeFacts
from store.credential import Credential, seal
from store.domain import MailStore, locked_in
from store.errors import BrokenAlias, Missing, Refused
from store.keys import Keys
from store.ledger import Ledger
from store.mailbox import newest, write_setting
from store.names import NameSource
from store.registry import Registration, Registry

PASSWORD_OCTETS_MAX = 248  # What fits on a PASS line: RFC 2449's 255 octets less "PASS ", CR and LF.

Confirm = Callable[[str], bool]
Progress = Callable[[Address], None]


@frozen
class Report:
    """What was done or found: sentences for a person, facts for a script."""

    sentences: tuple[str, ...]
    facts: dict[str, object] = field(factory=dict)


class Declined(Exception):
    """The administrator answered no."""


class Admin:
    """An administrator's view of one mail store and its ledger."""

    def __init__(self, config: Config) -> None:
        found = identity.verify(config.mail_store, config.guid, config.method)
        self.store = MailStore(config.mail_store, found.store_id, NameSource())
        self._key = identity.derived_key(config.guid, found.store_id, "credentials")
        self._ledger = Ledger(config.redis)
        keys = Keys(found.store_id)
        self._registry = Registry(self._ledger, keys)
        self._claims = ClaimTable(self._ledger, keys)

    # Domains

    def add_domain(self, text: str) -> Report:
        """Make a domain and register it. Harmless where it exists."""
        domain = normal_domain(text)
        self._ledger.milliseconds()  # Rather no directory than one that nobody registered.
        made = self.store.add_domain(domain)
        registered, registration = self._registry.register(domain, "add", _who())
        if registered and not made and self.store.is_locked(self.store.domain_path(domain)):
            # The ledger lost its memory; the lock is still in the directory.
            _, registration = self._registry.register(domain, "lock", _who())
        facts = {"domain": domain, "directory_made": made, "registered": registered, "version": _version(registration)}
        if made and registered:
            return Report((f"Domain {domain} added. Every node receives its mail from now on.",), facts)
        if registered:
            return Report((f"Domain {domain} had its directory already; it is registered now.",), facts)
        if made:
            return Report(
                (f"Domain {domain} was registered already; its directory was missing and has been made.",), facts
            )
        return Report((f"Domain {domain} exists already; nothing to do.",), facts)

    def delete_domain(self, text: str, confirm: Confirm, progress: Progress) -> Report:
        """Delete a domain with its mailboxes and mail. Harmless where it is gone."""
        domain = normal_domain(text)
        entries = list(self.store.entries(domain)) if domain in self.store.domains() else None
        if entries is not None:
            aliases = self.store.aliases()
            for entry in entries:
                key = f"{domain}/{entry.address.local}"
                outside = [alias for alias in aliases.get(key, []) if alias.domain != domain]
                if outside:
                    raise Refused(f"{entry.address} has aliases in other domains; delete them first: {_names(outside)}")
            count = sum(entry.target is None for entry in entries)
            if not confirm(f"Delete the domain {domain} with {count} mailboxes and all their mail?"):
                raise Declined
        unregistered, registration = self._registry.register(domain, "delete", _who())
        removed = self.store.delete_domain(domain, progress) if entries is not None else 0
        facts = {
            "domain": domain,
            "directory_removed": entries is not None,
            "unregistered": unregistered,
            "messages": removed,
            "version": _version(registration),
        }
        if entries is not None:
            return Report(
                (f"Domain {domain} deleted, with {removed} messages. No node receives its mail any more.",), facts
            )
        if unregistered:
            return Report((f"Domain {domain} had no directory any more; it is not registered any more either.",), facts)
        if registration is not None:
            return Report((f"Domain {domain} was deleted already; nothing to do.",), facts)
        raise Missing(f"there is no domain {domain}; winpop list shows those there are")

    # Mailboxes

    def add_mailbox(self, text: str, password: str | None) -> Report:
        """Make a mailbox with a password."""
        address = Address.parse(text)
        if password is None:
            raise Refused(
                f"a mailbox needs a password: winpop add {address} /createuser Password "
                "(write - for the password to type it on standard input)"
            )
        _check_password(password)
        mailbox = self.store.add_mailbox(address)
        self._write_credential(mailbox.path, password)
        return Report((f"Mailbox {address} added.",), {"mailbox": str(address)})

    def add_alias(self, alias_text: str, target_text: str) -> Report:
        """Make an alias: mail to it, and logins with it, reach the target."""
        alias = Address.parse(alias_text)
        mailbox = self.store.add_alias(alias, Address.parse(target_text))
        facts: dict[str, object] = {"alias": str(alias), "mailbox": _address(mailbox.key)}
        return Report((f"Alias {alias} added; it leads to {_address(mailbox.key)} and has its password.",), facts)

    def delete_mailbox(self, text: str, confirm: Confirm) -> Report:
        """Delete a mailbox with its mail, or an alias alone."""
        address = Address.parse(text)
        try:
            mailbox = self.store.find(address)
        except (BrokenAlias, Missing):
            if not self.store.delete_alias(address):
                raise
            return Report((f"Alias {address} deleted. It led to no mailbox.",), {"alias": str(address)})
        if self.store.delete_alias(address):
            sentence = f"Alias {address} deleted. The mailbox {_address(mailbox.key)} and its mail are untouched."
            return Report((sentence,), {"alias": str(address)})
        aliases = self.store.aliases().get(mailbox.key)
        if aliases:
            raise Refused(f"{address} has aliases; delete them first: {_names(aliases)}")
        count = len(mailbox.snapshot(mailbox.listing()).messages)
        if not confirm(f"Delete the mailbox {address} with {count} messages?"):
            raise Declined
        removed = self.store.delete_mailbox(address)
        return Report(
            (f"Mailbox {address} deleted, with {removed} messages.",), {"mailbox": str(address), "messages": removed}
        )

    def change_password(self, text: str, password: str) -> Report:
        """Give a mailbox a new password, in force at the next login on every node."""
        address = Address.parse(text)
        _check_password(password)
        mailbox = self.store.find(address)
        self._write_credential(mailbox.path, password)
        return Report((f"Password of {_said(address, mailbox.key)} changed.",), {"mailbox": _address(mailbox.key)})

    def _write_credential(self, path: str, password: str) -> None:
        content = seal(Credential.of(password), self._key, self.store.store_id)
        write_setting(path, self.store.names, "auth", content)

    # Locks

    def set_lock(self, text: str, *, locked: bool) -> Report:
        """Lock or unlock a domain or a mailbox. A locked one still receives mail; retrieval is refused."""
        word = "locked" if locked else "unlocked"
        if "@" not in text:
            domain = normal_domain(text)
            path = self.store.domain_path(domain)
            was = self.store.is_locked(path)
            if was != locked:
                self.store.set_lock(path, locked=locked)
            self._registry.register(domain, "lock" if locked else "unlock", _who())
            sentence = f"Domain {domain} {'was' if was == locked else 'is now'} {word}."
            return Report((sentence,), {"domain": domain, "locked": locked})
        address = Address.parse(text)
        mailbox = self.store.find(address)
        domain = mailbox.key.partition("/")[0]
        if not locked and self.store.is_locked(self.store.domain_path(domain)):
            raise Refused(
                f"the domain {domain} is locked, so no single mailbox can be unlocked: winpop unlock {domain}"
            )
        was = self.store.is_locked(mailbox.path)
        if was != locked:
            self.store.set_lock(mailbox.path, locked=locked)
        sentence = f"Mailbox {_said(address, mailbox.key)} {'was' if was == locked else 'is now'} {word}."
        return Report((sentence,), {"mailbox": _address(mailbox.key), "locked": locked})

    # Looking

    def domains(self) -> list[dict[str, object]]:
        """Return every domain with its registration and what does not fit together."""
        registrations = {r.domain: r for r in self._registry.changes_after(0)}
        paths = self.store.domains()
        found: list[dict[str, object]] = []
        for domain in sorted({*paths, *(name for name, r in registrations.items() if not r.deleted)}):
            registration = registrations.get(domain)
            registered = registration is not None and not registration.deleted
            problem = ""
            if domain not in paths:
                problem = f"no directory; repeat: winpop add {domain}, or: winpop delete {domain}"
            elif registration is not None and registration.deleted:
                problem = f"the deletion is not finished; repeat: winpop delete {domain}"
            elif registration is None:
                problem = f"not registered yet; a node will, or: winpop add {domain}"
            locked = domain in paths and self.store.is_locked(paths[domain])
            found.append({"domain": domain, "locked": locked, "registered": registered, "problem": problem})
        return found

    def mailboxes(self, text: str) -> Iterator[dict[str, object]]:
        """Yield the mailboxes and aliases of a domain with their messages and octets."""
        domain = normal_domain(text)
        for entry in self.store.entries(domain):
            row: dict[str, object] = {
                "address": str(entry.address),
                "alias_of": _address(entry.target) if entry.target else None,
                "locked": False,
                "messages": 0,
                "octets": 0,
                "has_password": False,
                "problem": entry.problem or "",
            }
            if entry.target is None:
                mailbox = self.store.find(entry.address)
                listing = mailbox.listing()
                snapshot = mailbox.snapshot(listing)
                row |= {
                    "locked": locked_in(listing),
                    "messages": len(snapshot.messages),
                    "octets": snapshot.octets,
                    "has_password": newest(listing, "auth") is not None,
                }
            yield row

    # The cluster

    def nodes(self) -> list[NodeFacts]:
        """Return the nodes that joined and have not left."""
        return self._claims.nodes()

    def claims(self) -> list[HeldClaim]:
        """Return the claims that are held."""
        return self._claims.claims()

    def registrations_version(self) -> int:
        """Return the version of the last change of a registration."""
        return self._registry.version()

    def break_claim(self, text: str) -> Report:
        """Break the claim on a mailbox: its session removes nothing, and the mailbox can be opened at once."""
        address = Address.parse(text)
        mailbox = self.store.find(address)
        broken = self._claims.break_claim(mailbox.key)
        if broken is None:
            return Report((f"Nobody holds a claim on {_said(address, mailbox.key)}.",), {"broken": False})
        sentence = f"Claim of node {broken.node} on {_said(address, mailbox.key)}, held for {broken.age_seconds:.0f} s, broken."
        return Report((sentence,), {"broken": True, "node": broken.node})


def _check_password(password: str) -> None:
    octets = len(password.encode("utf-8", "surrogateescape"))
    if not 0 < octets <= PASSWORD_OCTETS_MAX:
        raise Refused(f"the password has {octets} octets; 1 to {PASSWORD_OCTETS_MAX} fit into a POP3 command")
    if not password.isprintable():
        raise Refused("the password has control characters, which no POP3 client can send; leave them out")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _version(registration: Registration | None) -> int:
    return registration.version if registration is not None else 0


def _address(key: str) -> str:
    domain, _, local = key.partition("/")
    return f"{local}@{domain}"


def _said(address: Address, key: str) -> str:
    """Return an address as a person should read it: an alias with where it leads."""
    return str(address) if str(address) == _address(key) else f"{_address(key)} (the target of the alias {address})"


def _names(addresses: list[Address]) -> str:
    return ", ".join(str(address) for address in addresses)
