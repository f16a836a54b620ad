"""
Domains and mailboxes as directories, aliases as links, administrative locks.

Guarantees  every path stays inside the store; a miss is believed only with the marker in sight (I9).
Fails with  Missing, Exists, Refused, Unavailable.
Knows       the tree ``<store>/<domain>/P3_<local>.mbx``. Nothing of message bytes, Redis or Twisted.

Adopted trees may have names in any case (``EXAMPLE.COM/p3_Bob.MBX``), as Windows would match them. The exact
name is tried first; what the exact name misses is looked up in a folded listing that is at most
FOLDED_SECONDS old, so that a stranger who guesses names does not make us list a large domain each time.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from threading import Lock as ThreadLock

from attrs import frozen

from store import files, identity
from store.address import MAILBOX_PREFIX, Address, directory_name, local_of_directory, normal_domain
from store.errors import BrokenAlias, Exists, Missing, Refused, StoreError, Unavailable
from store.mailbox import Mailbox, newest, write_setting
from store.message import MESSAGE_SUFFIX
from store.names import NameSource

LINKS_MAX = 8  # An alias of an alias of …; more is a loop. Linux itself gives up at 40.
FOLDED_SECONDS = 10.0  # Names in another case come from adoption or from Windows, not from other nodes.


@frozen(kw_only=True)
class Entry:
    """A mailbox directory or an alias as an administrator sees it. ``target`` is the resolved mailbox's key, or None."""

    address: Address
    path: str
    target: str | None
    problem: str | None = None


class MailStore:
    """The directory tree of one mail store, blocking. Thread-safe."""

    def __init__(
        self, root: str, store_id: str, names: NameSource, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.root = os.path.abspath(root)
        self.store_id = store_id
        self.names = names
        self._clock = clock
        self._folded: dict[str, tuple[float, dict[str, str]]] = {}
        self._lock = ThreadLock()

    # Finding

    def find(self, address: Address) -> Mailbox:
        """
        Return the mailbox of an address, aliases resolved.

        :raises Missing: there is none. BrokenAlias: a link that loops or leads outside the store.
        """
        path = f"{self.root}/{address.domain}/{directory_name(address.local)}"
        # The ordinary case costs two looks. A domain that is a link would give its mailboxes two claims each.
        with suppress(FileNotFoundError, NotADirectoryError):
            if files.kind(path) == "directory" and files.kind(f"{self.root}/{address.domain}") == "directory":
                return Mailbox(path, f"{address.domain}/{address.local}")
        try:
            return self._find_in_any_case(address)
        except Missing:
            # The share may have come back after the miss and before the look at the marker (I9): a miss counts only
            # after the marker was seen.
            return self._find_in_any_case(address)

    def _find_in_any_case(self, address: Address) -> Mailbox:
        found = self._mailbox_path(address)
        if found is None:
            raise self._missing(f"no mailbox {address} in {self.root}")
        return self._resolve(found, str(address))

    def domain_path(self, domain: str) -> str:
        """Return the directory of a domain. :raises Missing: there is none."""
        path = f"{self.root}/{domain}"
        with suppress(FileNotFoundError):
            found = files.kind(path)
            if found == "directory":
                return path
            if found == "link":
                message = f"{path} is a link; a domain can't be one: make the domain, and aliases in it"
                raise BrokenAlias(message)
        name = self._folded_names(self.root).get(domain)
        if name is not None:
            return f"{self.root}/{name}"
        if files.is_directory(path):
            return path
        raise self._missing(f"no domain {domain} in {self.root}")

    def _missing(self, what: str) -> Missing | Unavailable:
        return identity.believe_missing(self.root, self.store_id, what)

    def _mailbox_path(self, address: Address) -> str | None:
        """Return the directory or link of an address, unresolved."""
        domain_path = self.domain_path(address.domain)
        path = f"{domain_path}/{directory_name(address.local)}"
        if files.exists(path):
            return path
        name = self._folded_names(domain_path).get(directory_name(address.local))
        if name is not None:
            return f"{domain_path}/{name}"
        files.look_again(domain_path)
        return path if files.exists(path) else None

    def _folded_names(self, directory: str) -> dict[str, str]:
        """Return the names of a directory by their lower case, from a listing of at most FOLDED_SECONDS ago."""
        now = self._clock()
        with self._lock:
            known = self._folded.get(directory)
        if known is not None and now - known[0] < FOLDED_SECONDS:
            return known[1]
        try:
            listing = files.list_names(directory)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        if directory == self.root and identity.MARKER not in listing:
            # Not kept, like the failure above: a share that was away for a second would be empty for ten (I9).
            return {}
        # Only names that their lower case would miss: an ordinary tree costs no memory.
        folded = {name.lower(): name for name in listing if name != name.lower()}
        # P3_bob.mbx itself has an upper-case letter: the directory's own spelling is no other case.
        folded = {
            (directory_name(local) if (local := local_of_directory(lower)) is not None else lower): name
            for lower, name in folded.items()
        }
        folded = {normal: name for normal, name in folded.items() if normal != name}
        with self._lock:
            self._folded[directory] = (now, folded)
        return folded

    def _resolve(self, path: str, what: str) -> Mailbox:
        """Follow links inside the store to the mailbox's own directory."""
        for _ in range(LINKS_MAX):
            try:
                target = files.link_target(path)
            except (FileNotFoundError, NotADirectoryError):
                raise self._missing(f"the alias {what} points to {path}, which is not there") from None
            if target is None:
                return self._mailbox_at(path, what)
            path = os.path.normpath(os.path.join(os.path.dirname(path), target))
            # Checked at each step and on the text of the link: an alias never leads outside the store.
            if not path.startswith(f"{self.root}/"):
                message = f"the alias {what} leads outside the mail store, to {path}; remove the link"
                raise BrokenAlias(message)
        message = f"the alias {what} is part of a loop of links at {path}; remove one of them"
        raise BrokenAlias(message)

    def _mailbox_at(self, path: str, what: str) -> Mailbox:
        domain, _, name = path[len(self.root) + 1 :].partition("/")
        local = local_of_directory(name)
        if local is None or not files.is_directory(path):
            message = f"{what} leads to {path}, which is no mailbox directory"
            raise BrokenAlias(message)
        return Mailbox(path, f"{domain.lower()}/{local}")

    # Listing

    def domains(self) -> dict[str, str]:
        """Return every domain of the store and its directory's path. :raises Unavailable: the marker is not there."""
        listing = files.list_names(self.root)
        if identity.MARKER not in listing:
            raise self._missing(f"{self.root} has no domains")
        found = {}
        for name in sorted(listing):
            path = f"{self.root}/{name}"
            try:
                domain = normal_domain(name)
            except Refused:
                continue
            with suppress(FileNotFoundError):
                if files.kind(path) == "directory":
                    found[domain] = path
        return found

    def entries(self, domain: str) -> Iterator[Entry]:
        """Yield the mailboxes and aliases of a domain, by name."""
        directory = self.domain_path(domain)
        for name, is_link in files.scan(directory):
            local = local_of_directory(name)
            if local is None:
                continue
            address, path = Address(local, domain), f"{directory}/{name}"
            if not is_link:
                yield Entry(address=address, path=path, target=None)
                continue
            try:
                yield Entry(address=address, path=path, target=self._resolve(path, str(address)).key)
            except StoreError as error:
                yield Entry(address=address, path=path, target="", problem=error.detail)

    def aliases(self) -> dict[str, list[Address]]:
        """Return the aliases of all domains by the key of the mailbox that they lead to."""
        found: dict[str, list[Address]] = {}
        for domain in self.domains():
            for entry in self.entries(domain):
                if entry.target:
                    found.setdefault(entry.target, []).append(entry.address)
        return found

    # Changing

    def add_domain(self, domain: str) -> bool:
        """Make a domain's directory; return False where it was there already."""
        if domain in self.domains():
            return False
        try:
            files.make_directory(f"{self.root}/{domain}")
        except FileExistsError:
            return False
        return True

    def add_mailbox(self, address: Address) -> Mailbox:
        """Make a mailbox's directory. :raises Exists: a mailbox or an alias, in any case, has the name."""
        path = self._new_path(address)
        try:
            files.make_directory(path)
        except FileExistsError as error:
            message = f"{address} exists already"
            raise Exists(message) from error
        return Mailbox(path, f"{address.domain}/{address.local}")

    def add_alias(self, alias: Address, target: Address) -> Mailbox:
        """Make a link from an alias to a mailbox. :raises Exists, Missing: see the detail."""
        mailbox = self.find(target)
        path = self._new_path(alias)
        # Relative, so that the tree may be mounted anywhere; to the mailbox itself, so that no chain can loop.
        relative = os.path.relpath(mailbox.path, os.path.dirname(path))
        try:
            files.make_link(relative, path)
        except FileExistsError as error:
            message = f"{alias} exists already"
            raise Exists(message) from error
        return mailbox

    def _new_path(self, address: Address) -> str:
        directory = self.domain_path(address.domain)
        wanted = directory_name(address.local)
        if any(name.lower() == wanted.lower() for name in files.list_names(directory)):
            message = f"{address} exists already"
            raise Exists(message)
        return f"{directory}/{wanted}"

    def delete_alias(self, address: Address) -> bool:
        """Remove an alias (the link only); return False where the address is no alias."""
        path = self._mailbox_path(address)
        if path is None:
            raise self._missing(f"no mailbox {address} in {self.root}")
        if files.link_target(path) is None:
            return False
        files.unlink(path)
        return True

    def delete_mailbox(self, address: Address) -> int:
        """
        Remove a mailbox with its mail; return how many messages went.

        The directory is renamed out of the namespace first: at that instant the mailbox is gone for everybody,
        and a crash leaves a ``.deleted-`` directory, which the next deletion in the domain finishes.
        """
        mailbox = self.find(address)
        domain_directory, name = os.path.split(mailbox.path)
        doomed = f"{domain_directory}/.deleted-{self.names.next_uid()}-{name.removeprefix(MAILBOX_PREFIX)}"
        try:
            files.move_directory(mailbox.path, doomed)
        except FileNotFoundError:
            # Another administrator was faster, or the share went away.
            raise self._missing(f"no mailbox {address} in {self.root}") from None
        return self.finish_deletions(domain_directory)

    def finish_deletions(self, domain_directory: str) -> int:
        """Empty and remove the ``.deleted-`` directories of a domain; return how many messages went."""
        removed = 0
        for doomed in files.list_names(domain_directory):
            if doomed.startswith(".deleted-"):
                path = f"{domain_directory}/{doomed}"
                removed += self._empty_and_remove(path)
        return removed

    def _empty_and_remove(self, directory: str) -> int:
        """Remove a directory with all that an adopted tree may hold in it; return how many messages went."""
        removed = 0
        with suppress(FileNotFoundError):  # Another node finishes it too.
            for name in files.list_names(directory):
                try:
                    removed += files.unlink(f"{directory}/{name}") and name.lower().endswith(MESSAGE_SUFFIX)
                except IsADirectoryError:
                    removed += self._empty_and_remove(f"{directory}/{name}")
        files.remove_directory(directory)
        return removed

    def delete_domain(self, domain: str, progress: Callable[[Address], None]) -> int:
        """Remove a domain with all mailboxes; return how many messages went. Repeatable after a crash."""
        directory = self.domain_path(domain)
        removed = 0
        for entry in list(self.entries(domain)):
            progress(entry.address)
            if files.link_target(entry.path) is not None:
                files.unlink(entry.path)
            else:
                removed += self.delete_mailbox(entry.address)
        removed += self.finish_deletions(directory)
        for name in files.list_names(directory):
            if name.startswith("."):
                files.unlink(f"{directory}/{name}")
        files.remove_directory(directory)
        return removed

    # Locks

    def set_lock(self, directory: str, *, locked: bool) -> None:
        """Lock or unlock a mailbox or a domain, given its directory."""
        try:
            write_setting(directory, self.names, "lock", state="on" if locked else "off")
        except FileNotFoundError:
            raise self._missing(f"{directory} is gone") from None

    def is_locked(self, directory: str) -> bool:
        """Tell whether the administrator locked this mailbox or domain (not whether its domain is)."""
        try:
            return locked_in(files.list_names(directory))
        except FileNotFoundError:
            raise self._missing(f"{directory} is gone") from None


def locked_in(listing: list[str]) -> bool:
    """Tell from a listing whether the directory is locked."""
    setting = newest(listing, "lock")
    return setting is not None and setting.state == "on"
